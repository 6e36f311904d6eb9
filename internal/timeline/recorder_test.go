package timeline_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"bootd/boot"
	"bootd/boot/ipxe"
	"bootd/internal/store"
	"bootd/internal/timeline"
)

var _ ipxe.Boots = (*timeline.Recorder)(nil)

var (
	mac1 = boot.MAC{0x52, 0x54, 0, 0, 0, 1}
	mac2 = boot.MAC{0x52, 0x54, 0, 0, 0, 2}
	ip1  = netip.MustParseAddr("10.0.0.11")
	ip2  = netip.MustParseAddr("10.0.0.12")
	t0   = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

// at makes an event so many seconds after t0.
func at(s float64, mac boot.MAC, stage boot.Stage, client boot.Client, addr netip.Addr) boot.Event {
	return boot.Event{Time: t0.Add(time.Duration(s * float64(time.Second))), MAC: mac, Stage: stage, Client: client, Addr: addr}
}

func TestMain(m *testing.M) {
	if dir := os.Getenv("TIMELINE_CHILD"); dir != "" {
		bootUntilKilled(dir)
	}
	os.Exit(m.Run())
}

func openStore(t testing.TB, dir string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Options{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func recorder(t testing.TB, s *store.Store) *timeline.Recorder {
	t.Helper()
	r, err := timeline.New(t.Context(), s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// flush runs r until everything that was recorded is stored.
func flush(t testing.TB, r *timeline.Recorder) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

func commit(t testing.TB, r *timeline.Recorder, e boot.Event) boot.Timeline {
	t.Helper()
	tl, err := r.Commit(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	return tl
}

// state is everything that is to survive.
type state struct {
	Machines []timeline.Seen
	Boots    map[boot.MAC][]boot.Timeline
}

func stateOf(t testing.TB, r *timeline.Recorder) state {
	t.Helper()
	s := state{r.Machines(), map[boot.MAC][]boot.Timeline{}}
	for _, m := range s.Machines {
		list, err := r.Boots(t.Context(), m.MAC)
		if err != nil {
			t.Fatal(err)
		}
		s.Boots[m.MAC] = list
	}
	return s
}

var states = []cmp.Option{cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })}

// bootUntilKilled is the child of TestKill: it begins a boot, acknowledges it
// and then goes on recording until it is killed.
func bootUntilKilled(dir string) {
	ctx := context.Background()
	fail := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	s, err := store.Open(ctx, store.Options{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	fail(err)
	r, err := timeline.New(ctx, s, slog.New(slog.DiscardHandler))
	fail(err)
	go func() { fail(r.Run(ctx)) }()
	offered := at(0, mac1, boot.Offered, boot.Firmware, ip1)
	offered.Inventory = boot.Inventory{UUID: "77000000-0000-4000-8000-525400000001", Arch: boot.EFIX64, ArchKnown: true}
	r.Record(offered)
	r.Assigned(mac1, "node1", "worker", boot.Ready)
	r.Record(at(1, mac1, boot.Leased, boot.Firmware, ip1))
	loader := at(2, boot.MAC{}, boot.Loader, boot.Firmware, ip1)
	loader.Bytes = 1000
	r.Record(loader)
	tl, err := r.Commit(ctx, at(3, mac1, boot.Script, boot.IPXE, ip1))
	fail(err)
	fmt.Println(tl.ID)
	for i := 4.0; ; i++ {
		r.Record(at(i, mac1, boot.Refused, "", netip.Addr{}))
	}
}

func TestKill(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "TIMELINE_CHILD="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed, as intended

	r := recorder(t, openStore(t, dir))
	tl, ok := r.Current(mac1)
	if !ok || tl.ID != strings.TrimSpace(line) || len(tl.ID) != 16 {
		t.Fatalf("the boot is %q, was %q", tl.ID, line)
	}
	if tl.Name != "node1" || tl.Profile != "worker" || tl.Expect != boot.Ready || tl.Arch != boot.EFIX64 || !tl.Started.Equal(t0) {
		t.Errorf("the boot came back as %+v", tl)
	}
	var got []string
	for _, s := range tl.Steps {
		if s.Stage != boot.Refused { // those were promised to nobody
			got = append(got, fmt.Sprint(s.Stage, " ", s.Client, " ", s.Count, " ", s.Bytes))
		}
	}
	want := []string{"offered firmware 1 0", "leased firmware 1 0", "loader firmware 1 1000", "script iPXE 1 0"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("steps:", diff)
	}
	if inv := r.Inventory(mac1); inv.UUID != "77000000-0000-4000-8000-525400000001" || inv.MAC != mac1 || inv.Addr != ip1 || !inv.ArchKnown {
		t.Errorf("inventory %+v", inv)
	}
	if byAddr, ok := r.ByAddr(ip1); !ok || byAddr.ID != tl.ID {
		t.Errorf("the machine is not found by its address: %+v", byAddr)
	}
	// The boot goes on where it was.
	if next := commit(t, r, at(100, mac1, boot.Kernel, boot.IPXE, ip1)); next.ID != tl.ID || next.Stage() != boot.Kernel {
		t.Errorf("the boot went on as %+v", next)
	}
}

// TestRestart: an orderly end writes everything, and what comes back is what
// was there.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	r := recorder(t, s)
	for i := range 12 {
		start := float64(i) * 100
		r.Record(at(start, mac1, boot.Power, "", netip.Addr{}))
		r.Record(at(start+1, mac1, boot.Offered, boot.IPXE, ip1))
		r.Record(at(start+2, mac1, boot.Script, boot.IPXE, ip1))
		r.Assigned(mac1, "node1", "worker", boot.Up)
		r.Record(at(start+3, mac1, boot.Kernel, boot.IPXE, ip1))
	}
	// The clock is set back: the boot that began last is the current one.
	r.Record(at(-5000, mac1, boot.Offered, boot.IPXE, ip2))
	r.Record(at(-4998, mac2, boot.Offered, boot.Firmware, ip1))
	want := stateOf(t, r)
	if n := len(want.Boots[mac1]); n != 10 {
		t.Errorf("%d boots are kept", n)
	}
	if tl := want.Boots[mac1][0]; !tl.Started.Equal(t0.Add(-5000 * time.Second)) {
		t.Errorf("the newest boot began at %s", tl.Started)
	}
	_, before, cancel := last(r)
	cancel()
	flush(t, r)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = openStore(t, dir)
	r = recorder(t, s)
	if diff := cmp.Diff(want, stateOf(t, r), states...); diff != "" {
		t.Error("before and after the restart:", diff)
	}
	stored, err := store.List(t.Context(), s, store.Kind[any]{Name: "boot"}, "")
	if err != nil || len(stored) != 11 {
		t.Errorf("%d boots are stored, %v; want 11", len(stored), err)
	}
	if tl, ok := r.ByAddr(ip2); !ok || tl.MAC != mac1 {
		t.Errorf("ByAddr(%s) = %v", ip2, tl.MAC)
	}
	r.Record(at(0, mac1, boot.Leased, boot.IPXE, ip2))
	if _, after, cancel := last(r); after <= before {
		t.Errorf("event %d comes after %d", after, before)
	} else {
		cancel()
	}
}

// last returns the number of the latest event.
func last(r *timeline.Recorder) (n int, seq uint64, cancel func()) {
	_, cancel = r.Watch()
	all := r.Since(0)
	if len(all) == 0 {
		return 0, 0, cancel
	}
	return len(all), all[len(all)-1].Seq, cancel
}

func TestEventsFindTheirBoot(t *testing.T) {
	r := recorder(t, openStore(t, t.TempDir()))
	first := commit(t, r, at(0, mac1, boot.Offered, boot.Firmware, ip1))
	for _, tt := range []struct {
		name string
		e    boot.Event
		mac  boot.MAC
		boot string // "": none, "first", "new"
	}{
		{"by address", at(1, boot.MAC{}, boot.Loader, boot.Firmware, ip1), mac1, "first"},
		{"by nobody's address", at(1, boot.MAC{}, boot.Loader, boot.Firmware, ip2), boot.MAC{}, ""},
		{"by MAC", at(2, mac1, boot.Script, boot.IPXE, ip1), mac1, "first"},
		{"a report of a machine never seen to boot", at(3, mac2, boot.Up, boot.System, netip.Addr{}), boot.MAC{}, ""},
		{"a boot that is not known", boot.Event{Time: t0, MAC: mac1, Boot: "0", Stage: boot.Up}, boot.MAC{}, ""},
		{"switched off and on", at(4, mac1, boot.Offered, boot.Firmware, ip2), mac1, "new"},
		{"a late report of the boot before", boot.Event{Time: t0, MAC: mac1, Boot: first.ID, Stage: boot.Up}, mac1, "first"},
		{"by its new address", at(5, boot.MAC{}, boot.Loader, boot.Firmware, ip2), mac1, "new"},
		{"by its old address", at(5, boot.MAC{}, boot.Loader, boot.Firmware, ip1), boot.MAC{}, ""},
	} {
		tl := commit(t, r, tt.e)
		got := "new"
		switch tl.ID {
		case "":
			got = ""
		case first.ID:
			got = "first"
		}
		if got != tt.boot || tl.MAC != tt.mac {
			t.Errorf("%s: boot %q of %s, want %q of %s", tt.name, got, tl.MAC, tt.boot, tt.mac)
		}
	}
	if tl, _ := r.Current(mac1); tl.ID == first.ID || tl.Stage() != boot.Loader {
		t.Errorf("the current boot is %+v", tl)
	}
	list, err := r.Boots(t.Context(), mac1)
	if err != nil || len(list) != 2 || list[1].ID != first.ID || list[1].Stage() != boot.Up {
		t.Errorf("boots %+v, %v", list, err)
	}
}

// TestCopies: what is handed out does not change any more.
func TestCopies(t *testing.T) {
	r := recorder(t, openStore(t, t.TempDir()))
	tl := commit(t, r, at(0, mac1, boot.Offered, boot.Firmware, ip1))
	seen := r.Machines()
	r.Record(at(1, mac1, boot.Offered, boot.Firmware, ip1))
	if tl.Steps[0].Count != 1 || seen[0].Current.Steps[0].Count != 1 {
		t.Error("a boot that was handed out has changed")
	}
}

// TestLeftovers: what a kill has kept from being removed is removed later.
func TestLeftovers(t *testing.T) {
	s := openStore(t, t.TempDir())
	stray := store.Kind[boot.Timeline]{Name: "boot"}
	err := s.Update(t.Context(), func(tx *store.Tx) error {
		return store.Put(tx, stray, mac2.String()+"/x", boot.Timeline{ID: "x", MAC: mac2, Started: t0})
	})
	if err != nil {
		t.Fatal(err)
	}
	r := recorder(t, s)
	if m := r.Machines(); len(m) != 0 {
		t.Errorf("machines %+v", m)
	}
	flush(t, r)
	if left, err := store.List(t.Context(), s, stray, ""); err != nil || len(left) != 0 {
		t.Errorf("%v is still stored, %v", left, err)
	}
}

func TestWatch(t *testing.T) {
	r := recorder(t, openStore(t, t.TempDir()))
	more, cancel := r.Watch()
	told := func() bool {
		select {
		case <-more:
			return true
		default:
			return false
		}
	}
	if told() {
		t.Error("there is something before anything happened")
	}
	for i := range 3 {
		r.Record(at(float64(i), mac1, boot.Offered, boot.Firmware, ip1))
	}
	if !told() || told() {
		t.Error("three events are not told of once")
	}
	got := make([]timeline.Numbered, 5)
	if n := r.Read(0, got); n != 3 {
		t.Fatalf("%d events", n)
	}
	first := got[0].Seq
	for i, n := range got[:3] {
		if n.Seq != first+uint64(i) || n.Boot == "" {
			t.Errorf("event %d is %+v", i, n)
		}
	}
	two := make([]timeline.Numbered, 2)
	if n := r.Read(0, two); n != 2 || two[0].Seq != first {
		t.Errorf("%d of the first two events: %+v", n, two)
	}
	if n := r.Read(first+1, two); n != 1 || two[0].Seq != first+2 {
		t.Errorf("%d events after the second: %+v", n, two)
	}
	if n := r.Read(first+2, two) + r.Read(first+99, two); n != 0 {
		t.Errorf("%d events after the last", n)
	}
	since := r.Since(first)
	if len(since) != 2 || since[0].Seq != first+1 || !since[1].Time.Equal(got[2].Time) {
		t.Errorf("Since(%d) = %+v", first, since)
	}
	cancel()
	r.Record(at(9, mac1, boot.Offered, boot.Firmware, ip1))
	if told() {
		t.Error("who has cancelled is told")
	}
	cancel()

	for range 30_000 {
		r.Record(at(9, mac1, boot.Offered, boot.Firmware, ip1))
	}
	all := r.Since(0)
	if len(all) != 10_000 || all[len(all)-1].Seq != first+30_003 {
		t.Fatalf("%d events are kept, up to %d", len(all), all[len(all)-1].Seq)
	}
	for i, n := range all {
		if n.Seq != all[0].Seq+uint64(i) {
			t.Fatalf("%d comes after %d", n.Seq, all[i-1].Seq)
		}
	}
	if since := r.Since(all[9_000].Seq); len(since) != 999 || since[0].Seq != all[9_001].Seq {
		t.Errorf("%d events since %d", len(since), all[9_000].Seq)
	}
}

func TestStoreIsGone(t *testing.T) {
	s := openStore(t, t.TempDir())
	r := recorder(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Commit(t.Context(), at(0, mac1, boot.Script, boot.IPXE, ip1)); err == nil || !strings.Contains(err.Error(), mac1.String()) {
		t.Errorf("err = %v", err)
	}
	if _, ok := r.Current(mac1); !ok {
		t.Error("the machine is not known, though the store alone is gone")
	}
}

func TestLog(t *testing.T) {
	var b bytes.Buffer
	r, err := timeline.New(t.Context(), openStore(t, t.TempDir()), slog.New(slog.NewTextHandler(&b, nil)))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		e := at(float64(i), mac1, boot.Offered, boot.Firmware, ip1)
		e.Text = "10.0.0.11"
		r.Record(e)
	}
	e := at(7, mac1, boot.Loader, boot.Firmware, ip1)
	e.Text, e.Bytes, e.Took = "snponly.efi by TFTP", 250_000, 300*time.Millisecond
	r.Record(e)
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 2 {
		t.Fatalf("repeats are logged:\n%s", b.String())
	}
	for _, want := range []string{"stage=loader", "mac=52:54:00:00:00:01", `text="snponly.efi by TFTP"`, "bytes=250000", "took=300ms", "after=7s"} {
		if !strings.Contains(lines[1], want) {
			t.Errorf("%s lacks %s", lines[1], want)
		}
	}
}

// TestConcurrency: machines boot side by side while others look. Every commit
// holds what its machine did before.
func TestConcurrency(t *testing.T) {
	s := openStore(t, t.TempDir())
	r := recorder(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	const boots = 5
	var wg sync.WaitGroup
	for m := range 16 {
		mac, addr := boot.MAC{2, 0, 0, 0, 1, byte(m)}, netip.AddrFrom4([4]byte{10, 0, 1, byte(m)})
		wg.Go(func() {
			for i := range boots {
				start := float64(100 * i)
				r.Record(at(start, mac, boot.Offered, boot.Firmware, addr))
				r.Record(at(start+1, boot.MAC{}, boot.Loader, boot.Firmware, addr))
				r.Assigned(mac, fmt.Sprint("node", m), "worker", boot.Up)
				tl, err := r.Commit(ctx, at(start+2, mac, boot.Script, boot.IPXE, addr))
				if err != nil || len(tl.Steps) != 3 || tl.MAC != mac {
					t.Errorf("boot %d of %s: %+v, %v", i, mac, tl, err)
					return
				}
				stored, err := store.List(ctx, s, store.Kind[boot.Timeline]{Name: "boot"}, mac.String()+"/"+tl.ID)
				if got := stored[mac.String()+"/"+tl.ID]; err != nil || len(got.Steps) != 3 {
					t.Errorf("after the commit %+v is stored, %v", got, err)
				}
			}
		})
	}
	wg.Go(func() {
		for range 50 {
			more, cancel := r.Watch()
			r.Machines()
			r.Since(0)
			r.ByAddr(netip.AddrFrom4([4]byte{10, 0, 1, 3}))
			select {
			case <-more:
			default:
			}
			cancel()
		}
	})
	wg.Wait()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(stateOf(t, r), stateOf(t, recorder(t, s)), states...); diff != "" {
		t.Error("in memory and in the store:", diff)
	}
	for _, m := range r.Machines() {
		if list, _ := r.Boots(t.Context(), m.MAC); len(list) != boots {
			t.Errorf("%s has %d boots", m.MAC, len(list))
		}
	}
}
