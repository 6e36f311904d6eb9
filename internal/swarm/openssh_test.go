package swarm_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"bootd/internal/swarm"
)

// TestOpenSSH logs in at OpenSSH's server, where it is installed.
func TestOpenSSH(t *testing.T) {
	program, err := exec.LookPath("sshd")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/sshd"); err != nil {
			t.Skip("needs sshd (Debian package openssh-server)")
		}
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	dir, socket := t.TempDir(), unixAPI(t)
	key := filepath.Join(dir, "key")
	own, host := newKey(t, key, ""), newKey(t, filepath.Join(dir, "host"), "")
	if err := os.WriteFile(filepath.Join(dir, "authorized"), ssh.MarshalAuthorizedKey(own.PublicKey()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, user, options string
		know                bool
		want                string
	}{
		{"forwarded", me.Username, "", true, ""},
		{"by the command", me.Username, "AllowStreamLocalForwarding no\nForceCommand " + self(t) + " -test.run '^TestDialStdio$' -- " + socket, true, ""},
		{"not known", me.Username, "", false, "add this line to"},
		{"not allowed", me.Username, "AllowStreamLocalForwarding no\nForceCommand echo Cannot connect to the Docker daemon >&2; exit 1", true, "systemctl start docker"},
		{"foreign user", "nobody-at-all", "", true, "does not let nobody-at-all in"},
	} {
		config := filepath.Join(dir, "config")
		text := fmt.Sprintf("HostKey %s/host\nAuthorizedKeysFile %s/authorized\nStrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\nLogLevel DEBUG\n%s\n", dir, dir, tt.options)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(program, "-t", "-f", config).CombinedOutput(); err != nil {
			t.Skipf("sshd does not run here: %v: %s", err, bytes.TrimSpace(out))
		}
		addr, words := inetd(t, program, config)
		known := filepath.Join(dir, "known")
		line := ""
		if tt.know {
			line = knownhosts.Line([]string{addr}, host.PublicKey()) + "\n"
		}
		if err := os.WriteFile(known, []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
		got := said(t, "ssh://"+tt.user+"@"+addr+socket, nil, &swarm.SSH{Key: key, KnownHosts: known})
		if (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q; the server's words:\n%s", tt.name, got, tt.want, words())
		}
	}
}

// inetd runs the server for each connection, so that nothing of it is left when
// the connections have ended.
func inetd(t *testing.T, program, config string) (addr string, words func() string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "log")
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			f, err := c.(*net.TCPConn).File()
			_ = c.Close()
			if err != nil {
				return
			}
			cmd := exec.Command(program, "-i", "-e", "-f", config, "-E", log)
			cmd.Stdin, cmd.Stdout = f, f
			err = cmd.Start()
			_ = f.Close()
			if err != nil {
				return
			}
			wg.Go(func() { _ = cmd.Wait() })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
	})
	return ln.Addr().String(), func() string {
		b, err := os.ReadFile(log)
		if err != nil {
			return err.Error()
		}
		return string(b)
	}
}
