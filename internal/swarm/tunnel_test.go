package swarm_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"

	"bootd/internal/swarm"
	"bootd/internal/swarm/dockertest"
)

// newKey makes a key pair and writes the private half into a file.
func newKey(t testing.TB, file, passphrase string) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if passphrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func ecdsaKey(t testing.TB) ssh.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// know writes a file of known hosts.
func know(t testing.TB, file, addr string, keys ...ssh.Signer) string {
	t.Helper()
	var b strings.Builder
	for _, k := range keys {
		b.WriteString(knownhosts.Line([]string{addr}, k.PublicKey()) + "\n")
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// unixAPI serves the API at a socket, whose path is short enough to be one.
func unixAPI(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bootd-ssh-")
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "docker.sock")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(inactive)}
	go func() { _ = s.Serve(ln) }()
	t.Cleanup(func() {
		_ = s.Close()
		_ = os.RemoveAll(dir)
	})
	return socket
}

// fakeDocker makes a directory with a docker command that does what is given.
func fakeDocker(t testing.TB, script string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "docker"), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir + ":/usr/bin:/bin"
}

// TestSSH: an engine behind an SSH server is asked when both ends trust each
// other; otherwise what is wrong is said, and what helps.
func TestSSH(t *testing.T) {
	dir := t.TempDir()
	key, locked, other := filepath.Join(dir, "key"), filepath.Join(dir, "locked"), filepath.Join(dir, "other")
	user, stranger := newKey(t, key, ""), newKey(t, other, "")
	newKey(t, locked, "secret")
	ed, ec, wrong := newKey(t, filepath.Join(dir, "host"), ""), ecdsaKey(t), ecdsaKey(t)
	socket := unixAPI(t)

	start := func(forward bool, path string) *sshd {
		return (&sshd{forward: forward, path: path, keys: []ssh.Signer{ed, ec}, user: user.PublicKey()}).start(t)
	}
	forwards := start(true, "")
	neither := start(false, "")
	noDocker := start(false, "/nowhere")
	denied := start(false, fakeDocker(t, "echo 'Got permission denied while trying to connect to the Docker daemon socket' >&2; exit 1"))
	stopped := start(false, fakeDocker(t, "echo 'Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?' >&2; exit 1"))
	odd := start(false, fakeDocker(t, "printf 'strange \\033[31m words' >&2; exit 3"))
	mute := start(false, fakeDocker(t, "exit 0"))
	commands := start(false, fakeDocker(t, `[ "$*" = "--host unix://`+socket+` system dial-stdio" ] || exit 9
exec `+self(t)+` -test.run '^TestDialStdio$' -- `+socket))
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := silent.Addr().String()
	_ = silent.Close()

	known := map[string]string{}
	for i, s := range []*sshd{forwards, neither, noDocker, denied, stopped, odd, mute, commands} {
		known[s.addr] = know(t, filepath.Join(dir, fmt.Sprint("known", i)), s.addr, ed)
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(stranger.PublicKey())))
	for _, tt := range []struct {
		name, addr, user string
		ssh              swarm.SSH
		want             string // part of what is said; empty: it answers
	}{
		{"forwarded", forwards.addr, "core", swarm.SSH{Key: key}, ""},
		{"by the command", commands.addr, "core", swarm.SSH{Key: key}, ""},
		{"another of its keys is known", forwards.addr, "core", swarm.SSH{Key: key, KnownHosts: know(t, filepath.Join(dir, "ec"), forwards.addr, ec)}, ""},
		{"known by hash", forwards.addr, "core", swarm.SSH{Key: key, KnownHosts: hashed(t, filepath.Join(dir, "hashed"), forwards.addr, ed)}, ""},
		{"not known", forwards.addr, "core", swarm.SSH{Key: key, KnownHosts: filepath.Join(dir, "none")}, "add this line to " + filepath.Join(dir, "none") + ": " + knownhosts.Line([]string{forwards.addr}, ecOrEd(ed, ec))},
		{"known with another key", forwards.addr, "core", swarm.SSH{Key: key, KnownHosts: know(t, filepath.Join(dir, "wrong"), forwards.addr, wrong)}, "has another key than " + filepath.Join(dir, "wrong") + " says in line 1"},
		{"file that is none", forwards.addr, "core", swarm.SSH{Key: key, KnownHosts: key}, "cannot read the keys of SSH servers"},
		{"foreign key", forwards.addr, "core", swarm.SSH{Key: other}, "authorized_keys there: " + line},
		{"foreign user", forwards.addr, "root", swarm.SSH{Key: key}, "does not let root in with the key " + key},
		{"locked key", forwards.addr, "core", swarm.SSH{Key: locked}, "needs a passphrase"},
		{"no key in the file", forwards.addr, "core", swarm.SSH{Key: known[forwards.addr]}, "is not a private SSH key"},
		{"no such file", forwards.addr, "core", swarm.SSH{Key: dir + "/none"}, "cannot read " + dir + "/none: no such file"},
		{"no key at all", forwards.addr, "core", swarm.SSH{}, "set ssh.key"},
		{"no agent", forwards.addr, "core", swarm.SSH{Agent: dir + "/none"}, "no SSH agent at"},
		{"nothing allowed", neither.addr, "core", swarm.SSH{Key: key}, "neither forwards " + socket},
		{"no docker", noDocker.addr, "core", swarm.SSH{Key: key}, "AllowStreamLocalForwarding yes"},
		{"not in the group", denied.addr, "core", swarm.SSH{Key: key}, "usermod -aG docker core"},
		{"not running", stopped.addr, "core", swarm.SSH{Key: key}, "systemctl start docker"},
		{"odd", odd.addr, "core", swarm.SSH{Key: key}, "strange ?[31m words"},
		{"says nothing", mute.addr, "core", swarm.SSH{Key: key}, "it said nothing"},
		{"nobody there", nobody, "core", swarm.SSH{Key: key}, "nobody listens at"},
	} {
		if tt.ssh.KnownHosts == "" {
			tt.ssh.KnownHosts = known[tt.addr]
		}
		got := said(t, "ssh://"+tt.user+"@"+tt.addr+socket, nil, &tt.ssh)
		if (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) || strings.ContainsRune(got, '\x1b') {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// ecOrEd is the key that a server with both shows to who knows neither.
func ecOrEd(ed, ec ssh.Signer) ssh.PublicKey {
	for _, a := range ssh.SupportedAlgorithms().HostKeys {
		switch a {
		case ed.PublicKey().Type():
			return ed.PublicKey()
		case ec.PublicKey().Type():
			return ec.PublicKey()
		}
	}
	return nil
}

func hashed(t testing.TB, file, addr string, k ssh.Signer) string {
	t.Helper()
	line := knownhosts.Line([]string{knownhosts.HashHostname(knownhosts.Normalize(addr))}, k.PublicKey())
	if err := os.WriteFile(file, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func self(t testing.TB) string {
	t.Helper()
	name, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// TestDialStdio is what docker system dial-stdio does when TestSSH runs this
// program again; otherwise it is nothing.
func TestDialStdio(t *testing.T) {
	args := os.Args
	if len(args) < 2 || args[len(args)-2] != "--" {
		t.Skip("only for TestSSH")
	}
	c, err := net.Dial("unix", args[len(args)-1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go func() { _, _ = io.Copy(c, os.Stdin); os.Exit(0) }()
	_, _ = io.Copy(os.Stdout, c)
	os.Exit(0)
}

// TestSSHAgent: without a key of its own, those of an agent are used.
func TestSSHAgent(t *testing.T) {
	dir, socket := t.TempDir(), unixAPI(t)
	user, host := newKey(t, filepath.Join(dir, "key"), ""), ecdsaKey(t)
	s := (&sshd{forward: true, keys: []ssh.Signer{host}, user: user.PublicKey()}).start(t)
	keys := agent.NewKeyring()
	at := filepath.Join(filepath.Dir(socket), "agent")
	ln, err := net.Listen("unix", at)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { _ = agent.ServeAgent(keys, c); _ = c.Close() }()
		}
	}()
	way := swarm.SSH{Agent: at, KnownHosts: know(t, filepath.Join(dir, "known"), s.addr, host)}
	if got := said(t, "ssh://core@"+s.addr+socket, nil, &way); !strings.Contains(got, "has no keys") {
		t.Errorf("an empty agent: %q", got)
	}
	_, foreign, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := keys.Add(agent.AddedKey{PrivateKey: foreign}); err != nil {
		t.Fatal(err)
	}
	if got := said(t, "ssh://core@"+s.addr+socket, nil, &way); !strings.Contains(got, "with any of the agent's keys") {
		t.Errorf("a foreign key: %q", got)
	}
	b, err := os.ReadFile(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	private, err := ssh.ParseRawPrivateKey(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := keys.Add(agent.AddedKey{PrivateKey: private}); err != nil {
		t.Fatal(err)
	}
	if got := said(t, "ssh://core@"+s.addr+socket, nil, &way); got != "" {
		t.Error(got)
	}
}

// TestSSHLink: what is asked at once shares one login; after the connection was
// cut the next question makes another; with the last of them it ends.
func TestSSHLink(t *testing.T) {
	dir, socket := t.TempDir(), unixAPI(t)
	key := filepath.Join(dir, "key")
	user, host := newKey(t, key, ""), ecdsaKey(t)
	s := (&sshd{forward: true, keys: []ssh.Signer{host}, user: user.PublicKey()}).start(t)
	e, err := swarm.RemoteEngine("ssh://core@"+s.addr+socket, nil, &swarm.SSH{Key: key, KnownHosts: know(t, filepath.Join(dir, "known"), s.addr, host)})
	if err != nil {
		t.Fatal(err)
	}
	ask := func() {
		t.Helper()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if _, err := e.Info(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	ask()
	if conns, logins := s.open(); conns != 1 || logins != 1 {
		t.Errorf("%d connections after %d logins", conns, logins)
	}
	s.cut()
	until(t, "the link is cut", func() bool { conns, _ := s.open(); return conns == 0 })
	until(t, "it answers again", func() bool { _, err := e.Info(t.Context()); return err == nil })
	ask()
	if conns, _ := s.open(); conns != 1 {
		t.Errorf("%d connections after the cut", conns)
	}
	if err := e.(io.Closer).Close(); err != nil {
		t.Error(err)
	}
	until(t, "nothing is left", func() bool { conns, _ := s.open(); return conns == 0 })
}

// until waits for what other goroutines do.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("never: " + what)
		}
	}
}

// TestRealEngineSSH: a swarm is made and kept on a real engine, through an SSH
// server that forwards sockets, and through one that runs Docker's command.
func TestRealEngineSSH(t *testing.T) {
	lab := dockertest.New(t)
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	user, host := newKey(t, key, ""), ecdsaKey(t)
	for i, s := range []*sshd{{forward: true}, {path: os.Getenv("PATH")}} {
		if !s.forward && exec.Command("docker", "system", "dial-stdio", "--help").Run() != nil {
			t.Log("no docker command here")
			continue
		}
		s.keys, s.user = []ssh.Signer{host}, user.PublicKey()
		s.start(t)
		real := lab.Engine(fmt.Sprint("m", i))
		e, err := swarm.RemoteEngine("ssh://core@"+s.addr+strings.TrimPrefix(real.Host, "unix://"), nil,
			&swarm.SSH{Key: key, KnownHosts: know(t, filepath.Join(dir, fmt.Sprint("known", i)), s.addr, host)})
		if err != nil {
			t.Fatal(err)
		}
		makeAndWatch(t, e, real)
	}
}
