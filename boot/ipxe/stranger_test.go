package ipxe_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bootd/boot"
	"bootd/boot/ipxe"
)

// Whatever runs on a machine that is up, or in a container behind its address,
// can ask for its script. It gets none, and the boot that goes on is not
// disturbed by it.
func TestRunningMachinesGetNoScript(t *testing.T) {
	for name, later := range map[string]boot.Event{
		"its initramfs has an address":  {Stage: boot.Leased, Client: boot.Initramfs},
		"its system has an address":     {Stage: boot.Leased, Client: boot.System},
		"its root file system is there": {Stage: boot.RootFS, Client: boot.Initramfs},
		"it has its config":             {Stage: boot.Ignition, Client: boot.Initramfs},
		"it is up":                      {Stage: boot.Up},
		"it has joined":                 {Stage: boot.Joined, Client: boot.System},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.powerOn(node1, addr1)
			first, _ := w.bootTo(node1, addr1)
			before, _ := w.boots.Current(node1)
			later.MAC, later.Time = node1, time.Now()
			w.boots.Record(later)
			code, body := w.get(addr1, ask)
			if code != 200 || ticketPattern.MatchString(body) || !strings.Contains(body, "its loader has not asked for an address") {
				t.Errorf("%d\n%s", code, body)
			}
			checkScript(t, body)
			now, _ := w.boots.Current(node1)
			if now.ID != before.ID || w.boots.text(node1, boot.Refused) == "" {
				t.Errorf("boot %s became %s, recorded %v", before.ID, now.ID, w.boots.stages(node1))
			}
			if first == "" {
				t.Fatal("the boot itself had no ticket")
			}
			// Switched off and on, it is a loader again.
			w.powerOn(node1, addr1)
			if ticket, _ := w.bootTo(node1, addr1); ticket == "" || ticket == first {
				t.Errorf("after a power cycle the ticket is %q", ticket)
			}
		})
	}
}

// A claim about somebody else changes nothing of what is known of him.
func TestClaimsLeaveNoTrace(t *testing.T) {
	w := newWorld(t)
	w.powerOn(node1, addr1)
	before := w.boots.Inventory(node1)
	for _, query := range []string{ask, strings.Replace(ask, "LAB0001", "TWICE", 1)} {
		if _, body := w.get(addr2, query); ticketPattern.MatchString(body) {
			t.Errorf("a ticket:\n%s", body)
		}
	}
	tl, _ := w.boots.Current(node1)
	if got := w.boots.Inventory(node1); got.Serial != before.Serial || tl.Addr != addr1 {
		t.Errorf("inventory %+v, address %s", got, tl.Addr)
	}
}

// When bootd was killed before it had noted the lease, the machine is sent to
// ask for it again, and boots.
func TestLostLease(t *testing.T) {
	w := newWorld(t)
	w.boots.Record(boot.Event{Time: time.Now(), MAC: node1, Stage: boot.Offered, Client: boot.IPXE})
	s := w.machine(node1, addr1)
	fetch := s.fetch
	s.fetch = func(mac, url string) (string, bool) {
		if len(s.log) > 0 && s.log[len(s.log)-1] == "DHCP on net0" {
			w.boots.Record(boot.Event{Time: time.Now(), MAC: node1, Stage: boot.Leased, Client: boot.IPXE, Addr: addr1})
		}
		return fetch(mac, url)
	}
	if end := s.run(string(ipxe.First(base, "RUN1"))); end != booted {
		t.Errorf("the machine %s, having done %q and shown %q", end, s.log, s.said)
	}
}

// What a machine gets is told when it is known to be the machine, and not
// before.
func TestAssignedIsTold(t *testing.T) {
	w := newWorld(t)
	var told []string
	w.handler.Assigned = func(a boot.Assignment) { told = append(told, a.Name) }
	w.powerOn(node1, addr1)
	w.get(addr2, ask)
	if len(told) > 0 {
		t.Fatalf("a claim from another address was believed: %q", told)
	}
	ticket, _ := w.bootTo(node1, addr1)
	w.get(addr1, "/ignition/"+ticket)
	if len(told) != 2 || told[0] != "node1" || told[1] != "node1" {
		t.Errorf("told %q, want node1 for its script and for its config", told)
	}
}

// A client that is refused all the time does not fill the record.
func TestRefusalsAreToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.powerOn(node1, addr1)
		count := func() (n int) {
			tl, _ := w.boots.Current(node1)
			for _, s := range tl.Steps {
				if s.Stage == boot.Refused {
					n += s.Count
				}
			}
			return n
		}
		for range 100 {
			w.get(addr2, ask)
		}
		if n := count(); n != 1 {
			t.Errorf("%d refusals are recorded", n)
		}
		time.Sleep(time.Minute)
		w.get(addr2, ask)
		if n := count(); n != 2 {
			t.Errorf("%d refusals are recorded after a minute", n)
		}
	})
}

// A machine that has its address from bootd does not ask from a network where
// somebody else gives them: whoever does is another one.
func TestFromTheWrongNetwork(t *testing.T) {
	w := newWorld(t)
	w.powerOn(node1, addr1)
	w.network = &boot.Network{Mode: boot.Off, Subnet: segment.Subnet}
	leased := true
	w.handler.Leased = func(mac boot.MAC) bool { return leased && mac == node1 }
	if _, body := w.get(addr2, ask); ticketPattern.MatchString(body) || !strings.Contains(body, "an address from bootd on another network") {
		t.Errorf("a ticket:\n%s", body)
	}
	leased = false
	if _, body := w.get(addr2, ask); !ticketPattern.MatchString(body) {
		t.Errorf("no ticket where bootd gives no addresses:\n%s", body)
	}
}
