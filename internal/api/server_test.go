package api_test

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bootd/boot"
	"bootd/internal/api"
)

func logTo(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// run serves until the returned function is called.
func run(t *testing.T, s *api.Server) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the server does not end")
		}
	}
}

func over(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}
}

func TestListen(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	h := api.New(config(newSource()))
	socket := filepath.Join(t.TempDir(), "run", "bootd.sock")
	s, err := api.Listen(socket, h, log)
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(socket)
	if err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	stop := run(t, s)
	if _, err := api.Listen(socket, h, log); err == nil || !strings.Contains(err.Error(), "another bootd answers") {
		t.Errorf("a second server: %v", err)
	}
	resp, err := over(socket).Get("http://bootd/v1/status")
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	resp.Body.Close()
	stop()
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
	if !strings.Contains(s.String(), socket) {
		t.Errorf("it calls itself %s", s)
	}

	t.Run("what a killed server left", func(t *testing.T) {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
		s, err := api.Listen(socket, h, log)
		if err != nil {
			t.Fatal(err)
		}
		run(t, s)()
	})
	t.Run("not a socket", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "precious")
		if err := os.WriteFile(file, []byte("keep me"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := api.Listen(file, h, log); err == nil || !strings.Contains(err.Error(), "no socket") {
			t.Errorf("err = %v", err)
		}
		if b, err := os.ReadFile(file); err != nil || string(b) != "keep me" {
			t.Errorf("%q, %v", b, err)
		}
	})
	t.Run("path too long", func(t *testing.T) {
		_, err := api.Listen("/"+strings.Repeat("long", 30)+"/s", h, log)
		if err == nil || !strings.Contains(err.Error(), "api.socket") {
			t.Errorf("err = %v", err)
		}
	})
	t.Run("no right to be there", func(t *testing.T) {
		if _, err := api.Listen("/proc/nothing/bootd.sock", h, log); err == nil || !strings.Contains(err.Error(), "/proc/nothing") {
			t.Errorf("err = %v", err)
		}
	})
	t.Run("longest path", func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, strings.Repeat("x", len(syscall.RawSockaddrUnix{}.Path)-1-len(dir)-1))
		s, err := api.Listen(path, h, log)
		if err != nil {
			t.Fatal(err)
		}
		run(t, s)()
	})
}

// TestEndWithReaders: a server that is stopped does not wait for those who follow
// events.
func TestEndWithReaders(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	s, err := api.Listen(socket, api.New(config(newSource(event(1, mac1, boot.Offered)))), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, s)
	resp, err := over(socket).Get("http://bootd/v1/events?follow=true")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	r := bufio.NewReader(resp.Body)
	if l, err := r.ReadString('\n'); err != nil || l != "id: 1\n" {
		t.Fatal(l, err)
	}
	begun := time.Now()
	stop()
	if d := time.Since(begun); d > 2*time.Second {
		t.Errorf("it took %s to stop", d)
	}
	if _, err := io.ReadAll(r); err != nil {
		t.Errorf("the stream was torn: %v", err)
	}
}
