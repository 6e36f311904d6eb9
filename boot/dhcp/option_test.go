package dhcp_test

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"bootd/boot"
	"bootd/boot/dhcp"
)

// answered is what an answer says, decoded by somebody else's codec.
func answered(t *testing.T, p dhcp.Policy, b []byte) (dhcp.Answer, *dhcpv4.DHCPv4) {
	t.Helper()
	r, err := dhcp.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	a := p.Answer(r, eth1, time.Now())
	if a.Reply == nil {
		t.Fatal(a.Why)
	}
	m, err := dhcpv4.FromBytes(a.Reply)
	if err != nil {
		t.Fatal(err)
	}
	return a, m
}

// TestOptions is about what somebody configures beyond the usual: whoever asks
// for it gets it, what is for all goes to all, and a machine's own comes first.
func TestOptions(t *testing.T) {
	lab := network("lab", "eth1", "10.0.0.0/24", boot.Authoritative, span("10.0.0.100", "10.0.0.109"))
	lab.Options = []boot.Option{{Code: 101, Value: []byte("Europe/Vienna")}, {Code: 150, Value: []byte{10, 0, 0, 5}, Always: true}, {Code: 224, Value: []byte("net")}}
	p := policy(t, lab)
	p.Catalog().Machines[0].Options = []boot.Option{{Code: 224, Value: []byte("own")}}
	wants := func(codes ...byte) option { return generic(55, codes) }
	for _, tt := range []struct {
		name string
		from boot.MAC
		more []option
		want map[uint8]string
	}{
		{"who lists nothing gets all", mac(7), nil, map[uint8]string{101: "Europe/Vienna", 150: "\x0a\x00\x00\x05", 224: "net"}},
		{"who lists some gets those", mac(7), []option{wants(1, 101)}, map[uint8]string{101: "Europe/Vienna", 150: "\x0a\x00\x00\x05", 224: ""}},
		{"the machine's own", mac(1), []option{wants(1, 224)}, map[uint8]string{101: "", 224: "own"}},
		{"also firmware", mac(7), []option{class("PXEClient:Arch:00007:UNDI:003016"), arch(7), wants(1, 101)}, map[uint8]string{101: "Europe/Vienna", 224: ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, m := answered(t, p, request(discover, tt.from, tt.more...))
			for code, want := range tt.want {
				if got := string(m.Options[code]); got != want {
					t.Errorf("option %d is %q, want %q", code, got, want)
				}
			}
		})
	}
	// What does not fit is left out, and nothing that the client needs.
	p.Catalog().Networks[0].Options = nil
	for c := range uint8(10) {
		p.Catalog().Networks[0].Options = append(p.Catalog().Networks[0].Options, boot.Option{Code: 230 + c, Value: bytes.Repeat([]byte{c}, 200)})
	}
	a, m := answered(t, p, request(discover, mac(7), class("PXEClient:Arch:00007:UNDI:003016"), arch(7)))
	if len(a.Reply) > 576-28 || m.BootFileNameOption() == "" || m.Options[1] == nil {
		t.Errorf("%d bytes:\n%s", len(a.Reply), long(a.Reply))
	}
}

// TestWire is about several networks on one wire, behind a relay agent or not:
// who finds one full gets an address of another, and keeps it.
func TestWire(t *testing.T) {
	near := dhcp.Link{Interface: "eth1", Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("10.1.0.1/24")}}
	a := network("a", "eth1", "10.0.0.0/24", boot.Authoritative, span("10.0.0.100", "10.0.0.100"))
	b := network("b", "eth1", "10.1.0.0/24", boot.Authoritative, span("10.1.0.100", "10.1.0.109"))
	far := network("far", "eth1", "10.8.0.0/24", boot.Authoritative, span("10.8.0.100", "10.8.0.100"))
	more := network("more", "eth1", "10.9.0.0/24", boot.Authoritative, span("10.9.0.100", "10.9.0.109"))
	other := network("other", "eth1", "10.7.0.0/24", boot.Authoritative, span("10.7.0.100", "10.7.0.109"))
	far.Relayed, more.Relayed, other.Relayed = true, true, true
	far.Wire, more.Wire = "hall", "hall"
	const at8 = " at 02:00:00:00:00:08"
	play(t, policy(t, a, b, far, more, other), []step{
		{link: near, packet: request(discover, mac(7)), want: "OFFER 10.0.0.100 to 10.0.0.100:68" + at7},
		{link: near, packet: request(discover, mac(8)), want: "OFFER 10.1.0.100 to 10.1.0.100:68" + at8},
		{link: near, packet: request(ask, mac(8), asks("10.1.0.100"), chooses("10.1.0.1")), want: "ACK 10.1.0.100 to 10.1.0.100:68" + at8},
		{link: near, packet: request(discover, mac(8)), want: "OFFER 10.1.0.100 to 10.1.0.100:68" + at8},
		{link: near, packet: request(discover, mac(7), relay("10.8.0.1")), want: "OFFER 10.8.0.100 to 10.8.0.1:67"},
		{link: near, packet: request(discover, mac(9), relay("10.8.0.1")), want: "OFFER 10.9.0.100 to 10.8.0.1:67"},
		{link: near, packet: request(ask, mac(9), relay("10.8.0.1"), asks("10.9.0.100"), chooses("10.0.0.1")), want: "ACK 10.9.0.100 to 10.8.0.1:67"},
		{link: near, packet: request(ask, mac(9), relay("10.8.0.1"), asks("10.7.0.100"), chooses("10.0.0.1")),
			want: "NAK to 10.8.0.1:67: 10.7.0.100 is not on network far (10.8.0.0/24)"},
	})
}

// TestRelayAgent is about what a relay agent adds: which subnet the client is
// in, when its own address does not say (RFC 3527), and by which address clients
// are to know their server (RFC 5107).
func TestRelayAgent(t *testing.T) {
	link := []byte{5, 4, 10, 9, 0, 0}
	server := []byte{11, 4, 10, 9, 0, 1}
	p := policy(t)
	a, m := answered(t, p, request(discover, mac(7), relay("10.0.0.7"), generic(82, append(link, server...))))
	if got := short(a); got != "OFFER 10.9.0.100 to 10.0.0.7:67" {
		t.Error(got)
	}
	if id := m.ServerIdentifier(); !id.Equal(ip("10.9.0.1")) {
		t.Errorf("the server is %s", id)
	}
	if got := m.Options[82]; !bytes.Equal(got, append(link, server...)) {
		t.Errorf("the agent gets back %x", got)
	}
	a, _ = answered(t, p, request(ask, mac(7), relay("10.0.0.7"), generic(82, append(link, server...)), asks("10.9.0.100"), chooses("10.9.0.1")))
	if got := short(a); got != "ACK 10.9.0.100 to 10.0.0.7:67" {
		t.Error(got)
	}
	// The client chooses its subnet itself (RFC 3011).
	a, m = answered(t, p, request(discover, mac(8), relay("10.0.0.7"), generic(118, []byte{10, 9, 0, 0})))
	if got := short(a); got != "OFFER 10.9.0.101 to 10.0.0.7:67" || !bytes.Equal(m.Options[118], []byte{10, 9, 0, 0}) {
		t.Errorf("%s, option 118 %x", got, m.Options[118])
	}
}
