package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Where labs live on the host. A lab's run directory is gone after a restart
// of the host; its data directory is as large as its engine's and bootd's
// state.
const (
	runRoot   = "/run/bootd-lab"
	stateRoot = "/var/lib/bootd-lab"
)

// A Lab is the lab of a name. The zero Lab is not one; see [New].
type Lab struct{ name string }

// New returns the lab of that name, which need not be up. Several labs can
// exist side by side.
func New(name string) (Lab, error) {
	if !nameForm.MatchString(name) || len(name) > 16 {
		return Lab{}, fmt.Errorf("%q is not a name for a lab: use up to 16 letters in lower case, digits and hyphens", name)
	}
	return Lab{name}, nil
}

// Name is the lab's name.
func (l Lab) Name() string { return l.name }

// Netns is the name of the lab's network namespace, as for `ip netns exec`.
func (l Lab) Netns() string { return "bootd-" + l.name }

// RunDir is the directory of the lab's sockets, logs and consoles.
func (l Lab) RunDir() string { return filepath.Join(runRoot, l.name) }

// StateDir is the directory of the lab's data: the engine's, and bootd's in
// the folder bootd. The folder config is the demo's configuration.
func (l Lab) StateDir() string { return filepath.Join(stateRoot, l.name) }

// Engine is the address of the swarm manager's Docker engine, as in DOCKER_HOST.
func (l Lab) Engine() string { return "unix://" + l.run("docker.sock") }

// Socket is where the lab's bootd is meant to listen for its operator.
func (l Lab) Socket() string { return l.run("bootd.sock") }

// ServerLog is the file with what the lab's bootd wrote.
func (l Lab) ServerLog() string { return l.run("bootd.log") }

// Key is the file with the private SSH key that the lab made for its machines.
func (l Lab) Key() string { return filepath.Join(l.StateDir(), "id_ed25519") }

// Console is the file with all that a machine has written to its serial
// console since it was last powered on.
func (l Lab) Console(machine string) string { return l.run(machine + ".console") }

func (l Lab) run(name string) string { return filepath.Join(l.RunDir(), name) }

// A state is what is recorded of a lab that is up. It is in the run directory,
// written whenever something has been started and before the next thing is.
type state struct {
	BootID   string              `json:"boot_id"` // of the host: PIDs mean nothing after a restart
	Since    time.Time           `json:"since"`
	Config   string              `json:"config"` // configuration directory
	Accel    string              `json:"accel"`
	Engine   process             `json:"engine"`
	Server   process             `json:"server"`
	Others   []process           `json:"others,omitempty"`
	Machines map[string]*powered `json:"machines"`
	// Made lists directories outside the lab's own that were created for it.
	Made []string `json:"made,omitempty"`
}

// powered is a machine that has been switched on.
type powered struct {
	Process process   `json:"process"`
	On      time.Time `json:"on"`
}

// errDown is the cause when a lab is not up.
var errDown = errors.New("it is not up; bootd lab up starts it")

// load reads the lab's state.
func (l Lab) load() (*state, error) {
	b, err := os.ReadFile(l.run("state.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot use lab %s: %w", l.name, errDown)
	} else if err != nil {
		return nil, fmt.Errorf("cannot read the state of lab %s: %w", l.name, err)
	}
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("cannot read the state of lab %s: %s: %w; bootd lab down clears it", l.name, l.run("state.json"), err)
	}
	if id, err := bootID(); err != nil || s.BootID != id {
		return nil, fmt.Errorf("cannot use lab %s: the host has restarted since: %w", l.name, errDown)
	}
	return &s, nil
}

// save replaces the lab's state. Of a crash in between, either is left.
func (l Lab) save(s *state) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err == nil {
		err = os.WriteFile(l.run("state.json.new"), b, 0o600)
	}
	if err == nil {
		err = os.Rename(l.run("state.json.new"), l.run("state.json"))
	}
	if err != nil {
		return fmt.Errorf("cannot record the state of lab %s: %w", l.name, err)
	}
	return nil
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}

// lock makes this the only process that changes the lab. The lock ends with
// unlock, or with the process.
func (l Lab) lock() (unlock func(), err error) {
	if err := os.MkdirAll(runRoot, 0o755); err != nil {
		return nil, fmt.Errorf("cannot lock lab %s: %w", l.name, err)
	}
	return lockFile(l.RunDir() + ".lock")
}

func lockFile(path string) (unlock func(), err error) {
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, fmt.Errorf("cannot lock: %w", err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			f.Close()
			return nil, fmt.Errorf("cannot lock %s: %w", path, err)
		}
		// Who held the lock may have removed the file.
		held, err1 := f.Stat()
		there, err2 := os.Stat(path)
		if err1 == nil && err2 == nil && os.SameFile(held, there) {
			return func() { f.Close() }, nil
		}
		f.Close()
	}
}
