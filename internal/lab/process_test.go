package lab

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestGone: a process that is gone holds no lock any more, however many threads it
// had and however much memory there was to be given back.
func TestGone(t *testing.T) {
	if path := os.Getenv("BOOTD_LAB_HOLDS"); path != "" {
		hold(t, path)
	}
	path := filepath.Join(t.TempDir(), "lock")
	for range 5 {
		c := exec.Command(os.Args[0], "-test.run=^TestGone$")
		c.Env = append(os.Environ(), "BOOTD_LAB_HOLDS="+path)
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		p := find(c.Process.Pid)
		t.Cleanup(func() { p.signal(syscall.SIGKILL) })
		if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "held\n" {
			t.Fatalf("the other process says %q: %v", line, err)
		}
		p.signal(syscall.SIGKILL)
		for end := time.Now().Add(time.Minute); p.alive(); {
			if time.Now().After(end) {
				t.Fatal("it does not end")
			}
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			t.Errorf("it is gone and has its lock: %v", err)
		}
		f.Close()
	}
}

// hold is the other process.
func hold(t *testing.T, path string) {
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		go func() {
			runtime.LockOSThread()
			_ = unix.Pause()
		}()
	}
	for b, i := make([]byte, 32<<20), 0; i < len(b); i += os.Getpagesize() {
		b[i] = 1
	}
	fmt.Println("held")
	time.Sleep(time.Minute)
	os.Exit(0)
}
