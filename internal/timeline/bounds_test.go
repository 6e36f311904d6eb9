package timeline_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"bootd/boot"
	"bootd/internal/store"
	"bootd/internal/timeline"
)

// stored counts what is stored of machines and boots.
func stored(t *testing.T, s *store.Store) (machines, boots []string) {
	t.Helper()
	ids := func(kind string) (out []string) {
		all, err := store.List(t.Context(), s, store.Kind[any]{Name: kind}, "")
		if err != nil {
			t.Fatal(err)
		}
		for id := range all {
			out = append(out, id)
		}
		slices.Sort(out)
		return out
	}
	return ids("machine"), ids("boot")
}

func stranger(i int) boot.MAC { return boot.MAC{2, 0, 0, byte(i >> 16), byte(i >> 8), byte(i)} }

// TestFlood: made-up machines do not fill the disk, however fast they come, and
// what is committed does not wait for them.
func TestFlood(t *testing.T) {
	s := openStore(t, t.TempDir())
	r := recorder(t, s)
	r.Record(at(0, mac1, boot.Offered, boot.IPXE, ip1))
	r.Assigned(mac1, "node1", "worker", boot.Up)
	for i := range 3000 {
		r.Record(at(1, stranger(i), boot.Offered, boot.Firmware, netip.Addr{}))
	}
	tl := commit(t, r, at(2, stranger(7), boot.Script, boot.IPXE, ip2))
	want := []string{stranger(7).String(), mac1.String()}
	machines, boots := stored(t, s)
	if !slices.Equal(machines, want) || len(boots) != 2 || !slices.Contains(boots, stranger(7).String()+"/"+tl.ID) {
		t.Errorf("stored at once: machines %v, boots %v; want those of %v", machines, boots, want)
	}
	for range 2 {
		before := len(machines)
		if err := timeline.WriteLater(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		machines, boots = stored(t, s)
		if n := len(machines) - before; n < 200 || n > 300 || len(boots) != len(machines) {
			t.Errorf("%d more machines are stored, and %d boots of %d", n, len(boots), len(machines))
		}
	}
	flush(t, r)
	if machines, boots = stored(t, s); len(machines) != 3001 || len(boots) != 3001 {
		t.Errorf("after an orderly end %d machines are stored, and %d boots", len(machines), len(boots))
	}
}

// TestRepeats: what a machine repeats does not write again and again.
func TestRepeats(t *testing.T) {
	s := openStore(t, t.TempDir())
	r := recorder(t, s)
	count := func() int {
		t.Helper()
		if err := timeline.WriteSoon(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		tl, ok := recorder(t, s).Current(mac1)
		if !ok || len(tl.Steps) == 0 {
			return 0
		}
		return tl.Steps[len(tl.Steps)-1].Count
	}
	r.Record(at(0, mac1, boot.Offered, boot.IPXE, ip1))
	if n := count(); n != 0 {
		t.Errorf("a stranger was written at once: %d", n)
	}
	r.Assigned(mac1, "node1", "worker", boot.Up)
	if n := count(); n != 1 {
		t.Errorf("a machine that was assigned something was not written: %d", n)
	}
	r.Record(at(1, mac1, boot.Offered, boot.IPXE, ip1))
	r.Record(at(2, mac1, boot.Offered, boot.IPXE, ip1))
	if n := count(); n != 1 {
		t.Errorf("repeats were written at once: %d", n)
	}
	if err := timeline.WriteLater(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != 3 {
		t.Errorf("repeats were not written later: %d", n)
	}
	r.Record(at(3, mac1, boot.Leased, boot.IPXE, ip1))
	if tl, _ := r.Current(mac1); count() != 1 || tl.Steps[1].Stage != boot.Leased {
		t.Error("a new step was not written at once")
	}
}

// TestNamed: where unknown machines have a profile, made-up ones have names too,
// and are bounded all the same.
func TestNamed(t *testing.T) {
	r := recorder(t, openStore(t, t.TempDir()))
	const n = timeline.MostNamed + 1000
	for i := range n {
		r.Record(at(float64(i), stranger(i), boot.Offered, boot.IPXE, netip.Addr{}))
		r.Assigned(stranger(i), "node-x", "unknown", boot.Up)
	}
	if have := len(r.Machines()); have > timeline.MostNamed+1 || have < timeline.MostNamed/2 {
		t.Errorf("%d machines are kept", have)
	}
	if _, ok := r.Current(stranger(n - 1)); !ok {
		t.Error("the latest was forgotten")
	}
	if _, ok := r.Current(stranger(0)); ok {
		t.Error("the one seen longest ago was kept")
	}
}

// TestUnseen: a machine that nobody has seen for 90 days is forgotten, also on
// disk, even if it comes and goes before that is written.
func TestUnseen(t *testing.T) {
	s := openStore(t, t.TempDir())
	r := recorder(t, s)
	for _, mac := range []boot.MAC{mac1, mac2} {
		commit(t, r, at(0, mac, boot.Offered, boot.IPXE, netip.Addr{}))
	}
	r.Record(at(40*24*3600, mac2, boot.Offered, boot.IPXE, ip2))
	r.Assigned(mac1, "node1", "worker", boot.Up)
	now := t0.Add(91 * 24 * time.Hour)
	timeline.ForgetUnseen(r, now)
	if _, ok := r.Current(mac1); ok || len(r.Machines()) != 1 {
		t.Errorf("machines %+v", r.Machines())
	}
	r.Record(at(1, mac1, boot.Offered, boot.IPXE, ip1))
	timeline.ForgetUnseen(r, now)
	if err := timeline.WriteSoon(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if machines, boots := stored(t, s); !slices.Equal(machines, []string{mac2.String()}) || slices.ContainsFunc(boots, func(b string) bool { return strings.HasPrefix(b, mac1.String()) }) {
		t.Errorf("stored: %v, %v", machines, boots)
	}
	if _, ok := r.ByAddr(ip1); ok {
		t.Error("its address is still known")
	}
}

func TestAssigned(t *testing.T) {
	r := recorder(t, openStore(t, t.TempDir()))
	is := func(what string, mac boot.MAC, back int, want string) {
		t.Helper()
		list, err := r.Boots(t.Context(), mac)
		if err != nil || len(list) <= back {
			t.Fatalf("%s: %d boots, %v", what, len(list), err)
		}
		if got := list[back].Name + " " + list[back].Profile + " " + string(list[back].Expect); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	// Where somebody else answers DHCP, the first that is seen of a machine is
	// that it asks for its script.
	r.Assigned(mac1, "node1", "worker", boot.Ready)
	commit(t, r, at(0, mac1, boot.Script, boot.IPXE, ip1))
	is("a first boot", mac1, 0, "node1 worker ready")
	r.Assigned(mac1, "node1", "server", boot.Up)
	is("changed before it was up", mac1, 0, "node1 server up")
	r.Record(at(1, mac1, boot.Kernel, boot.IPXE, ip1))
	r.Record(at(2, mac1, boot.Up, boot.System, ip1))
	r.Assigned(mac1, "other", "desktop", boot.Initrd)
	is("changed when it was up", mac1, 0, "node1 server up")
	r.Record(at(3, mac1, boot.Script, boot.IPXE, ip1))
	is("the next boot", mac1, 0, "other desktop initrd")
	is("the boot before", mac1, 1, "node1 server up")
	// Assignments of machines that never come are bounded.
	r.Assigned(mac2, "node2", "worker", boot.Up)
	for i := range 1000 {
		r.Assigned(stranger(i), "x", "y", boot.Up)
	}
	r.Record(at(4, mac2, boot.Script, boot.IPXE, ip2))
	is("pushed out", mac2, 0, "  ")
}

// TestOldNode: that the node of the boot before was removed belongs to that boot.
func TestOldNode(t *testing.T) {
	r := recorder(t, openStore(t, t.TempDir()))
	for i, node := range []string{"n1", "n2"} {
		s := float64(10 * i)
		r.Record(at(s, mac1, boot.Script, boot.IPXE, ip1))
		r.Record(at(s+1, mac1, boot.Kernel, boot.IPXE, ip1))
		e := at(s+2, mac1, boot.Joined, boot.System, ip1)
		e.Node = node
		r.Record(e)
	}
	gone := at(20, mac1, boot.Removed, "", netip.Addr{})
	gone.Node = "n1"
	r.Record(gone)
	list, err := r.Boots(t.Context(), mac1)
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	has := func(tl boot.Timeline) bool {
		return slices.ContainsFunc(tl.Steps, func(s boot.Step) bool { return s.Stage == boot.Removed })
	}
	if has(list[0]) || !has(list[1]) || list[0].Node != "n2" || list[1].Node != "n1" {
		t.Errorf("boots %+v", list)
	}
}

func TestStrangers(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	r := recorder(t, s)
	r.Record(at(0, mac1, boot.Offered, boot.Firmware, ip1))
	r.Assigned(mac1, "node1", "worker", boot.Up)
	r.Assigned(mac2, "made-up", "worker", boot.Up) // was never seen
	r.Record(at(0, mac2, boot.Refused, "", netip.Addr{}))
	r.Assigned(mac2, "made-up", "worker", boot.Up) // never booted
	const strangers = 6000
	var newest boot.MAC
	for i := range strangers {
		newest = boot.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}
		r.Record(at(float64(1+i), newest, boot.Offered, boot.Firmware, netip.Addr{}))
		if i == strangers/2 {
			flush(t, r)
		}
	}
	flush(t, r)
	check := func(r *timeline.Recorder) {
		t.Helper()
		if n := len(r.Machines()); n > 4097 || n < 3000 {
			t.Errorf("%d machines are kept", n)
		}
		if _, ok := r.Current(mac1); !ok {
			t.Error("a machine with a name was forgotten, though it was seen longest ago")
		}
		if inv := r.Inventory(mac2); inv.MAC == mac2 {
			t.Error("a machine that never booted got a name, and is kept for ever")
		}
		if _, ok := r.Current(newest); !ok {
			t.Error("the latest machine was forgotten")
		}
	}
	check(r)
	boots, err := store.List(t.Context(), s, store.Kind[any]{Name: "boot"}, "")
	if err != nil || len(boots) != len(r.Machines()) {
		t.Errorf("%d boots are stored of %d machines, %v", len(boots), len(r.Machines()), err)
	}
	check(recorder(t, s))
}

// TestPassing: systems that only renew their leases do not push out machines
// that boot, however many they are, but machines that nobody has seen for long.
func TestPassing(t *testing.T) {
	r := recorder(t, openStore(t, t.TempDir()))
	passing := func(from float64, first, n int) {
		for i := range n {
			r.Record(at(from+float64(i)/1000, stranger(first+i), boot.Leased, boot.System, netip.Addr{}))
		}
	}
	r.Record(at(0, mac1, boot.Offered, boot.Firmware, ip1))
	passing(1, 0, 10_000)
	if n := len(r.Machines()); n != 4096 {
		t.Errorf("%d machines are kept", n)
	}
	if _, ok := r.Current(mac1); !ok {
		t.Error("a machine that boots was pushed out")
	}
	r.Record(at(20, mac2, boot.Offered, boot.Firmware, ip2))
	if _, ok := r.Current(mac2); !ok {
		t.Error("there is no room for a machine that boots")
	}
	passing(30, 10_000, 1000) // fills what that has made room for
	for hour := 1.0; hour < 3; hour++ {
		r.Record(at(hour*3600, mac2, boot.Leased, boot.IPXE, ip2))
	}
	passing(2*3600, 20_000, 10)
	if _, ok := r.Current(stranger(20_009)); !ok {
		t.Error("there is no room, though nobody was seen for an hour")
	}
	if _, ok := r.Current(mac1); ok || len(r.Machines()) != 11 {
		t.Errorf("%d machines are kept", len(r.Machines()))
	}
}

// TestLargeBoots: boots with much to tell do not fit into one transaction, and
// one that fits into none does not keep the others from being stored.
func TestLargeBoots(t *testing.T) {
	s := openStore(t, t.TempDir())
	r := recorder(t, s)
	const n = 60
	for i := range n {
		mac := boot.MAC{2, 0, 0, 0, 0, byte(i)}
		r.Record(at(0, mac, boot.Offered, boot.Firmware, netip.Addr{}))
		e := at(1, mac, boot.Failed, boot.Initramfs, netip.Addr{})
		if e.Text = strings.Repeat("long ", 10_000); i == n/2 {
			e.Text = strings.Repeat("long ", 300_000)
		}
		r.Record(e)
	}
	flush(t, r)
	again := recorder(t, s)
	stored := 0
	for i := range n {
		if tl, ok := again.Current(boot.MAC{2, 0, 0, 0, 0, byte(i)}); ok && len(tl.Steps) == 2 {
			stored++
		}
	}
	if stored != n-1 {
		t.Errorf("%d of %d boots are stored", stored, n)
	}
}
