// Package dockertest runs real Docker engines for tests: several side by side
// on one machine, each with its own network, host name and file system, joined
// by a private switch that leads nowhere else.
//
// An engine's namespaces belong to a thread of the test's process, its data to
// a tmpfs within them, and its process dies with that thread. So nothing
// remains but a log, even when the test is killed.
//
// It needs root, dockerd and ip; without them tests skip. Methods must be
// called from the test's goroutine.
package dockertest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/client"
	"golang.org/x/sys/unix"
)

// startLimit is how long an engine may take to answer.
const startLimit = 60 * time.Second

// A Lab is a private network with engines on it.
type Lab struct {
	t       testing.TB
	dir     string
	hub     *room // of the switch
	engines int
}

// An Engine is a Docker engine.
type Engine struct {
	Name string // host name
	Addr string // IPv4 address on the lab's network
	Host string // where its API is: unix:///...

	t       testing.TB
	dir     string
	options []string
	room    *room
	cmd     *exec.Cmd // nil: not running
	ran     bool      // it has answered once
	done    chan error
}

// New returns a lab without engines. It skips the test if there can be none.
func New(t testing.TB) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make network namespaces")
	}
	for _, program := range []string{"dockerd", "ip"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs %s (Debian packages docker.io and iproute2): %v", program, err)
		}
	}
	// Not t.TempDir: the path of a socket has at most 107 characters.
	dir, err := os.MkdirTemp("", "bootd-swarm-")
	if err != nil {
		t.Fatal(err)
	}
	l := &Lab{t: t, dir: dir}
	made := os.Mkdir(etc, 0o755) == nil
	t.Cleanup(func() {
		if made {
			_ = os.Remove(etc) // what somebody else has put there meanwhile stays
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("cannot clean up: %v", err)
		}
	})
	l.hub, err = newRoom(t, unix.CLONE_NEWNET, func() error {
		return run("ip", "link", "add", "br0", "up", "type", "bridge", "mcast_snooping", "0")
	})
	if err != nil {
		t.Skipf("needs namespaces and bridges: %v", err)
	}
	return l
}

// Engine starts an engine with a host name, and with further options of dockerd,
// and waits until it answers.
func (l *Lab) Engine(name string, options ...string) *Engine {
	l.t.Helper()
	l.engines++
	e := &Engine{
		Name: name, Addr: "10.99.0." + strconv.Itoa(l.engines), t: l.t, options: options,
		dir: filepath.Join(l.dir, strconv.Itoa(l.engines)),
	}
	e.Host = "unix://" + filepath.Join(e.dir, "docker.sock")
	if err := os.MkdirAll(e.data(), 0o700); err != nil {
		l.t.Fatal(err)
	}
	port := fmt.Sprintf("p%d-%04x", l.engines, rand.N(1<<16))
	var err error
	e.room, err = newRoom(l.t, unix.CLONE_NEWNET|unix.CLONE_NEWUTS|unix.CLONE_NEWNS, func() error {
		if err := unix.Sethostname([]byte(name)); err != nil {
			return fmt.Errorf("cannot set the host name: %w", err)
		}
		if err := private(e.data()); err != nil {
			return err
		}
		hub := strconv.Itoa(l.hub.thread)
		for _, args := range [][]string{
			{"link", "set", "lo", "up"},
			{"link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", hub},
			{"addr", "add", e.Addr + "/24", "dev", "eth0"},
			{"link", "set", "eth0", "up"},
		} {
			if err := run("ip", args...); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		l.t.Fatalf("cannot prepare engine %s: %v", name, err)
	}
	if err := l.hub.do(func() error { return run("ip", "link", "set", port, "master", "br0", "up") }); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		e.Kill()
		if l.t.Failed() {
			l.t.Logf("last words of %s:\n%s", e.Name, e.lastWords())
		}
	})
	e.Start()
	return e
}

// etc is where dockerd keeps its key whatever it is told.
const etc = "/etc/docker"

// private gives the calling thread its own /run, so that its engine finds no
// other engine's containerd, and memory for all that the engine keeps.
func private(data string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("cannot make mounts private: %w", err)
	}
	for _, at := range []string{data, etc, "/run"} {
		if err := unix.Mount("tmpfs", at, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("cannot mount %s: %w", at, err)
		}
	}
	return nil
}

// Start starts the engine again, with the data that it had, and waits until it
// answers.
func (e *Engine) Start() {
	e.t.Helper()
	config := filepath.Join(e.dir, "daemon.json")
	if err := os.WriteFile(config, []byte("{}\n"), 0o600); err != nil {
		e.t.Fatal(err)
	}
	out, err := os.OpenFile(e.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		e.t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command("dockerd", append([]string{"--config-file", config, "--data-root", filepath.Join(e.data(), "docker"),
		"--exec-root", filepath.Join(e.data(), "exec"), "--pidfile", filepath.Join(e.data(), "pid"), "--host", e.Host}, e.options...)...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if err := e.room.do(func() error { return run("ip", "link", "set", "eth0", "up") }); err != nil {
		e.t.Fatal(err)
	}
	if err := e.room.do(cmd.Start); err != nil {
		e.t.Fatalf("cannot start engine %s: %v", e.Name, err)
	}
	e.cmd, e.done = cmd, make(chan error, 1)
	go func() { e.done <- cmd.Wait() }()

	ctx, cancel := context.WithTimeout(e.t.Context(), startLimit)
	defer cancel()
	cli := e.Client()
	for {
		if _, err := cli.Ping(ctx); err == nil {
			e.ran = true
			return
		}
		select {
		case err := <-e.done:
			e.cmd = nil
			if e.ran {
				e.t.Fatalf("engine %s does not start again: %v:\n%s", e.Name, err, e.lastWords())
			}
			e.t.Skipf("dockerd does not run here: %v:\n%s", err, e.lastWords())
		case <-ctx.Done():
			e.t.Fatalf("engine %s does not answer:\n%s", e.Name, e.lastWords())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Stop ends the engine as a shutdown does, and waits until it has.
func (e *Engine) Stop() { e.end(syscall.SIGTERM) }

// Cut ends the engine as a power cut does: those that it talks to are not told
// that their connections have ended.
func (e *Engine) Cut() {
	e.t.Helper()
	if err := e.room.do(func() error { return run("ip", "link", "set", "eth0", "down") }); err != nil {
		e.t.Fatal(err)
	}
	e.Kill()
}

// Kill ends the engine at once. Its containerd dies with it.
func (e *Engine) Kill() { e.end(syscall.SIGKILL) }

func (e *Engine) end(s syscall.Signal) {
	if e.cmd == nil {
		return
	}
	_ = e.cmd.Process.Signal(s) // an error: it has ended already
	select {
	case <-e.done:
	case <-time.After(30 * time.Second):
		_ = e.cmd.Process.Kill()
		<-e.done
	}
	e.cmd = nil
}

// Wipe forgets the data of an engine that does not run, as a diskless machine
// does at every boot.
func (e *Engine) Wipe() {
	e.t.Helper()
	err := e.room.do(func() error {
		for _, at := range []string{e.data(), etc} {
			if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
				return err
			}
			if err := unix.Mount("tmpfs", at, "tmpfs", 0, "mode=755"); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		e.t.Fatalf("cannot wipe engine %s: %v", e.Name, err)
	}
}

// Client returns a client of the engine, closed when the test ends.
func (e *Engine) Client() *client.Client {
	e.t.Helper()
	c, err := client.NewClientWithOpts(client.WithHost(e.Host), client.WithAPIVersionNegotiation())
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { c.Close() })
	return c
}

// Expose returns an address of the loopback interface of this machine that leads
// to a TCP port of the engine, until the test ends.
func (e *Engine) Expose(port int) string {
	e.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		e.t.Fatal(err)
	}
	inside := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	var wg sync.WaitGroup
	accepted := make(chan struct{})
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	go func() {
		defer close(accepted)
		for {
			out, err := ln.Accept()
			if err != nil {
				return
			}
			var in net.Conn
			// An address needs no look-up, so that the socket is made on the
			// room's thread, where it belongs.
			err = e.room.do(func() (err error) { in, err = net.Dial("tcp", inside); return err })
			if err != nil {
				_ = out.Close()
				continue
			}
			mu.Lock()
			open[in], open[out] = true, true
			mu.Unlock()
			for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
				wg.Go(func() {
					_, _ = io.Copy(pair[0], pair[1])
					_ = pair[0].Close()
				})
			}
		}
	}()
	e.t.Cleanup(func() {
		_ = ln.Close()
		<-accepted
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return ln.Addr().String()
}

func (e *Engine) log() string { return filepath.Join(e.dir, "log") }

func (e *Engine) data() string { return filepath.Join(e.dir, "data") }

func (e *Engine) lastWords() string {
	b, err := os.ReadFile(e.log())
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-15):], []byte("\n")))
}

func run(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %v: %w: %s", name, args, err, bytes.TrimSpace(out))
	}
	return nil
}

// A room is a set of namespaces that lasts as long as a thread.
type room struct {
	thread int
	work   chan func()
}

// newRoom makes a thread with namespaces of its own and runs setup on it. The
// thread ends with the test.
func newRoom(t testing.TB, flags int, setup func() error) (*room, error) {
	r := &room{work: make(chan func())}
	ready, ended := make(chan error), make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		r.thread = unix.Gettid()
		if err := unix.Unshare(flags); err != nil {
			ready <- fmt.Errorf("cannot make namespaces: %w", err)
		} else {
			ready <- setup()
		}
		for f := range r.work {
			f()
		}
	}()
	t.Cleanup(func() {
		close(r.work)
		<-ended
	})
	return r, <-ready
}

// do runs f in the room. Processes that f starts stay in it.
func (r *room) do(f func() error) error {
	done := make(chan error)
	r.work <- func() { done <- f() }
	return <-done
}
