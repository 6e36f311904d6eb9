package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// A Server serves the API on a unix socket, or something for everyone on TCP.
type Server struct {
	listener net.Listener
	http     *http.Server
	name     string
}

// maxPath is the longest path of a unix socket (sun_path in unix(7), with the
// zero at its end).
const maxPath = 107

// Listen makes the socket, for its owner and group only: who may connect is the
// operator. A socket that a killed server has left is replaced; one that
// somebody serves is not, and neither is anything else.
func Listen(path string, h http.Handler, log *slog.Logger) (*Server, error) {
	l, err := listen(path)
	if err != nil {
		return nil, fmt.Errorf("cannot serve the API at %s: %w", path, err)
	}
	return newServer("API at "+path, l, h, log), nil
}

// ListenTCP serves h on a TCP address, to whoever can reach it: h must find out
// itself who that is, unless it shows no secret and changes nothing. what names
// it in messages.
func ListenTCP(what, addr string, h http.Handler, log *slog.Logger) (*Server, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("cannot serve %s at %s: %w", what, addr, err)
	}
	s := newServer(what+" at "+addr, l, h, log)
	s.http.ReadTimeout, s.http.WriteTimeout, s.http.MaxHeaderBytes = 10*time.Second, 30*time.Second, 1<<14
	return s, nil
}

func newServer(name string, l net.Listener, h http.Handler, log *slog.Logger) *Server {
	return &Server{listener: l, name: name, http: &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}
}

// Addr is where the server listens.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

func listen(path string) (net.Listener, error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("the path of a socket has at most %d characters, this one %d; set api.socket in bootd.yaml", maxPath, len(path))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	// Until now only the owner could connect: that takes the right to write.
	if err := os.Chmod(path, 0o660); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// removeStale removes the socket of a server that is gone.
func removeStale(path string) error {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case st.Mode().Type() != os.ModeSocket:
		return errors.New("there is a file of this name that is no socket; remove it, or set another api.socket in bootd.yaml")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		return errors.Join(errors.New("another bootd answers there; stop it first"), c.Close())
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// String names the server in messages.
func (s *Server) String() string { return s.name }

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	// Streams end with the server.
	s.http.BaseContext = func(net.Listener) context.Context { return ctx }
	failed := make(chan error, 1)
	go func() { failed <- s.http.Serve(s.listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	err := s.http.Shutdown(bounded)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.http.Close()
	}
	<-failed
	return err
}
