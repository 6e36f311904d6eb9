package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A process is one that was started earlier, perhaps by another program. Its
// start time tells it from a later one that got the same PID.
type process struct {
	PID   int    `json:"pid,omitempty"`
	Start uint64 `json:"start,omitempty"` // clock ticks after the host started
}

// find returns the process with this PID, or the zero process. Its first thread is
// a zombie when others are still about to end, and those hold its locks, ports and
// sockets as long.
func find(pid int) process {
	start, state, err := readStat(pid)
	if err != nil {
		return process{}
	}
	if state == 'Z' {
		if threads, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task"); err != nil || len(threads) < 2 {
			return process{}
		}
	}
	return process{pid, start}
}

// alive reports whether p runs. A zombie does not; if it is a child of this
// process it is buried.
func (p process) alive() bool {
	if p.PID <= 0 {
		return false
	}
	_, _ = syscall.Wait4(p.PID, nil, syscall.WNOHANG, nil) // an error: not our child
	return find(p.PID) == p
}

// readStat reads when a process started and its state letter.
func readStat(pid int) (start uint64, state byte, err error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, err
	}
	return parseStat(string(b))
}

// parseStat reads fields 3 and 22 of /proc/PID/stat (proc(5)). The second
// field is the program's name, which may hold anything.
func parseStat(s string) (start uint64, state byte, err error) {
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < 20 || len(f[0]) != 1 {
		return 0, 0, fmt.Errorf("cannot read process status %q", s)
	}
	start, err = strconv.ParseUint(f[19], 10, 64)
	return start, f[0][0], err
}

// signal sends s to p if it is alive.
func (p process) signal(s syscall.Signal) {
	if !p.alive() {
		return
	}
	// The PID may not pass to another process between the look and the kill.
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if p.alive() {
		_ = unix.PidfdSendSignal(fd, s, nil, 0) // it has just ended
	}
}

// poll is how often files and processes are looked at that cannot be waited
// for.
const poll = 50 * time.Millisecond

// until calls ok now and then, until it returns true, ctx ends or the time is
// over. It reports whether ok did.
func until(ctx context.Context, limit time.Duration, ok func() bool) bool {
	end := time.NewTimer(limit)
	defer end.Stop()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			return false
		case <-end.C:
			return ok()
		case <-tick.C:
		}
	}
	return true
}

// stop ends processes: by SIGTERM, and by SIGKILL those that are still there
// after the grace period or when ctx ends. It returns when none is alive.
func stop(ctx context.Context, grace time.Duration, procs ...process) error {
	for _, p := range procs {
		p.signal(syscall.SIGTERM)
	}
	gone := func() bool {
		for _, p := range procs {
			if p.alive() {
				return false
			}
		}
		return true
	}
	if until(ctx, grace, gone) {
		return nil
	}
	for _, p := range procs {
		p.signal(syscall.SIGKILL)
	}
	if !until(context.WithoutCancel(ctx), 10*time.Second, gone) {
		return errors.New("cannot end all of the lab's processes")
	}
	return nil
}

// A command is a program to be started in the lab's network namespace.
type command struct {
	argv []string
	env  []string // added to this process's own
	log  string   // file for its output, appended to
	// ready reports whether it has started; limit is how long that may take.
	ready func(context.Context) bool
	limit time.Duration
	// enter is called on the thread that starts the program, to put it into
	// further namespaces.
	enter func() error
}

// start runs c detached from this process and waits until it is ready. If it
// does not become ready, it is killed.
func (l Lab) start(ctx context.Context, c command) (process, error) {
	name := filepath.Base(c.argv[0])
	logFile, err := os.OpenFile(c.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return process{}, fmt.Errorf("cannot open the log of %s: %w", name, err)
	}
	defer logFile.Close()
	cmd := exec.Command(c.argv[0], c.argv[1:]...) // not by ctx: it outlives this process
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = l.In(func() error {
		if c.enter != nil {
			if err := c.enter(); err != nil {
				return err
			}
		}
		return cmd.Start()
	})
	if err != nil {
		return process{}, fmt.Errorf("cannot start %s: %w", name, err)
	}
	p := find(cmd.Process.Pid)
	if err := cmd.Process.Release(); err != nil {
		return p, fmt.Errorf("cannot let go of %s: %w", name, err)
	}
	up := until(ctx, c.limit, func() bool { return !p.alive() || c.ready(ctx) })
	if up && p.alive() {
		return p, nil
	}
	if err := stop(ctx, time.Second, p); err != nil {
		return p, err
	}
	if ctx.Err() != nil {
		return process{}, ctx.Err()
	}
	return process{}, fmt.Errorf("%s did not start: %s (log: %s)", name, lastLine(c.log), c.log)
}

// lastLine returns the last line with text in a file, without terminal
// control sequences.
func lastLine(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	const tail = 8 << 10
	if st, err := f.Stat(); err == nil && st.Size() > tail {
		if _, err := f.Seek(-tail, 2); err != nil {
			return ""
		}
	}
	b := make([]byte, tail)
	n, _ := f.Read(b)
	lines := strings.FieldsFunc(plain(string(b[:n])), func(r rune) bool { return r == '\n' || r == '\r' })
	for i := len(lines) - 1; i >= 0; i-- {
		if s := strings.TrimSpace(lines[i]); s != "" {
			return s
		}
	}
	return ""
}
