package lab

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// Options say what a lab is made of.
type Options struct {
	// Config is the configuration directory, with lab.yaml in it. Empty: that
	// of an example is written to the folder config of [Lab.StateDir].
	Config string
	// Example is one of [Examples]; empty: [Demo].
	Example string
	// Image is the directory of the live image that examples boot; see
	// [BuildImage].
	Image string
	// Accel is TCG or KVM; empty means TCG.
	Accel string
	// Engine says to start the swarm manager's Docker engine.
	Engine bool
	// Server is the command line of the boot server, for the configuration in
	// a directory: bootd serve -c DIR. It is started inside the lab, with
	// DOCKER_HOST set to the lab's engine. Nil starts none.
	Server func(l Lab, config string) []string
	// Ready reports whether the boot server answers; nil takes it for ready
	// when [Lab.Socket] can be connected to.
	Ready func(context.Context) bool
	// Progress is told of each step; nil tells nobody.
	Progress func(string)
}

// Up creates the lab: network, engine and boot server. Its machines stay off.
// If something fails, what has been created is removed again.
func (l Lab) Up(ctx context.Context, o Options) (err error) {
	if o.Accel == "" {
		o.Accel = TCG
	}
	if o.Accel != TCG && o.Accel != KVM {
		return fmt.Errorf("cannot run machines by %q: use tcg or kvm", o.Accel)
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	if os.Geteuid() != 0 {
		return errors.New("cannot create a lab: it needs root, for network namespaces and the engine")
	}
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if s, err := l.load(); err == nil {
		return fmt.Errorf("lab %s is up already, since %s; bootd lab down removes it", l.name, s.Since.Format(time.DateTime))
	}
	if err := l.clear(ctx); err != nil { // what a crash has left
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.remove(context.WithoutCancel(ctx)))
		}
	}()
	return l.build(ctx, o)
}

func (l Lab) build(ctx context.Context, o Options) error {
	for _, dir := range []string{l.RunDir(), l.StateDir()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("cannot create lab %s: %w", l.name, err)
		}
	}
	id, err := bootID()
	if err != nil {
		return fmt.Errorf("cannot create lab %s: %w", l.name, err)
	}
	s := &state{BootID: id, Since: time.Now(), Config: o.Config, Accel: o.Accel, Machines: map[string]*powered{}}
	public, err := l.makeKey()
	if err != nil {
		return err
	}
	if s.Config == "" {
		s.Config = filepath.Join(l.StateDir(), "config")
		if err := l.writeExample(cmp.Or(o.Example, Demo), s.Config, o.Image, public); err != nil {
			return err
		}
	}
	if s.Config, err = filepath.Abs(s.Config); err != nil {
		return fmt.Errorf("cannot create lab %s: %w", l.name, err)
	}
	c, err := LoadConfig(s.Config)
	if err != nil {
		return err
	}
	if err := l.save(s); err != nil {
		return err
	}
	o.Progress("network " + c.Network.Masked().String() + " in namespace " + l.Netns())
	if err := l.createNet(c.Network); err != nil {
		return err
	}
	if o.Engine {
		o.Progress("Docker engine of the swarm's manager")
		if err := l.startEngine(ctx, s); err != nil {
			return err
		}
	}
	if o.Server != nil {
		o.Progress("boot server")
		if err := l.startServer(ctx, s, o); err != nil {
			return err
		}
	}
	return nil
}

func (l Lab) startServer(ctx context.Context, s *state, o Options) error {
	ready := o.Ready
	if ready == nil {
		ready = func(ctx context.Context) bool { return connects(ctx, l.Socket()) }
	}
	var err error
	s.Server, err = l.start(ctx, command{
		argv:  o.Server(l, s.Config),
		env:   []string{"DOCKER_HOST=" + l.Engine()},
		log:   l.ServerLog(),
		ready: ready,
		limit: 30 * time.Second,
	})
	return errors.Join(err, l.save(s))
}

// RestartServer kills the lab's boot server as kill -9 does, if it runs, and
// starts it again.
func (l Lab) RestartServer(ctx context.Context, o Options) error {
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	s, err := l.load()
	if err != nil {
		return err
	}
	killed, cancel := context.WithCancel(ctx)
	cancel() // no grace
	if err := stop(killed, 0, s.Server); err != nil {
		return err
	}
	// For a moment the kernel still lets clients connect to a process that is dead.
	if err := os.Remove(l.Socket()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot restart the boot server: %w", err)
	}
	return l.startServer(ctx, s, o)
}

// RestartEngine ends the manager's engine, as its service would be stopped, and
// starts it again with the same data.
func (l Lab) RestartEngine(ctx context.Context) error {
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	s, err := l.load()
	if err != nil {
		return err
	}
	if err := stop(ctx, 30*time.Second, s.Engine); err != nil {
		return err
	}
	return l.startEngine(ctx, s)
}

// Start runs another program inside the lab, beside the boot server or in its
// place. It is ended by [Lab.Down] like all the others. ready reports whether
// it has started. What the program writes is appended to the file log.
func (l Lab) Start(ctx context.Context, log string, ready func(context.Context) bool, argv ...string) error {
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	s, err := l.load()
	if err != nil {
		return err
	}
	p, err := l.start(ctx, command{argv: argv, log: log, ready: ready, limit: 30 * time.Second})
	s.Others = append(s.Others, p)
	return errors.Join(err, l.save(s))
}

// Down switches the machines off, ends everything that runs in the lab and
// removes every trace of it but the live image. It is not an error if there is
// none.
func (l Lab) Down(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("cannot remove a lab: it needs root")
	}
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return l.remove(ctx)
}

// remove clears the lab and gives up its lock, by name; who holds it still
// does.
func (l Lab) remove(ctx context.Context) error {
	if err := l.clear(ctx); err != nil {
		return err
	}
	err := os.Remove(l.RunDir() + ".lock")
	_ = os.Remove(runRoot)   // unless there are other labs
	_ = os.Remove(stateRoot) // the same
	if err != nil {
		return fmt.Errorf("cannot remove lab %s: %w", l.name, err)
	}
	return nil
}

// clear removes all of the lab that it finds, whether or not it is recorded.
func (l Lab) clear(ctx context.Context) error {
	var recorded []process
	var made []string
	if s, err := l.load(); err == nil {
		for _, m := range s.Machines {
			recorded = append(recorded, m.Process)
		}
		// The server goes first: it would take the machines' and the engine's
		// end for failures.
		if err := stop(ctx, 5*time.Second, append(s.Others, s.Server)...); err != nil {
			return err
		}
		recorded = append(recorded, s.Engine)
		made = s.Made
	}
	// The engine's data is thrown away, so it need not end in good order.
	if err := stop(ctx, 3*time.Second, recorded...); err != nil {
		return err
	}
	// What is not recorded: started just before a kill, or started by what
	// was killed. Ending a shim may free a container, so look again.
	for range 5 {
		var rest []process
		for _, pid := range l.inhabitants() {
			rest = append(rest, find(pid))
		}
		if len(rest) == 0 {
			break
		}
		if err := stop(ctx, 2*time.Second, rest...); err != nil {
			return err
		}
	}
	if err := l.removeNet(); err != nil {
		return err
	}
	for _, dir := range []string{l.StateDir(), l.RunDir()} { // the record last
		unmountBelow(dir)
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("cannot remove lab %s: %w", l.name, err)
		}
	}
	for _, dir := range made {
		_ = os.Remove(dir) // unless somebody has put something there
	}
	return nil
}

// makeKey makes the key pair with which the machines are reached, and returns
// the public half as a line of authorized_keys.
func (l Lab) makeKey() (string, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", fmt.Errorf("cannot make an SSH key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(private, "bootd lab")
	if err != nil {
		return "", fmt.Errorf("cannot make an SSH key: %w", err)
	}
	p, err := ssh.NewPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("cannot make an SSH key: %w", err)
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(p))) + " lab"
	if err := os.WriteFile(l.Key(), pem.EncodeToMemory(block), 0o600); err != nil {
		return "", fmt.Errorf("cannot keep the lab's SSH key: %w", err)
	}
	if err := os.WriteFile(l.Key()+".pub", []byte(line+"\n"), 0o644); err != nil {
		return "", fmt.Errorf("cannot keep the lab's SSH key: %w", err)
	}
	return line, nil
}

// connects reports whether somebody listens at a unix socket.
func connects(ctx context.Context, path string) bool {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return false
	}
	c.Close()
	return true
}
