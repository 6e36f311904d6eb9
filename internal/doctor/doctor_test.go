package doctor_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"bootd/internal/doctor"
)

func TestWorst(t *testing.T) {
	list := func(levels ...doctor.Level) (out []doctor.Finding) {
		for _, l := range levels {
			out = append(out, doctor.Finding{Level: l})
		}
		return out
	}
	for _, c := range []struct {
		list []doctor.Finding
		want doctor.Level
	}{
		{nil, doctor.OK},
		{list(doctor.OK, doctor.Unknown), doctor.Unknown},
		{list(doctor.Warning, doctor.Unknown, doctor.OK), doctor.Warning},
		{list(doctor.Fault, doctor.Warning), doctor.Fault},
	} {
		if got := doctor.Worst(c.list); got != c.want {
			t.Errorf("worst of %v is %s, want %s", c.list, got, c.want)
		}
	}
}

func TestClock(t *testing.T) {
	built := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	later := built.Add(24 * time.Hour)
	for _, c := range []struct {
		name  string
		clock doctor.Clock
		level doctor.Level
		text  string
	}{
		{"right", doctor.Clock{Now: later, Synced: true, Built: built}, doctor.OK, "2026-11-02 00:00:00 UTC, kept right"},
		{"alone", doctor.Clock{Now: later, Built: built}, doctor.Warning, "nobody keeps the clock right"},
		{"before the program was made", doctor.Clock{Now: built.AddDate(-10, 0, 0), Synced: true, Built: built}, doctor.Fault, "it is 2016-11-01 here, and bootd was made in 2026-11-01"},
		{"nothing to compare with", doctor.Clock{Now: built.AddDate(-10, 0, 0), Synced: true}, doctor.OK, "kept right"},
	} {
		f := c.clock.Finding()
		if f.Level != c.level || !strings.Contains(f.Text, c.text) || (f.Remedy == "") != (c.level == doctor.OK) {
			t.Errorf("%s: %+v, want %s %q", c.name, f, c.level, c.text)
		}
	}
	got, err := doctor.ReadClock(built)
	if err != nil {
		t.Skipf("the kernel does not tell: %v", err)
	}
	if got.Built != built || time.Since(got.Now).Abs() > time.Minute {
		t.Errorf("the clock is %+v", got)
	}
}

func TestDisk(t *testing.T) {
	const gib = 1 << 30
	ok, warning, fault, unknown := doctor.OK, doctor.Warning, doctor.Fault, doctor.Unknown
	for _, c := range []struct {
		name string
		disk doctor.Disk
		want []doctor.Level
	}{
		{"good", doctor.Disk{Free: 20 * gib, Sync: time.Millisecond}, []doctor.Level{ok, ok}},
		{"room for one image", doctor.Disk{Free: 2 * gib, Sync: time.Millisecond}, []doctor.Level{warning, ok}},
		{"full", doctor.Disk{Free: 100 << 20, Sync: time.Millisecond}, []doctor.Level{fault, ok}},
		{"slow", doctor.Disk{Free: 20 * gib, Sync: 45 * time.Millisecond}, []doctor.Level{ok, warning}},
		{"not there yet", doctor.Disk{Free: 20 * gib}, []doctor.Level{ok}},
		{"so full that nothing can be tried", doctor.Disk{Err: &os.PathError{Err: unix.ENOSPC}}, []doctor.Level{fault}},
		{"somebody else's", doctor.Disk{Free: 20 * gib, Err: os.ErrPermission}, []doctor.Level{ok, unknown}},
	} {
		var got []doctor.Level
		for _, f := range c.disk.Findings() {
			got = append(got, f.Level)
			if (f.Remedy == "") != (f.Level == ok) {
				t.Errorf("%s: what helps is %q", c.name, f.Remedy)
			}
			// Without that the unit's server cannot write anywhere else.
			if f.Level == warning || f.Level == fault {
				for _, part := range []string{"move state_dir", "chown -R bootd:bootd ", "systemctl edit bootd: [Service] ReadWritePaths="} {
					if !strings.Contains(f.Remedy, part) {
						t.Errorf("%s: what helps is %q, without %q", c.name, f.Remedy, part)
					}
				}
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

func TestReadDisk(t *testing.T) {
	dir := t.TempDir()
	d, err := doctor.ReadDisk(dir)
	if err != nil || d.Err != nil || d.Dir != dir || d.Free == 0 || d.Sync <= 0 {
		t.Errorf("%+v, %v", d, err)
	}
	if left, _ := filepath.Glob(dir + "/.*"); len(left) != 0 {
		t.Errorf("it left %v behind", left)
	}
	// What is not there yet is judged by what is above it, and not made.
	d, err = doctor.ReadDisk(filepath.Join(dir, "a/b"))
	if err != nil || d.Dir != dir || d.Sync != 0 {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "a")); err == nil {
		t.Error("a directory was made")
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if d, err := doctor.ReadDisk(filepath.Join(file, "x")); err == nil {
		t.Errorf("below a file: %+v", d)
	}
}

func TestPorts(t *testing.T) {
	loopback := netip.MustParseAddr("127.0.0.1")
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	tcp, err := net.Listen("tcp", "[::]:0") // that of IPv6 takes IPv4's as well
	if err != nil {
		tcp, err = net.Listen("tcp4", "0.0.0.0:0")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	mapped, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mapped.Close()
	port := func(a net.Addr) uint16 {
		_, s, _ := net.SplitHostPort(a.String())
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil {
			t.Fatal(err)
		}
		return uint16(n)
	}
	for _, p := range []doctor.Port{
		{Proto: "udp", Addr: loopback, Num: port(udp.LocalAddr())},
		{Proto: "udp", Num: port(udp.LocalAddr())},
		{Proto: "udp", Addr: netip.IPv4Unspecified(), Num: port(udp.LocalAddr())},
		{Proto: "tcp", Addr: loopback, Num: port(tcp.Addr())},
		{Proto: "tcp", Addr: loopback, Num: port(mapped.Addr())},
	} {
		if err := doctor.Free(t.Context(), p); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%s: %v, want that it is in use", p, err)
		}
		h := doctor.Holders(p)
		// Others may have the same port at other addresses.
		if !slices.ContainsFunc(h, func(h doctor.Holder) bool { return h.PID == os.Getpid() && h.Name != "" }) {
			t.Errorf("%s is held by %v, want process %d", p, h, os.Getpid())
		}
	}
	if six, err := net.Listen("tcp6", "[::1]:0"); err == nil { // where there is IPv6
		defer six.Close()
		p := doctor.Port{Proto: "tcp", Addr: netip.IPv6Loopback(), Num: port(six.Addr())}
		if err := doctor.Free(t.Context(), p); !errors.Is(err, syscall.EADDRINUSE) || len(doctor.Holders(p)) != 1 {
			t.Errorf("%s at ::1: %v, %v", p, err, doctor.Holders(p))
		}
	}
	// Elsewhere it is free.
	p := doctor.Port{Proto: "udp", Addr: netip.MustParseAddr("127.0.0.9"), Num: port(udp.LocalAddr())}
	if h := doctor.Holders(p); slices.ContainsFunc(h, func(h doctor.Holder) bool { return h.PID == os.Getpid() }) {
		t.Errorf("%s at %s is held by %v", p, p.Addr, h)
	}
	if got := p.String(); !strings.HasPrefix(got, "UDP port ") {
		t.Errorf("it is called %q", got)
	}
}

// FuzzFirewall: whatever other programs write, there is a verdict, and it is the
// same each time.
func FuzzFirewall(f *testing.F) {
	f.Add("*filter\n:INPUT DROP [0:0]\n:a - [0:0]\n-A INPUT -j a\n-A a -p udp ! --dport 67:69 -g INPUT\nCOMMIT\n",
		[]byte(`{"nftables":[{"chain":{"family":"ip","table":"t","name":"in","hook":"input","type":"filter","policy":"drop"}},`+
			`{"rule":{"family":"ip","table":"t","chain":"in","expr":[{"match":{"op":"==","left":{"payload":{"protocol":"udp","field":"dport"}},"right":{"set":[67,{"range":[69,80]}]}}},{"accept":null}]}},`+
			`{"rule":{"family":"ip","table":"t","chain":"in","expr":[{"vmap":{"key":{"ct":{"key":"state"}},"data":{"set":[["new",{"jump":{"target":"in"}}]]}}}]}}]}`))
	f.Add("-A INPUT -m\n:\n-A\n:INPUT\n-A INPUT \"\\", []byte(`{"nftables":[{"rule":{}},{}]}`))
	f.Add("", []byte(`[`))
	f.Fuzz(func(t *testing.T, old string, list []byte) {
		a, err := doctor.ParseFirewall(doctor.Rules{NFT: list, Compat: old, Legacy: old})
		if err != nil {
			return
		}
		b, err := doctor.ParseFirewall(doctor.Rules{NFT: list, Compat: old, Legacy: old})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range packets() {
			v := a.Verdict(p)
			if v != doctor.Passes && v != doctor.Drops && v != doctor.MayDrop {
				t.Errorf("the verdict is %q", v)
			}
			if w := b.Verdict(p); v != w {
				t.Errorf("the verdict is %q, and then %q", v, w)
			}
		}
	})
}
