package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// engineHost is the manager's name: a swarm node is called like its host.
const engineHost = "manager"

// startEngine runs a Docker engine of the lab's own beside the host's, which
// may or may not run and is not touched: with its own network, host name and
// directories, and its own containerd.
func (l Lab) startEngine(ctx context.Context, s *state) error {
	// The engine writes a key to /etc/docker whatever it is told.
	const etc = "/etc/docker"
	err := os.Mkdir(etc, 0o755)
	switch {
	case err == nil:
		s.Made = append(s.Made, etc)
		if err := l.save(s); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrExist):
		return fmt.Errorf("cannot prepare the engine: %w", err)
	}
	if err := l.allowBridged(); err != nil {
		return err
	}
	settings := filepath.Join(l.StateDir(), "daemon.json")
	if err := os.WriteFile(settings, []byte("{}\n"), 0o644); err != nil {
		return fmt.Errorf("cannot prepare the engine: %w", err)
	}
	s.Engine, err = l.start(ctx, command{
		argv: []string{
			"dockerd", "--config-file", settings,
			"--data-root", filepath.Join(l.StateDir(), "docker"),
			"--exec-root", l.run("docker"), "--pidfile", l.run("dockerd.pid"),
			"--host", l.Engine(),
		},
		log:   l.run("dockerd.log"),
		ready: l.engineAnswers,
		limit: time.Minute,
		enter: func() error { return l.enterEngine(etc) },
	})
	return errors.Join(err, l.save(s))
}

// allowBridged lets packets from machine to machine pass. They are bridged and
// none of the engine's business, but it drops whatever it does not know in its
// namespace, and has bridged packets shown to iptables.
func (l Lab) allowBridged() error {
	return l.In(func() error {
		out, err := exec.Command("iptables", "-w", "-A", "FORWARD", "-i", Bridge, "-o", Bridge, "-j", "ACCEPT").CombinedOutput()
		if err != nil {
			return fmt.Errorf("cannot let the machines talk to each other: iptables: %w: %s", err, bytes.TrimSpace(out))
		}
		return nil
	})
}

// enterEngine gives the calling thread a host name of its own, and a view of
// the file system in which the host's engine and containerd cannot be found:
// dockerd would use a containerd that it finds in /run.
func (l Lab) enterEngine(etc string) error {
	if err := unix.Unshare(unix.CLONE_NEWUTS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("cannot make namespaces: %w", err)
	}
	if err := unix.Sethostname([]byte(engineHost)); err != nil {
		return fmt.Errorf("cannot set the host name: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("cannot make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", etc, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("cannot mount %s: %w", etc, err)
	}
	// A new /run with only what the engine may see of the old one.
	run := l.run("run")
	if err := os.MkdirAll(run, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", run, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("cannot mount %s: %w", run, err)
	}
	for _, dir := range []string{runRoot, "/run/systemd", "/run/dbus", "/run/udev"} {
		if st, err := os.Stat(dir); err != nil || !st.IsDir() {
			continue
		}
		to := filepath.Join(run, filepath.Base(dir))
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(dir, to, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("cannot mount %s: %w", dir, err)
		}
	}
	if err := unix.Mount(run, "/run", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("cannot mount /run: %w", err)
	}
	return nil
}

// engineAnswers asks the engine whether it is there.
func (l Lab) engineAnswers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	t := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", l.run("docker.sock"))
		},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/_ping", nil)
	if err != nil {
		return false
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err == nil && resp.StatusCode == http.StatusOK
}
