package boot_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bootd/boot"
)

// signs are the short names of events in these tests: who, then what.
var signs = map[string]boot.Event{
	"P":  {Stage: boot.Power, Text: "switched on"},
	"fo": {Stage: boot.Offered, Client: boot.Firmware},
	"fl": {Stage: boot.Leased, Client: boot.Firmware},
	"l":  {Stage: boot.Loader, Client: boot.Firmware, Text: "snponly.efi by TFTP"},
	"io": {Stage: boot.Offered, Client: boot.IPXE},
	"il": {Stage: boot.Leased, Client: boot.IPXE},
	"w":  {Stage: boot.Waiting, Client: boot.IPXE, Text: "no entry matches"},
	"s":  {Stage: boot.Script, Client: boot.IPXE},
	"s1": {Stage: boot.Script, Client: boot.IPXE, Run: "RUN1"},
	"s2": {Stage: boot.Script, Client: boot.IPXE, Run: "RUN2"},
	"w1": {Stage: boot.Waiting, Client: boot.IPXE, Text: "no entry matches", Run: "RUN1"},
	"w2": {Stage: boot.Waiting, Client: boot.IPXE, Text: "no entry matches", Run: "RUN2"},
	"sg": {Stage: boot.Script, Client: boot.GRUB, Run: "RUN1"},
	"wg": {Stage: boot.Waiting, Client: boot.GRUB, Text: "no entry matches", Run: "RUN1"},
	"kg": {Stage: boot.Kernel, Client: boot.GRUB},
	"su": {Stage: boot.Script, Client: boot.Firmware},
	"k":  {Stage: boot.Kernel, Client: boot.IPXE},
	"i":  {Stage: boot.Initrd, Client: boot.IPXE, Text: "initramfs.img"},
	"Io": {Stage: boot.Offered, Client: boot.Initramfs},
	"Il": {Stage: boot.Leased, Client: boot.Initramfs},
	"r":  {Stage: boot.RootFS, Client: boot.Initramfs},
	"g":  {Stage: boot.Ignition, Client: boot.Initramfs},
	"gi": {Stage: boot.Ignition, Client: boot.IPXE},
	"gw": {Stage: boot.Waiting, Client: boot.Initramfs, Text: "Ignition config: no swarm yet"},
	"iw": {Stage: boot.Waiting, Client: boot.IPXE, Text: "Ignition config: no swarm yet", Boot: "current"},
	"so": {Stage: boot.Offered, Client: boot.System},
	"sl": {Stage: boot.Leased, Client: boot.System},
	"u":  {Stage: boot.Up, Client: boot.System},
	"e":  {Stage: boot.Engine, Client: boot.System},
	"j":  {Stage: boot.Joined, Client: boot.System, Node: "n1"},
	"R":  {Stage: boot.Ready, Node: "n1"},
	"x":  {Stage: boot.Left, Client: boot.System, Node: "n1"},
	"X":  {Stage: boot.Removed, Node: "n0"},
	"F":  {Stage: boot.Failed, Text: "Ignition config: it broke"},
	"D":  {Stage: boot.Refused, Text: "from elsewhere"},
}

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// play records a scenario, written as the short names of events a second apart,
// "+5m" for more time between two, "-3s" for an event that is told late. It
// returns the boots, and the scenario with | where a boot began.
func play(t testing.TB, scenario string) (boots []*boot.Timeline, marked string) {
	t.Helper()
	now := epoch
	var late time.Duration
	var out []string
	for word := range strings.FieldsSeq(scenario) {
		if word == "|" {
			continue
		}
		if d, err := time.ParseDuration(word); err == nil {
			if d < 0 {
				late = d
			} else {
				now = now.Add(d)
			}
			out = append(out, word)
			continue
		}
		e, ok := signs[word]
		if !ok {
			t.Fatalf("%q is no event", word)
		}
		now = now.Add(time.Second)
		e.Time, late = now.Add(late), 0
		if e.Client != "" && e.Stage != boot.Waiting {
			e.Addr = netip.MustParseAddr("10.0.0.7")
		}
		if (e.Stage == boot.Up || e.Boot != "") && len(boots) > 0 {
			e.Boot = boots[len(boots)-1].ID
		}
		var current *boot.Timeline
		if len(boots) > 0 {
			current = boots[len(boots)-1]
		}
		if current.Begins(e) {
			current = &boot.Timeline{ID: fmt.Sprint(len(boots)), Expect: boot.Ready}
			boots = append(boots, current)
			out = append(out, "|")
		}
		if current != nil {
			current.Apply(e)
		}
		out = append(out, word)
	}
	return boots, strings.Join(out, " ")
}

func TestBegins(t *testing.T) {
	for _, tt := range []struct{ name, want string }{
		{"UEFI", "| P fo fl l io il s k i Io Il r g so sl u e j R"},
		{"iPXE in ROM", "| P io il s k i sl r g u e j R"},
		{"nobody pressed a button that tells", "| fo fl l io il s k i r g u e j R"},
		{"another DHCP server", "| s k i r g u e j R | s k i"},
		{"another DHCP server and TFTP from bootd", "| l s k i r g u e j R | l s k"},
		{"a proxy", "| fo l io s k i r g u | fo l io s k"},
		{"GRUB", "| fo fl l sg kg i Io Il r g so sl u e j R | fo fl l sg"},
		{"GRUB waits, gets its script, fails, asks again", "| fo fl l wg +10s wg sg +10s sg kg"},
		{"GRUB, told of late", "| fo fl sg l kg i r g u"},
		{"U-Boot, with a file of the operator's", "| fo fl su l k i r g u | fo fl su"},
		{"GRUB, cut after its script", "| fo fl l sg | fo fl l sg"},
		{"GRUB with another DHCP server", "| l sg kg i r g u j R | l sg kg"},
		{"U-Boot", "| fo fl fo fl su k i r g u | fo fl su k"},
		{"another DHCP server, a loader that asks again", "| w1 w1 s1 s1 k s1 k i r g u j R"},
		{"another DHCP server, from the disk again and again", "| s1 | s2 s2 | s1"},
		{"another DHCP server, waits and is switched off", "| w1 | w2 s2"},
		{"another DHCP server, a loader that does not tell its run", "| s1 s k | s s2 s2"},
		{"who has its address from bootd begins by asking for it", "| io il s1 k s2"},
		{"a proxy, a loader that tells its run", "| fo l io s1 s1 k | fo l io s2"},
		{"config as an initrd", "| io il s k i gi r u e j R | io il s"},

		{"system renews its lease", "| io il s k i r g u e j R sl +1h sl so sl +12h sl"},
		{"system alone", "| so sl +1h sl"},
		{"system first, then network boot by firmware", "| sl +30s sl | fo fl l"},
		{"system first, then network boot by iPXE", "| sl | io il s"},
		{"system first, then another DHCP server", "| sl | s k"},

		{"EDK2 sends its DISCOVER again and again", "| fo fo fo fo fl l"},
		{"EDK2 fails, and tries PXE again", "| fo fl +1m fo fl +1m fo fl l"},
		{"EDK2 refuses the loader (Secure Boot), tries again", "| fo fl l +30s | fo fl l"},
		{"iPXE sends its DISCOVER again and again", "| fo fl l io io io il s"},
		{"iPXE asks again while it waits for an entry", "| io il w +10s w +10s io il w +10s w s k"},
		{"iPXE asks again for its script after a failed kernel", "| io il s +10s s +10s s k i"},
		{"iPXE asks again after a failed initrd", "| io il s k +10s s k i"},
		{"a running machine asks for its script", "| io il s k i sl r g u e j R +1h s w s k"},
		{"entry removed and written again", "| io il s +10s w +10s io il w +10s s k i"},
		{"config not ready for a minute", "| io il s k i r gw +5s gw +50s gw g u"},

		{"config as an initrd is not ready", "| io il s k i iw +5s iw gi r u"},

		{"cut after the first offer", "| fo | +11m fo fl l"},
		{"cut after the lease", "| fo fl | +11m fo fl l"},
		{"cut after the loader", "| fo fl l | fo fl l"},
		{"cut after iPXE's offer", "| fo fl l io | fo fl l"},
		{"cut after iPXE's offer, loader from elsewhere", "| fo fl io | fo fl"},
		{"cut after iPXE's lease", "| fo fl l io il | fo fl l"},
		{"cut after the script", "| fo fl l io il s | fo fl l"},
		{"ROM: cut after the lease, hours before", "| io il +2h | io il s"},
		{"ROM: cut after the script", "| io il s | io il s"},
		{"ROM: cut while waiting, hours before", "| io il w +2h | io il w"},
		{"ROM: waited, got its script, cut", "| io il w s | io il w"},
		{"ROM: cut after the kernel", "| io il s k | io il s"},
		{"ROM: cut after the initrd", "| io il s k i | io il s"},
		{"ROM: cut after the root file system", "| io il s k i r | io il s"},
		{"ROM: cut after Ignition", "| io il s k i r g | io il s"},
		{"ROM: cut when up", "| io il s k i r g u | io il s"},
		{"restart from the system", "| fo fl l io il s k i r g u e j R x | fo fl l io il s"},

		{"button told after the first packets", "| io il -2s P s k"},
		{"button told after the script", "| io il s -4s P k"},
		{"button noted after the first packet", "| io P il s k"},
		{"button told twice", "| P io -2s P il"},
		{"button pressed in the middle of a boot", "| P io il | P io il s"},
		{"button pressed when ready, told late", "| P io il s k i r g u e j R | io il -3s P s"},
		{"button told so late that the script is out, cut before it", "| P io il +20s io il s -5s P k"},

		{"a node that was never seen to boot", "u e j R X"},
		{"the old node goes when the new one is ready", "| io il s k u j R | io il s k u j R X"},
		{"refusals begin nothing", "D F | io D F il"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := strings.Join(strings.Fields(tt.want), " ")
			// The mark stands before the pause or after it, which is the same.
			norm := func(s string) string {
				for _, d := range []string{"+11m", "+2h", "+30s", "+10s", "-2s", "-3s", "-4s", "-5s"} {
					s = strings.ReplaceAll(s, "| "+d, d+" |")
				}
				return s
			}
			if _, got := play(t, tt.want); norm(got) != norm(want) {
				t.Errorf("boots began so:\n\t%s\nwant:\n\t%s", got, want)
			}
		})
	}
}

func TestApply(t *testing.T) {
	boots, _ := play(t, "io io +3s io il s k -30s P X")
	b := boots[0]
	at := func(s int) time.Time { return epoch.Add(time.Duration(s) * time.Second) }
	want := &boot.Timeline{
		ID: "0", Expect: boot.Ready, Started: at(-20), Addr: netip.MustParseAddr("10.0.0.7"),
		Steps: []boot.Step{
			{Stage: boot.Power, Text: "switched on", First: at(-20), Last: at(-20), Count: 1},
			{Stage: boot.Offered, Client: boot.IPXE, First: at(1), Last: at(6), Count: 3},
			{Stage: boot.Leased, Client: boot.IPXE, First: at(7), Last: at(7), Count: 1},
			{Stage: boot.Script, Client: boot.IPXE, First: at(8), Last: at(8), Count: 1},
			{Stage: boot.Kernel, Client: boot.IPXE, First: at(9), Last: at(9), Count: 1},
			{Stage: boot.Removed, First: at(11), Last: at(11), Count: 1},
		},
	}
	if diff := cmp.Diff(want, b, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if b.Node != "" {
		t.Errorf("the node that was removed, %q, is taken for the one of this boot", b.Node)
	}

	t.Run("arch, sizes", func(t *testing.T) {
		var b boot.Timeline
		b.Apply(boot.Event{Time: at(1), Stage: boot.Offered, Client: boot.Firmware, Inventory: boot.Inventory{Arch: boot.EFIARM64, ArchKnown: true}})
		b.Apply(boot.Event{Time: at(2), Stage: boot.Offered, Client: boot.System, Inventory: boot.Inventory{Arch: boot.BIOS, ArchKnown: true}})
		b.Apply(boot.Event{Time: at(9), Stage: boot.Kernel, Bytes: 14, Took: 2 * time.Second})
		b.Apply(boot.Event{Time: at(5), Stage: boot.Kernel, Bytes: 3, Took: time.Second})
		if b.Arch != boot.EFIARM64 || b.Started != at(1) {
			t.Errorf("%v, started %v", b.Arch, b.Started)
		}
		k := boot.Step{Stage: boot.Kernel, First: at(5), Last: at(9), Count: 2, Bytes: 14, Took: 2 * time.Second}
		if diff := cmp.Diff(k, b.Steps[2]); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("what a neighbour makes up does not hide the boot", func(t *testing.T) {
		var b boot.Timeline
		for i := range 5000 {
			s := []boot.Stage{boot.Refused, boot.Failed, boot.Waiting, boot.Leased, boot.Loader}[i%5]
			b.Apply(boot.Event{Time: at(i), Stage: s, Client: boot.Client(fmt.Sprint(i % 31)), Text: fmt.Sprint(i)})
		}
		b.Apply(boot.Event{Time: at(6000), Stage: boot.Ready})
		if n := len(b.Steps); n > 250 || b.Stage() != boot.Ready {
			t.Errorf("%d steps, at %s", n, b.Stage())
		}
	})
}

func TestStage(t *testing.T) {
	for scenario, want := range map[string]boot.Stage{
		"P": boot.Power, "io": boot.Offered, "io il": boot.Leased, "w": boot.Waiting, "io w": boot.Waiting,
		"io w s": boot.Script, "io s w": boot.Waiting, "s k w": boot.Kernel, "s k i r gw": boot.RootFS, "s k i u j R x X": boot.Ready,
	} {
		boots, _ := play(t, scenario)
		if got := boots[0].Stage(); got != want {
			t.Errorf("%s: at %s, want %s", scenario, got, want)
		}
		if done := boots[0].Done(); done != (want == boot.Ready) {
			t.Errorf("%s: done = %v", scenario, done)
		}
	}
	if s := (boot.Timeline{}).Stage(); s != "" || (boot.Timeline{}).Done() {
		t.Errorf("nothing has happened, and it is at %q", s)
	}
}

func TestMissing(t *testing.T) {
	for _, tt := range []struct {
		scenario string
		arch     boot.Arch
		next     boot.Stage
		reason   string // part of it
	}{
		{"P", 0, boot.Offered, "network boot"},
		{"fo", 7, boot.Leased, "another DHCP server"},
		{"fo fl", 7, boot.Loader, "UDP port 69"},
		{"fo fl", 16, boot.Loader, "plain http://"},
		{"fo fl", 99, boot.Loader, "architecture 99"},
		{"fo fl l", 7, boot.Script, "loader: ipxe"},
		{"fo fl l", 0, boot.Script, "ROM"},
		{"fo fl l io", 7, boot.Script, "did not take it"},
		{"fo fl l io il", 7, boot.Script, "HTTP"},
		{"io il", 0, boot.Script, "HTTP"},
		{"sl", 0, boot.Script, "before its disks"},
		{"io il w", 0, boot.Script, "waiting: no entry matches"},
		{"io il s", 0, boot.Kernel, "console"},
		{"io il s k", 0, boot.Initrd, "memory"},
		{"io il s k i", 0, boot.RootFS, "no driver"},
		{"io il s k i gi", 0, boot.RootFS, "no driver"},
		{"io il s k i Il", 0, boot.RootFS, "has an address"},
		{"io il s k i r", 0, boot.Ignition, "Ignition config"},
		{"io il s k i r gw", 0, boot.Ignition, "waiting: Ignition config: no swarm yet"},
		{"io il s k i r F", 0, boot.Ignition, "failed: Ignition config: it broke"},
		{"io il s k i r gw g", 0, boot.Up, "Ignition failed"},
		{"io il s k i r g sl", 0, boot.Up, "Ignition failed"},
		{"io il s k i r g u", 0, boot.Engine, "journalctl -u docker"},
		{"io il s k i r g u e", 0, boot.Joined, "2377"},
		{"io il s k i r g u e j", 0, boot.Ready, "docker node ls"},
		{"io il s k i r g u e j R", 0, "", ""},
	} {
		t.Run(tt.scenario, func(t *testing.T) {
			boots, _ := play(t, tt.scenario)
			b := boots[0]
			b.Arch = tt.arch
			m, ok := b.Missing(b.Steps[len(b.Steps)-1].Last)
			if m.Next != tt.next || ok != (tt.next != "") || !strings.Contains(m.Reason, tt.reason) {
				t.Fatalf("missing %+v, %v; want %s, %q", m, ok, tt.next, tt.reason)
			}
			if !ok {
				return
			}
			if m.Late {
				t.Error("late at once")
			}
			if m, _ := b.Missing(m.Since.Add(m.Patience + time.Second)); !m.Late {
				t.Errorf("not late after its patience of %s", m.Patience)
			}
		})
	}
	t.Run("by proxy there is no address", func(t *testing.T) {
		for c, want := range map[boot.Client]boot.Stage{boot.Firmware: boot.Loader, boot.IPXE: boot.Script} {
			var b boot.Timeline
			b.Apply(boot.Event{Time: epoch, Stage: boot.Offered, Client: c})
			if m, ok := b.Missing(epoch); !ok || m.Next != want || !strings.Contains(m.Reason, "other DHCP server") {
				t.Errorf("%s: %+v, %v", c, m, ok)
			}
		}
	})
	t.Run("retries do not make it patient", func(t *testing.T) {
		boots, _ := play(t, "fo +20s fo +20s fo +20s fo")
		if m, ok := boots[0].Missing(epoch.Add(64 * time.Second)); !ok || !m.Late || !m.Since.Equal(epoch.Add(time.Second)) {
			t.Errorf("%+v, %v", m, ok)
		}
	})
	t.Run("nothing beyond what the profile leads to", func(t *testing.T) {
		boots, _ := play(t, "io il s k i")
		b := boots[0]
		for expect, want := range map[boot.Stage]bool{boot.Initrd: false, boot.Up: true, "": true, "nonsense": true} {
			b.Expect = expect
			if _, ok := b.Missing(epoch); ok != want {
				t.Errorf("expecting %q: %v", expect, ok)
			}
		}
	})
}

func TestDurations(t *testing.T) {
	show := func(b *boot.Timeline) string {
		var out []string
		for _, s := range b.Durations() {
			out = append(out, fmt.Sprintf("%s %.0f", s.Name, s.To.Sub(s.From).Seconds()))
		}
		return strings.Join(out, ", ")
	}
	for scenario, want := range map[string]string{
		"P +3s fo fl l io il s k i Il r g u e j R": "firmware 6, loader 0, iPXE 3, kernel 1, initrd 1, initramfs 2, rootfs 0, Ignition 1, system 1, engine 1, join 1, ready 1",
		"fo fl l":             "firmware 2, loader 0",
		"P +2s io il s k i u": "firmware 3, iPXE 2, kernel 1, initrd 1, system 1",
		"P +2s s k":           "iPXE 3, kernel 1",
		"sl":                  "",
	} {
		boots, _ := play(t, scenario)
		if got := show(boots[0]); got != want {
			t.Errorf("%s:\n\t%s\nwant:\n\t%s", scenario, got, want)
		}
	}
	t.Run("transfers", func(t *testing.T) {
		b := &boot.Timeline{}
		for _, e := range []boot.Event{
			{Time: epoch, Stage: boot.Power},
			{Time: epoch.Add(5 * time.Second), Stage: boot.Loader, Took: 2 * time.Second, Bytes: 1 << 20},
			{Time: epoch.Add(10 * time.Second), Stage: boot.Initrd, Text: "a", Bytes: 3},
			{Time: epoch.Add(12 * time.Second), Stage: boot.Initrd, Text: "b", Bytes: 4},
			{Time: epoch.Add(30 * time.Second), Stage: boot.RootFS, Took: 8 * time.Second, Bytes: 700 << 20},
		} {
			b.Apply(e)
		}
		if got, want := show(b), "firmware 3, loader 2, initrd 7, initramfs 10, rootfs 8"; got != want {
			t.Errorf("%s\nwant: %s", got, want)
		}
		var bytes []int64
		for _, s := range b.Durations() {
			bytes = append(bytes, s.Bytes)
		}
		if diff := cmp.Diff([]int64{0, 1 << 20, 7, 0, 700 << 20}, bytes); diff != "" {
			t.Error(diff)
		}
	})
}

// FuzzTimeline applies what could come in, in any order. A timeline stays
// bounded and in order, its spans follow each other, and it survives being
// stored.
func FuzzTimeline(f *testing.F) {
	f.Add([]byte("fo fl l io il s k i Il r g u e j R"))
	stages := []boot.Stage{boot.Power, boot.Offered, boot.Leased, boot.Loader, boot.Script, boot.Kernel, boot.Initrd, boot.RootFS,
		boot.Ignition, boot.Up, boot.Engine, boot.Joined, boot.Ready, boot.Waiting, boot.Refused, boot.Failed, boot.Left, boot.Removed, boot.Power, "?"}
	clients := []boot.Client{"", boot.Firmware, boot.IPXE, boot.Initramfs, boot.System}
	f.Fuzz(func(t *testing.T, data []byte) {
		var b *boot.Timeline
		now := epoch
		for len(data) >= 4 {
			s, c, d, x := data[0], data[1], data[2], data[3]
			data = data[4:]
			now = now.Add(time.Duration(int8(d)) * time.Second)
			e := boot.Event{Time: now, Stage: stages[int(s)%len(stages)], Client: clients[int(c)%len(clients)],
				Text: strings.Repeat("t", int(x)%32), Bytes: int64(x) << 4, Took: time.Duration(x) * time.Second}
			before := 0
			if b.Begins(e) {
				b = &boot.Timeline{ID: "0123456789abcdef", Expect: stages[int(x)%len(stages)]}
			} else if b == nil {
				continue
			} else {
				before = boot.Order(b.Stage())
			}
			b.Apply(e)
			if after := boot.Order(b.Stage()); after < before && b.Stage() != boot.Waiting {
				t.Fatalf("%s threw it back to %s", e.Stage, b.Stage())
			}
		}
		if b == nil {
			return
		}
		check(t, b)
	})
}

func check(t *testing.T, b *boot.Timeline) {
	t.Helper()
	if len(b.Steps) == 0 || len(b.Steps) > 220 {
		t.Fatalf("%d steps", len(b.Steps))
	}
	for i, s := range b.Steps {
		switch {
		case s.First.After(s.Last), s.Count < 1, s.First.Before(b.Started):
			t.Errorf("step %d of a boot begun at %v: %+v", i, b.Started, s)
		case i > 0 && s.First.Before(b.Steps[i-1].First):
			t.Errorf("step %d is before the one before it", i)
		}
	}
	from := b.Started
	for _, s := range b.Durations() {
		if !s.From.Equal(from) || s.To.Before(s.From) {
			t.Errorf("span %s from %v to %v; the one before ends at %v", s.Name, s.From, s.To, from)
		}
		from = s.To
	}
	if m, ok := b.Missing(from); ok && (m.Reason == "" || boot.Order(m.Next) < 0 || m.Since.IsZero()) {
		t.Errorf("missing %+v", m)
	}
	raw, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	var back boot.Timeline
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b, &back, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("stored and read again: %s", diff)
	}
}

// Who may be given a script: the loader that has just got its address.
func TestLoading(t *testing.T) {
	for _, tt := range []struct {
		scenario             string
		iPXE, grub, firmware bool
	}{
		{"", false, false, false},
		{"fo", false, false, false},
		{"fo fl", false, true, true},
		{"fo fl l", false, true, true},
		{"fo fl l io", false, true, true},
		{"fo fl l io il", true, true, true},
		{"io il", true, false, false},
		{"io il s k i", true, false, false},
		{"fo fl l sg kg i", false, true, true},
		{"fo fl l sg kg i Io", false, false, false},
		{"io il s k i sl", false, false, false},
		{"s k", false, false, false},
		{"fo fl u", false, false, false},
	} {
		b := &boot.Timeline{}
		if boots, _ := play(t, tt.scenario); len(boots) > 0 {
			b = boots[len(boots)-1]
		}
		got := [3]bool{b.Loading(boot.IPXE), b.Loading(boot.GRUB), b.Loading(boot.Firmware)}
		if want := [3]bool{tt.iPXE, tt.grub, tt.firmware}; got != want {
			t.Errorf("%q: iPXE, GRUB, U-Boot %v, want %v", tt.scenario, got, want)
		}
	}
}
