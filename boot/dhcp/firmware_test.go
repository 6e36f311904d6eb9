package dhcp_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"

	"bootd/boot"
	"bootd/boot/dhcp"
)

// capture reads the UDP payloads of a classic little-endian pcap file of an
// Ethernet with IPv4.
func capture(t testing.TB, name string) [][]byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) < 24 || binary.LittleEndian.Uint32(b) != 0xa1b2c3d4 || binary.LittleEndian.Uint32(b[20:]) != 1 {
		t.Fatalf("%s is no pcap file of an Ethernet", name)
	}
	var out [][]byte
	for b = b[24:]; len(b) >= 16; {
		n := binary.LittleEndian.Uint32(b[8:])
		frame := b[16 : 16+n]
		b = b[16+n:]
		if len(frame) < 34 || binary.BigEndian.Uint16(frame[12:]) != 0x0800 || frame[23] != 17 {
			continue
		}
		udp := frame[14+4*int(frame[14]&15):]
		out = append(out, udp[8:binary.BigEndian.Uint16(udp[4:])])
	}
	return out
}

func captures(t testing.TB) []string {
	t.Helper()
	names, err := filepath.Glob("testdata/*.pcap")
	if err != nil || len(names) == 0 {
		t.Fatalf("no captures in testdata: %v", err)
	}
	return names
}

// bridge is the network on which the captures were made.
func bridge(t testing.TB) (dhcp.Policy, dhcp.Link) {
	n := network("bridge", "br0", "10.77.0.0/24", boot.Authoritative, span("10.77.0.100", "10.77.0.200"))
	return policy(t, n), dhcp.Link{Interface: "br0", Addrs: []netip.Prefix{netip.MustParsePrefix("10.77.0.1/24")}}
}

func rendered(r dhcp.Request) string {
	return fmt.Sprintf("%s mac %s client %s class %q HTTP %t arch %s (known %t)\nuuid %s host %q asked %s server %s has %s relay %s broadcast %t\n",
		r.Type, r.MAC, r.Client, r.Class, r.ROM == boot.HTTPBoot, r.Arch, r.ArchKnown, r.UUID, r.Host, r.Asked, r.Server, r.Has, r.Relay, r.Broadcast)
}

// What firmware sent in the captures, and what it is answered.
func TestFirmware(t *testing.T) {
	for _, name := range captures(t) {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".pcap"), func(t *testing.T) {
			p, link := bridge(t)
			var got strings.Builder
			for i, b := range capture(t, name) {
				if b[0] != byte(dhcpv4.OpcodeBootRequest) {
					continue
				}
				r, err := dhcp.Decode(b)
				if err != nil {
					t.Fatalf("packet %d: %v", i+1, err)
				}
				a := p.Answer(r, link, t0.Add(time.Duration(i)*time.Second))
				fmt.Fprintf(&got, "packet %d: %s\nanswer %s (durable %t, %s: %s)\n%s\n",
					i+1, rendered(r), short(a), a.Durable, a.Event.Stage, a.Event.Text, long(a.Reply))
			}
			golden(t, strings.TrimSuffix(name, ".pcap")+".golden", got.String())
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; -update rewrites it):\n%s", name, diff)
	}
}

// The firmware in the captures accepted another server's answers and booted.
// What it had to understand for that, it finds in ours too.
func TestFirmwareAsOtherServer(t *testing.T) {
	compared := 0
	for _, name := range captures(t) {
		p, link := bridge(t)
		asked := map[dhcpv4.TransactionID][]byte{}
		for i, b := range capture(t, name) {
			theirs, err := dhcpv4.FromBytes(b)
			if err != nil {
				t.Fatal(err)
			}
			if theirs.OpCode == dhcpv4.OpcodeBootRequest {
				asked[theirs.TransactionID] = b
				continue
			}
			r, err := dhcp.Decode(asked[theirs.TransactionID])
			if err != nil {
				t.Fatalf("%s: packet %d answers nothing: %v", name, i+1, err)
			}
			a := p.Answer(r, link, t0)
			ours, err := dhcpv4.FromBytes(a.Reply)
			if err != nil {
				t.Fatalf("%s: packet %d: %v; %s", name, i+1, err, a.Why)
			}
			compared++
			if diff := cmp.Diff(essence(theirs), essence(ours)); diff != "" {
				t.Errorf("%s: packet %d (-theirs +ours):\n%s", name, i+1, diff)
			}
			if r.Client == boot.Firmware && r.ROM != boot.HTTPBoot {
				direct := ours.ClassIdentifier() == "PXEClient" && bytes.HasPrefix(ours.Options.Get(dhcpv4.OptionVendorSpecificInformation), []byte{6, 1, 8})
				if !direct {
					t.Errorf("%s: packet %d: EDK2 would ask port 4011 for the boot file:\n%s", name, i+1, long(a.Reply))
				}
			}
		}
	}
	if compared < 20 {
		t.Errorf("compared only %d answers", compared)
	}
}

// essence is what two servers must agree on for the same client: not which
// address it gets nor for how long, but how it goes on.
func essence(m *dhcpv4.DHCPv4) map[string]string {
	e := map[string]string{
		"type":   m.MessageType().String(),
		"flags":  fmt.Sprint(m.Flags),
		"siaddr": m.ServerIPAddr.String(),
		"server": m.ServerIdentifier().String(),
		"mask":   net.IP(m.SubnetMask()).String(),
		"class":  m.ClassIdentifier(),
	}
	// Boot files differ in the loader's name and place, not in how they are
	// fetched.
	file := m.BootFileNameOption()
	switch {
	case strings.HasSuffix(file, "/boot.ipxe"):
		e["file"] = file
	case strings.HasPrefix(file, "http://10.77.0.1/"):
		e["file"] = "a loader by HTTP"
	case strings.HasSuffix(file, ".efi") || strings.HasSuffix(file, ".kpxe"):
		e["file"] = "a loader by TFTP"
	default:
		e["file"] = "unexpected: " + file
	}
	if m.ClassIdentifier() == "PXEClient" {
		delete(e, "class") // checked with option 43
	} else if m.ClassIdentifier() == "" && e["file"] == "a loader by TFTP" {
		delete(e, "class")
	}
	// The other server was not always set up to keep iPXE from waiting.
	if v := m.Options.Get(dhcpv4.GenericOptionCode(175)); v != nil && !bytes.HasPrefix(v, []byte{176, 1, 1}) {
		e["iPXE"] = fmt.Sprintf("%x", v)
	}
	return e
}
