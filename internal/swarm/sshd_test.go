package swarm_test

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"os/exec"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
)

func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

// An sshd is an SSH server on the loopback interface. It runs commands with the
// system's shell, and forwards sockets, as OpenSSH's does.
type sshd struct {
	addr    string
	forward bool          // sockets
	path    string        // PATH of commands; empty: none are run
	keys    []ssh.Signer  // its own
	user    ssh.PublicKey // who may log in

	mu     sync.Mutex
	conns  map[net.Conn]bool
	logins int
	wg     sync.WaitGroup
}

func (s *sshd) start(t testing.TB) *sshd {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr, s.conns = ln.Addr().String(), map[net.Conn]bool{}
	config := &ssh.ServerConfig{PublicKeyCallback: func(c ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
		if c.User() != "core" || !bytes.Equal(k.Marshal(), s.user.Marshal()) {
			return nil, fmt.Errorf("not %s", c.User())
		}
		return nil, nil
	}}
	for _, k := range s.keys {
		config.AddHostKey(k)
	}
	s.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns[c] = true
			s.mu.Unlock()
			s.wg.Go(func() { s.serve(c, config) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		s.cut()
		s.wg.Wait()
	})
	return s
}

// cut ends all connections.
func (s *sshd) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		_ = c.Close()
	}
}

func (s *sshd) open() (conns, logins int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns), s.logins
}

func (s *sshd) serve(c net.Conn, config *ssh.ServerConfig) {
	defer func() {
		_ = c.Close()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
	_, channels, requests, err := ssh.NewServerConn(c, config)
	if err != nil {
		return
	}
	s.mu.Lock()
	s.logins++
	s.mu.Unlock()
	s.wg.Go(func() { ssh.DiscardRequests(requests) })
	for ch := range channels {
		s.wg.Go(func() { s.channel(ch) })
	}
}

func (s *sshd) channel(ch ssh.NewChannel) {
	switch ch.ChannelType() {
	case "direct-streamlocal@openssh.com":
		var m struct {
			Path     string
			Reserved string
			Port     uint32
		}
		if err := ssh.Unmarshal(ch.ExtraData(), &m); err != nil || !s.forward {
			_ = ch.Reject(ssh.ConnectionFailed, "open failed") // OpenSSH says no more
			return
		}
		out, err := net.Dial("unix", m.Path)
		if err != nil {
			_ = ch.Reject(ssh.ConnectionFailed, "open failed")
			return
		}
		in, requests, err := ch.Accept()
		if err != nil {
			return
		}
		s.wg.Go(func() { ssh.DiscardRequests(requests) })
		s.wg.Go(func() { _, _ = io.Copy(out, in); _ = out.Close() })
		_, _ = io.Copy(in, out)
		_, _ = in.Close(), out.Close()
	case "session":
		in, requests, err := ch.Accept()
		if err != nil {
			return
		}
		s.session(in, requests)
	default:
		_ = ch.Reject(ssh.UnknownChannelType, "unknown channel type")
	}
}

func (s *sshd) session(in ssh.Channel, requests <-chan *ssh.Request) {
	defer in.Close()
	for r := range requests {
		if r.Type != "exec" || s.path == "" {
			_ = r.Reply(false, nil)
			continue
		}
		var m struct{ Command string }
		_ = ssh.Unmarshal(r.Payload, &m)
		_ = r.Reply(true, nil)
		cmd := exec.Command("/bin/sh", "-c", m.Command)
		cmd.Env, cmd.Stdout, cmd.Stderr = []string{"PATH=" + s.path}, in, in.Stderr()
		stdin, err := cmd.StdinPipe()
		if err != nil || cmd.Start() != nil {
			return
		}
		s.wg.Go(func() { _, _ = io.Copy(stdin, in); _ = stdin.Close() })
		s.wg.Go(func() { ssh.DiscardRequests(requests) })
		_ = cmd.Wait()
		_, _ = in.SendRequest("exit-status", false, ssh.Marshal(struct{ Code uint32 }{uint32(max(cmd.ProcessState.ExitCode(), 0))}))
		return
	}
}
