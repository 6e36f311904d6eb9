package esxtest

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/vmware/govmomi/vim25/types"
)

// QEMU is a [Backend] that runs each VM as a QEMU machine, with its hardware
// addresses, disks and CD image, and with its Ignition config where QEMU's
// machines look for one.
type QEMU struct {
	// Dir is for serial consoles, NAME.console, and for Ignition configs.
	Dir string
	// Program is the emulator; default qemu-system-x86_64 of the path.
	Program string
	// Network are the arguments for one network card: its netdev must be called
	// id. Default: QEMU's own network, which leads nowhere.
	Network func(m Machine, nic int, id string) []string
	// Memory of a machine in MB, at most; 0: what its VM has.
	Memory int32
	// In calls start where machines are to run, such as in a network namespace;
	// nil: here.
	In func(start func() error) error
	// Arguments that every machine gets in addition.
	Arguments []string

	mu   sync.Mutex
	runs map[types.ManagedObjectReference]*run
}

// A run is a machine from its start to its end.
type run struct {
	command *exec.Cmd
	ended   chan struct{} // closed when the process is gone
}

// PowerOn starts a machine. When it ends by itself, the VM is off.
func (q *QEMU) PowerOn(h *Host, m Machine) error {
	args, err := q.arguments(h, m)
	if err != nil {
		return err
	}
	console, err := os.Create(q.Console(m.Name))
	if err != nil {
		return err
	}
	defer console.Close() // the process has its own
	program := q.Program
	if program == "" {
		program = "qemu-system-x86_64"
	}
	c := exec.Command(program, args...)
	c.Stdout, c.Stderr = console, console
	start := c.Start
	if q.In != nil {
		start = func() error { return q.In(c.Start) }
	}
	if err := start(); err != nil {
		return fmt.Errorf("cannot start VM %s: %w", m.Name, err)
	}
	r := &run{c, make(chan struct{})}
	q.mu.Lock()
	if q.runs == nil {
		q.runs = map[types.ManagedObjectReference]*run{}
	}
	q.runs[m.Ref] = r
	q.mu.Unlock()
	go func() {
		_ = c.Wait() // its status does not matter: it is off
		close(r.ended)
		q.mu.Lock()
		byItself := q.runs[m.Ref] == r
		if byItself {
			delete(q.runs, m.Ref)
		}
		q.mu.Unlock()
		if byItself {
			h.Died(m.Ref)
		}
	}()
	return nil
}

// Console is the file with what a machine has written to its serial port.
func (q *QEMU) Console(name string) string {
	return filepath.Join(q.Dir, strings.ReplaceAll(name, "/", "_")+".console")
}

func (q *QEMU) arguments(h *Host, m Machine) ([]string, error) {
	memory := m.MemoryMB
	if q.Memory > 0 {
		memory = min(memory, q.Memory)
	}
	args := []string{"-name", m.Name, "-uuid", m.UUID, "-m", strconv.Itoa(int(memory)), "-smp", strconv.Itoa(int(m.CPUs)),
		"-nographic", "-serial", "stdio", "-monitor", "none", "-no-reboot",
		// What guests of ESXi find, and tell who boots them.
		"-smbios", "type=1,manufacturer=VMware,, Inc.,product=VMware7,,1,serial=VMware-" + m.UUID}
	for i, mac := range m.MACs {
		id := "n" + strconv.Itoa(i)
		if q.Network != nil {
			args = append(args, q.Network(m, i, id)...)
		} else {
			args = append(args, "-netdev", "user,restrict=on,id="+id)
		}
		args = append(args, "-device", "virtio-net-pci,netdev="+id+",mac="+mac)
	}
	for i, d := range m.Disks {
		file, ok := h.File(flatOf(d))
		if !ok {
			return nil, fmt.Errorf("cannot find disk %s", d)
		}
		args = append(args, "-drive", fmt.Sprintf("file=%s,format=raw,if=virtio,index=%d", file, i))
	}
	if m.ISO != "" {
		file, ok := h.File(m.ISO)
		if !ok {
			return nil, fmt.Errorf("cannot find CD image %s", m.ISO)
		}
		args = append(args, "-cdrom", file)
	}
	order := "cn"
	if len(m.Disks) == 0 || len(m.BootOrder) > 0 && m.BootOrder[0] == "net" {
		order = "nc"
	}
	args = append(args, "-boot", "order="+order)
	ignition, err := q.ignition(m)
	return append(append(args, ignition...), q.Arguments...), err
}

func (q *QEMU) ignition(m Machine) ([]string, error) {
	data, ok := m.ExtraConfig["guestinfo.ignition.config.data"]
	if !ok {
		return nil, nil
	}
	b := []byte(data)
	switch enc := m.ExtraConfig["guestinfo.ignition.config.data.encoding"]; enc {
	case "":
	case "base64", "gzip+base64":
		var err error
		if b, err = unpack(data, enc != "base64"); err != nil {
			return nil, fmt.Errorf("cannot read the Ignition config: %w", err)
		}
	default:
		return nil, fmt.Errorf("cannot read an Ignition config in %s", enc)
	}
	file := filepath.Join(q.Dir, m.UUID+".ign")
	return []string{"-fw_cfg", "name=opt/com.coreos/config,file=" + file}, os.WriteFile(file, b, 0o600)
}

func unpack(data string, zipped bool) ([]byte, error) {
	b, err := base64.StdEncoding.DecodeString(data)
	if err != nil || !zipped {
		return b, err
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// PowerOff ends a machine, and waits until it is gone.
func (q *QEMU) PowerOff(_ *Host, m Machine) error {
	q.end(m.Ref)
	return nil
}

// Destroyed ends a machine that is still there.
func (q *QEMU) Destroyed(_ *Host, ref types.ManagedObjectReference) { q.end(ref) }

func (q *QEMU) end(ref types.ManagedObjectReference) {
	q.mu.Lock()
	r := q.runs[ref]
	delete(q.runs, ref)
	q.mu.Unlock()
	if r != nil {
		_ = r.command.Process.Kill() // it may have ended
		<-r.ended
	}
}

// PID is the process of a VM that is on; 0 if there is none.
func (q *QEMU) PID(ref types.ManagedObjectReference) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if r := q.runs[ref]; r != nil {
		return r.command.Process.Pid
	}
	return 0
}

// Close ends all machines.
func (q *QEMU) Close() {
	q.mu.Lock()
	var refs []types.ManagedObjectReference
	for ref := range q.runs {
		refs = append(refs, ref)
	}
	q.mu.Unlock()
	for _, ref := range refs {
		q.end(ref)
	}
}

var _ Backend = (*QEMU)(nil)
