package dhcp_test

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"

	"bootd/boot"
	"bootd/boot/dhcp"
)

// besideDHCP is the network of the captures, with somebody else's addresses.
func besideDHCP(t testing.TB) (dhcp.Policy, dhcp.Link) {
	n := network("bridge", "br0", "10.77.0.0/24", boot.Proxy)
	p := policy(t, n)
	p.Leases = nil // what a proxy must not touch
	return p, dhcp.Link{Interface: "br0", Addrs: []netip.Prefix{netip.MustParsePrefix("10.77.0.1/24")}}
}

// What firmware sent in the captures, and what a proxy answers.
func TestFirmwareByProxy(t *testing.T) {
	for _, name := range captures(t) {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".pcap"), func(t *testing.T) {
			p, link := besideDHCP(t)
			var got strings.Builder
			for i, b := range capture(t, name) {
				if b[0] != byte(dhcpv4.OpcodeBootRequest) {
					continue
				}
				r, err := dhcp.Decode(b)
				if err != nil {
					t.Fatalf("packet %d: %v", i+1, err)
				}
				a := p.Answer(r, link, t0)
				fmt.Fprintf(&got, "packet %d: %s\nanswer %s (%s: %s)\n", i+1, rendered(r), short(a), a.Event.Stage, a.Event.Text)
				if a.Reply != nil {
					got.WriteString(long(a.Reply))
				}
				got.WriteByte('\n')
			}
			golden(t, strings.TrimSuffix(name, ".pcap")+".proxy.golden", got.String())
		})
	}
}

// A proxy answers who boots from the network, and nobody else; and it gives no
// address.
func TestProxy(t *testing.T) {
	const everyone = "OFFER to " + everybody
	ipxe := generic(77, []byte("iPXE"))
	for _, c := range []struct {
		name   string
		packet []byte
		want   string
		class  string // of the answer
		file   string
		vendor string
	}{
		{"BIOS", request(discover, mac(7), class("PXEClient:Arch:00000:UNDI:002001")), everyone, "PXEClient", "undionly.kpxe", "\x06\x01\x08\xff"},
		{"UEFI", request(discover, mac(7), class("PXEClient:Arch:00007:UNDI:003016")), everyone, "PXEClient", "snponly.efi", "\x06\x01\x08\xff"},
		{"UEFI HTTP boot", request(discover, mac(7), class("HTTPClient:Arch:00016:UNDI:003001")), everyone, "HTTPClient", "http://10.77.0.1/loader/snponly.efi", ""},
		{"iPXE", request(discover, mac(7), class("PXEClient:Arch:00000:UNDI:002001"), ipxe), everyone, "PXEClient", "http://10.77.0.1/boot.ipxe", ""},
		{"Raspberry Pi", request(discover, boot.MAC{0xdc, 0xa6, 0x32, 1, 2, 3}, class("PXEClient:Arch:00000:UNDI:002001"), arch(0)), everyone, "PXEClient", "",
			"\x06\x01\x08\x0a\x04\x00PXE\x09\x14\x00\x00\x11Raspberry Pi Boot\xff"},
		{"through a relay agent", request(discover, mac(7), class("PXEClient:Arch:00007"), relay("10.77.0.254")), "OFFER to 10.77.0.254:67", "PXEClient", "snponly.efi", "\x06\x01\x08\xff"},
		{"no loader", request(discover, mac(7), class("PXEClient:Arch:00012")), "nothing: architecture 12: no loader for this firmware; install the package ipxe", "", "", ""},
		{"system", request(discover, mac(7)), "nothing: its address is somebody else's to give, and it asks for nothing to boot", "", "", ""},
		{"dhclient", request(discover, mac(7), class("anaconda-Linux")), "nothing: its address is somebody else's to give, and it asks for nothing to boot", "", "", ""},
		{"initramfs", request(discover, mac(7), class("dracut")), "nothing: its address is somebody else's to give, and it asks for nothing to boot", "", "", ""},
		// It would take the offer for one with an address.
		{"U-Boot", request(discover, mac(7), class("U-Boot.armv8")), "nothing: its address is somebody else's to give, and it asks for nothing to boot", "", "", ""},
		{"takes the address", request(ask, mac(7), class("PXEClient:Arch:00007"), asks("10.77.0.50"), chooses("10.77.0.2")), "nothing: a REQUEST is for who gives the address", "", "", ""},
		{"returns", request(ask, mac(7), class("PXEClient:Arch:00007"), asks("10.0.0.50")), "nothing: a REQUEST is for who gives the address", "", "", ""},
		{"gives it back", request(release, mac(7), class("PXEClient:Arch:00007"), has("10.77.0.50")), "nothing: a RELEASE is for who gives the address", "", "", ""},
		{"declines it", request(decline, mac(7), class("PXEClient:Arch:00007"), asks("10.77.0.50")), "nothing: a DECLINE is for who gives the address", "", "", ""},
		{"informs", request(inform, mac(7), class("PXEClient:Arch:00007"), has("10.77.0.50")), "nothing: a INFORM is for who gives the address", "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, link := besideDHCP(t)
			r, err := dhcp.Decode(c.packet)
			if err != nil {
				t.Fatal(err)
			}
			a := p.Answer(r, link, t0)
			if diff := cmp.Diff(c.want, short(a)); diff != "" {
				t.Fatalf("(-want +got):\n%s", diff)
			}
			if a.Reply == nil {
				return
			}
			m, err := dhcpv4.FromBytes(a.Reply)
			if err != nil {
				t.Fatal(err)
			}
			got := []string{m.ClassIdentifier(), m.BootFileNameOption(), m.BootFileName, string(m.Options.Get(dhcpv4.OptionVendorSpecificInformation)),
				m.YourIPAddr.String(), m.ServerIPAddr.String(), m.ServerIdentifier().String()}
			if diff := cmp.Diff([]string{c.class, c.file, c.file, c.vendor, "0.0.0.0", "10.77.0.1", "10.77.0.1"}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for _, code := range []uint8{1, 3, 6, 12, 51, 58, 59} { // what only who gives the address may say
				if _, ok := m.Options[code]; ok {
					t.Errorf("the answer has option %d:\n%s", code, long(a.Reply))
				}
			}
			if a.Event.Stage != boot.Offered || a.Event.Addr.IsValid() || a.Durable {
				t.Errorf("event %+v, durable %t", a.Event, a.Durable)
			}
		})
	}
}

// Firmware may ask for its boot file on port 4011, with the address that it
// has got, in either mode.
func TestBootPort(t *testing.T) {
	pxe := class("PXEClient:Arch:00007:UNDI:003016")
	for _, c := range []struct {
		name   string
		packet []byte
		from   string
		want   string
	}{
		{"request", request(ask, mac(7), pxe, has("10.0.0.77")), "10.0.0.77:68", "ACK to 10.0.0.77:68"},
		{"from another port", request(ask, mac(7), pxe, has("10.0.0.77")), "10.0.0.77:4011", "ACK to 10.0.0.77:4011"},
		{"with the other server's identifier", request(ask, mac(7), pxe, chooses("10.0.0.9"), asks("10.0.0.77")), "10.0.0.77:68", "ACK to 10.0.0.77:68"},
		{"inform", request(inform, mac(7), pxe, has("10.0.0.77")), "10.0.0.77:68", "ACK to 10.0.0.77:68"},
		{"without an address yet", request(ask, mac(7), pxe, has("10.0.0.77")), "0.0.0.0:68", "ACK to 10.0.0.77:68"},
		{"through a relay agent's network", request(ask, mac(7), pxe, has("10.9.0.77")), "10.9.0.77:68", "ACK to 10.9.0.77:68"},
		{"from nowhere", request(ask, mac(7), pxe), "0.0.0.0:68", "nothing: asks the boot server from outside network lab"},
		{"from outside", request(ask, mac(7), pxe, has("192.0.2.1")), "192.0.2.1:68", "nothing: asks the boot server from outside network lab"},
		{"discover", request(discover, mac(7), pxe), "10.0.0.77:68", "nothing: a DISCOVER is not for the boot server"},
		{"system", request(ask, mac(7), has("10.0.0.77")), "10.0.0.77:68", "nothing: asks the boot server, and boots nothing from the network"},
		{"no loader", request(ask, mac(7), class("PXEClient:Arch:00012")), "10.0.0.77:68", "nothing: architecture 12: no loader for this firmware; install the package ipxe"},
	} {
		for _, mode := range []boot.Mode{boot.Authoritative, boot.Proxy, boot.Off} {
			t.Run(c.name+", "+string(mode), func(t *testing.T) {
				p := policy(t, network("far", "eth1", "10.9.0.0/24", mode), network("lab", "eth1", "10.0.0.0/24", mode))
				p.Leases = nil
				r, err := dhcp.Decode(c.packet)
				if err != nil {
					t.Fatal(err)
				}
				r.BootPort, r.From = true, netip.MustParseAddrPort(c.from)
				a := p.Answer(r, eth1, t0)
				want := c.want
				if mode == boot.Off {
					want = "nothing: network " + p.Catalog().NetworkOf(addrOr(r.From.Addr(), "10.0.0.1")).Name + " is off"
				}
				if diff := cmp.Diff(want, short(a)); diff != "" {
					t.Fatalf("(-want +got):\n%s", diff)
				}
				if a.Reply == nil {
					return
				}
				m, err := dhcpv4.FromBytes(a.Reply)
				if err != nil {
					t.Fatal(err)
				}
				if m.BootFileNameOption() != "snponly.efi" || m.ClassIdentifier() != "PXEClient" || !m.YourIPAddr.IsUnspecified() || m.ClientIPAddr.String() != a.To.Addr().String() {
					t.Errorf("%s", long(a.Reply))
				}
			})
		}
	}
}

// addrOr is a, if it is in one of the test's networks.
func addrOr(a netip.Addr, other string) netip.Addr {
	if strings.HasPrefix(a.String(), "10.") {
		return a
	}
	return addr(other)
}

// A server listens on both ports of a proxied network.
func TestProxyServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, network("lab", "eth1", "10.0.0.0/24", boot.Proxy))
		p.Leases = nil
		r := start(t, p, onlyEth1, func(w *wire) { w.from = netip.MustParseAddrPort("10.0.0.77:68") })
		pxe := class("PXEClient:Arch:00007:UNDI:003016")
		r.wire("eth1").in <- request(discover, mac(7), pxe)
		r.wire("eth1").in <- request(discover, mac(8))
		r.wire("eth1:4011").in <- request(ask, mac(7), pxe, has("10.0.0.77"))
		synctest.Wait()
		for iface, want := range map[string][]string{"eth1": {"OFFER to " + everybody}, "eth1:4011": {"ACK to 10.0.0.77:68"}} {
			if diff := cmp.Diff(want, r.wire(iface).heard()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", iface, diff)
			}
		}
		if diff := cmp.Diff([]boot.Stage{boot.Offered, boot.Offered}, r.happened()); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}
