package lab_test

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// observe watches what the servers' processes take of the processors and of the
// memory from now on. The function that it returns ends that, and tells the time of
// the processors and the most memory at once, in bytes: what processes share is
// counted once.
func (r room) observe(b testing.TB) (end func() (cpu time.Duration, memory int)) {
	b.Helper()
	before := ticks(r.processes())
	quit, most := make(chan struct{}), make(chan int)
	go func() {
		m := 0
		for {
			m = max(m, resident(r.processes()))
			select {
			case <-quit:
				most <- m
				return
			case <-time.After(250 * time.Millisecond):
			}
		}
	}()
	return func() (time.Duration, int) {
		after := ticks(r.processes())
		close(quit)
		return time.Duration(after-before) * 10 * time.Millisecond, <-most // USER_HZ is 100 everywhere
	}
}

// processes are the IDs of the servers' processes.
func (r room) processes() []string {
	out, _ := exec.Command("ip", "netns", "pids", r.servers).Output() // none: they have just ended
	return strings.Fields(string(out))
}

// ticks adds up what processes, and their children that have ended, have taken of the
// processors (proc_pid_stat(5), fields 14 to 17).
func ticks(pids []string) (n int) {
	for _, pid := range pids {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%s/stat", pid)) // empty: it has just ended
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		for i := 11; i < 15 && i < len(f); i++ {
			t, _ := strconv.Atoi(f[i])
			n += t
		}
	}
	return n
}

var pss = regexp.MustCompile(`(?m)^Pss:\s+(\d+) kB`)

// resident adds up the memory of processes.
func resident(pids []string) (bytes int) {
	for _, pid := range pids {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%s/smaps_rollup", pid)) // empty: it has just ended
		if m := pss.FindSubmatch(b); m != nil {
			kib, _ := strconv.Atoi(string(m[1]))
			bytes += kib << 10
		}
	}
	return bytes
}
