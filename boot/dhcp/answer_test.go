package dhcp_test

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"

	"bootd/boot"
	"bootd/boot/dhcp"
)

const (
	discover = dhcpv4.MessageTypeDiscover
	ask      = dhcpv4.MessageTypeRequest
	decline  = dhcpv4.MessageTypeDecline
	release  = dhcpv4.MessageTypeRelease
	inform   = dhcpv4.MessageTypeInform
)

// A step is a packet and the answer it is to get.
type step struct {
	after  time.Duration // since the step before
	packet []byte
	want   string
	link   dhcp.Link // zero: eth1
}

func play(t *testing.T, p dhcp.Policy, steps []step) dhcp.Answer {
	t.Helper()
	now := t0
	var last dhcp.Answer
	for i, s := range steps {
		now = now.Add(s.after)
		r, err := dhcp.Decode(s.packet)
		if err != nil {
			t.Fatalf("step %d: %v", i+1, err)
		}
		link := s.link
		if link.Interface == "" {
			link = eth1
		}
		last = p.Answer(r, link, now)
		if diff := cmp.Diff(s.want, short(last)); diff != "" {
			t.Errorf("step %d (-want +got):\n%s", i+1, diff)
		}
	}
	return last
}

// have is the packets after which a machine has an address.
func have(n int, a string) step {
	return step{packet: request(ask, mac(n), asks(a)), want: "ACK " + a + " to " + a + ":68 at " + mac(n).String()}
}

const (
	everybody = "255.255.255.255:68"
	at7       = " at 02:00:00:00:00:07"
	at8       = " at 02:00:00:00:00:08"
	offer100  = "OFFER 10.0.0.100 to 10.0.0.100:68 at 02:00:00:00:00:07"
	ack100    = "ACK 10.0.0.100 to 10.0.0.100:68 at 02:00:00:00:00:07"
)

// The pool of lab is .100, .102 and .103: .101 is reserved.
func TestDiscover(t *testing.T) {
	for name, steps := range map[string][]step{
		"new":                         {{packet: request(discover, mac(7)), want: offer100}},
		"asks twice":                  {{packet: request(discover, mac(7)), want: offer100}, {packet: request(discover, mac(7)), want: offer100}},
		"asks for a free one":         {{packet: request(discover, mac(7), asks("10.0.0.103")), want: "OFFER 10.0.0.103 to 10.0.0.103:68" + at7}},
		"asks for a foreign one":      {{packet: request(discover, mac(7), asks("192.168.1.5")), want: offer100}},
		"asks for a reserved one":     {{packet: request(discover, mac(7), asks("10.0.0.101")), want: offer100}},
		"asks for the server's":       {{packet: request(discover, mac(7), asks("10.0.0.1")), want: offer100}},
		"asks for another's":          {have(8, "10.0.0.102"), {packet: request(discover, mac(7), asks("10.0.0.102")), want: offer100}},
		"has a lease":                 {have(7, "10.0.0.103"), {packet: request(discover, mac(7)), want: "OFFER 10.0.0.103 to 10.0.0.103:68" + at7}},
		"had a lease":                 {have(7, "10.0.0.103"), {after: 48 * time.Hour, packet: request(discover, mac(7)), want: "OFFER 10.0.0.103 to 10.0.0.103:68" + at7}},
		"reserved":                    {{packet: request(discover, mac(1)), want: "OFFER 10.0.0.50 to 10.0.0.50:68 at 02:00:00:00:00:01"}},
		"reserved, asks for another":  {{packet: request(discover, mac(1), asks("10.0.0.100")), want: "OFFER 10.0.0.50 to 10.0.0.50:68 at 02:00:00:00:00:01"}},
		"entry without an address":    {{packet: request(discover, mac(2)), want: "OFFER 10.0.0.100 to 10.0.0.100:68 at 02:00:00:00:00:02"}},
		"second card of an entry":     {{packet: request(discover, mac(3)), want: "OFFER 10.0.0.101 to 10.0.0.101:68 at 02:00:00:00:00:03"}, {packet: request(discover, mac(4)), want: "OFFER 10.0.0.100 to 10.0.0.100:68 at 02:00:00:00:00:04"}},
		"wants a broadcast":           {{packet: request(discover, mac(7), broadcast), want: "OFFER 10.0.0.100 to " + everybody}},
		"offers are held":             {{packet: request(discover, mac(7)), want: offer100}, {after: 119 * time.Second, packet: request(discover, mac(8), asks("10.0.0.100")), want: "OFFER 10.0.0.102 to 10.0.0.102:68" + at8}},
		"offers are not held forever": {{packet: request(discover, mac(7)), want: offer100}, {after: 121 * time.Second, packet: request(discover, mac(8), asks("10.0.0.100")), want: "OFFER 10.0.0.100 to 10.0.0.100:68" + at8}},
		"exhausted": {have(7, "10.0.0.100"), have(8, "10.0.0.102"), {packet: request(discover, mac(9)), want: "OFFER 10.0.0.103 to 10.0.0.103:68 at 02:00:00:00:00:09"},
			{packet: request(discover, mac(10)), want: "nothing: no address is free on network lab: 2 are leased, 1 offered, 0 declined; make its range larger"},
			{packet: request(discover, mac(1)), want: "OFFER 10.0.0.50 to 10.0.0.50:68 at 02:00:00:00:00:01"},
			{after: 3 * time.Minute, packet: request(discover, mac(10)), want: "OFFER 10.0.0.103 to 10.0.0.103:68 at 02:00:00:00:00:0a"}},
	} {
		t.Run(name, func(t *testing.T) { play(t, policy(t), steps) })
	}
}

// The states of RFC 2131 section 4.3.2.
func TestRequest(t *testing.T) {
	offered := step{packet: request(discover, mac(7)), want: offer100}
	for name, steps := range map[string][]step{
		"selecting":                     {offered, {packet: request(ask, mac(7), asks("10.0.0.100"), chooses("10.0.0.1")), want: ack100}},
		"selecting, by ciaddr":          {offered, {packet: request(ask, mac(7), has("10.0.0.100"), chooses("10.0.0.1")), want: "ACK 10.0.0.100 to 10.0.0.100:68"}},
		"selecting, broadcast":          {offered, {packet: request(ask, mac(7), asks("10.0.0.100"), chooses("10.0.0.1"), broadcast), want: "ACK 10.0.0.100 to " + everybody}},
		"selecting, other":              {offered, {packet: request(ask, mac(7), asks("10.0.0.100"), chooses("10.0.0.9")), want: "nothing: chose the server 10.0.0.9"}},
		"selecting, other's net":        {offered, {packet: request(ask, mac(7), asks("192.168.1.5"), chooses("192.168.1.1")), want: "nothing: chose the server 192.168.1.1"}},
		"selecting, forgotten":          {{packet: request(ask, mac(7), asks("10.0.0.102"), chooses("10.0.0.1")), want: "ACK 10.0.0.102 to 10.0.0.102:68" + at7}},
		"selecting, taken":              {have(8, "10.0.0.100"), {packet: request(ask, mac(7), asks("10.0.0.100"), chooses("10.0.0.1")), want: "NAK to " + everybody + ": 10.0.0.100 belongs to another machine"}},
		"selecting, offered to another": {offered, {packet: request(ask, mac(8), asks("10.0.0.100"), chooses("10.0.0.1")), want: "NAK to " + everybody + ": 10.0.0.100 belongs to another machine"}},
		"selecting, other than offered": {offered, {packet: request(ask, mac(7), asks("10.0.0.103"), chooses("10.0.0.1")), want: "ACK 10.0.0.103 to 10.0.0.103:68" + at7}},
		"selecting nothing":             {offered, {packet: request(ask, mac(7), chooses("10.0.0.1")), want: "nothing: asks for no address"}},

		"init-reboot":                       {have(7, "10.0.0.102"), {after: time.Hour, packet: request(ask, mac(7), asks("10.0.0.102")), want: "ACK 10.0.0.102 to 10.0.0.102:68" + at7}},
		"init-reboot, unknown":              {{packet: request(ask, mac(7), asks("10.0.0.102")), want: "ACK 10.0.0.102 to 10.0.0.102:68" + at7}},
		"init-reboot, expired":              {have(7, "10.0.0.102"), {after: 24 * time.Hour, packet: request(ask, mac(7), asks("10.0.0.102")), want: "ACK 10.0.0.102 to 10.0.0.102:68" + at7}},
		"init-reboot, wrong net":            {{packet: request(ask, mac(7), asks("192.168.1.5")), want: "NAK to " + everybody + ": 192.168.1.5 is not on network lab (10.0.0.0/24)"}},
		"init-reboot, relayed net":          {{packet: request(ask, mac(7), asks("10.9.0.100")), want: "NAK to " + everybody + ": 10.9.0.100 is not on network lab (10.0.0.0/24)"}},
		"init-reboot, out of range":         {{packet: request(ask, mac(7), asks("10.0.0.7")), want: "NAK to " + everybody + ": 10.0.0.7 is not an address that this machine can have"}},
		"init-reboot, another's":            {have(8, "10.0.0.102"), {packet: request(ask, mac(7), asks("10.0.0.102")), want: "NAK to " + everybody + ": 10.0.0.102 belongs to another machine"}},
		"init-reboot, reserved for another": {{packet: request(ask, mac(7), asks("10.0.0.50")), want: "NAK to " + everybody + ": 10.0.0.50 is not an address that this machine can have"}},

		"renewing":             {have(7, "10.0.0.102"), {after: 6 * time.Hour, packet: request(ask, mac(7), has("10.0.0.102")), want: "ACK 10.0.0.102 to 10.0.0.102:68"}},
		"rebinding":            {have(7, "10.0.0.102"), {after: 11 * time.Hour, packet: request(ask, mac(7), has("10.0.0.102"), broadcast), want: "ACK 10.0.0.102 to 10.0.0.102:68"}},
		"renewing, unknown":    {{packet: request(ask, mac(7), has("10.0.0.102")), want: "ACK 10.0.0.102 to 10.0.0.102:68"}},
		"renewing, lost":       {have(7, "10.0.0.102"), {after: 24 * time.Hour, packet: request(ask, mac(8), asks("10.0.0.102")), want: "ACK 10.0.0.102 to 10.0.0.102:68" + at8}, {packet: request(ask, mac(7), has("10.0.0.102")), want: "NAK to " + everybody + ": 10.0.0.102 belongs to another machine"}},
		"rebinding, wrong net": {{packet: request(ask, mac(7), has("192.168.1.5")), want: "NAK to " + everybody + ": 192.168.1.5 is not on network lab (10.0.0.0/24)"}},
		"renewing nothing":     {{packet: request(ask, mac(7)), want: "nothing: asks for no address"}},
	} {
		t.Run(name, func(t *testing.T) { play(t, policy(t), steps) })
	}
}

func TestDeclineReleaseInform(t *testing.T) {
	for name, steps := range map[string][]step{
		"decline": {have(7, "10.0.0.100"),
			{packet: request(decline, mac(7), asks("10.0.0.100"), chooses("10.0.0.1")), want: "nothing: found 10.0.0.100 in use by another machine; it is left alone for 1h0m0s"},
			{packet: request(discover, mac(7)), want: "OFFER 10.0.0.102 to 10.0.0.102:68" + at7},
			{packet: request(ask, mac(7), asks("10.0.0.100")), want: "NAK to " + everybody + ": 10.0.0.100 belongs to another machine"},
			{after: 59 * time.Minute, packet: request(discover, mac(8), asks("10.0.0.100")), want: "OFFER 10.0.0.103 to 10.0.0.103:68" + at8},
			{after: 2 * time.Minute, packet: request(discover, mac(9), asks("10.0.0.100")), want: "OFFER 10.0.0.100 to 10.0.0.100:68 at 02:00:00:00:00:09"}},
		"decline of another server's":  {have(7, "10.0.0.100"), {packet: request(decline, mac(7), asks("10.0.0.100"), chooses("10.0.0.9")), want: "nothing: declines an address of the server 10.0.0.9"}, {packet: request(discover, mac(7)), want: offer100}},
		"decline of another machine's": {have(7, "10.0.0.100"), {packet: request(decline, mac(8), asks("10.0.0.100"), chooses("10.0.0.1")), want: "nothing: declines 10.0.0.100, which it was not given"}, {packet: request(discover, mac(7)), want: offer100}},
		"decline of nothing":           {{packet: request(decline, mac(8), chooses("10.0.0.1")), want: "nothing: declines no address"}},
		"decline of the reserved": {{packet: request(discover, mac(1)), want: "OFFER 10.0.0.50 to 10.0.0.50:68 at 02:00:00:00:00:01"},
			{packet: request(decline, mac(1), asks("10.0.0.50"), chooses("10.0.0.1")), want: "nothing: found 10.0.0.50 in use by another machine; it is left alone for 1h0m0s"},
			{packet: request(discover, mac(1)), want: "OFFER 10.0.0.100 to 10.0.0.100:68 at 02:00:00:00:00:01"},
			{after: time.Hour, packet: request(discover, mac(1)), want: "OFFER 10.0.0.50 to 10.0.0.50:68 at 02:00:00:00:00:01"}},
		"release keeps the address": {have(7, "10.0.0.103"),
			{packet: request(release, mac(7), has("10.0.0.103"), chooses("10.0.0.1")), want: "nothing: released 10.0.0.103"},
			{packet: request(discover, mac(8)), want: "OFFER 10.0.0.100 to 10.0.0.100:68" + at8},
			{packet: request(discover, mac(7)), want: "OFFER 10.0.0.103 to 10.0.0.103:68" + at7}},
		"release frees the address":    {have(7, "10.0.0.103"), {packet: request(release, mac(7), has("10.0.0.103")), want: "nothing: released 10.0.0.103"}, have(8, "10.0.0.103")},
		"release of another machine's": {have(7, "10.0.0.103"), {packet: request(release, mac(8), has("10.0.0.103")), want: "nothing: releases 10.0.0.103, which it does not have"}, {packet: request(discover, mac(8), asks("10.0.0.103")), want: "OFFER 10.0.0.100 to 10.0.0.100:68" + at8}},
		"release to another server":    {have(7, "10.0.0.103"), {packet: request(release, mac(7), has("10.0.0.103"), chooses("10.0.0.9")), want: "nothing: releases an address of the server 10.0.0.9"}},
		"release of nothing":           {{packet: request(release, mac(7)), want: "nothing: releases no address"}},
		"inform":                       {{packet: request(inform, mac(7), has("10.0.0.7")), want: "ACK to 10.0.0.7:68"}},
		"inform without an address":    {{packet: request(inform, mac(7)), want: "nothing: informs without an address"}},
		"an offer is no request":       {{packet: request(dhcpv4.MessageTypeOffer, mac(7)), want: "nothing: a OFFER needs no answer"}},
	} {
		t.Run(name, func(t *testing.T) { play(t, policy(t), steps) })
	}
}

// relayInfo is option 82 as an agent adds it: circuit 1, remote 2, and, if
// given, the subnet (RFC 3527).
func relayInfo(link string) option {
	b := []byte{1, 2, 'g', '1', 2, 1, 'r'}
	if link != "" {
		b = append(append(b, 5, 4), ip(link)...)
	}
	return generic(82, b)
}

func TestRelay(t *testing.T) {
	eth2 := dhcp.Link{Interface: "eth2", Addrs: []netip.Prefix{netip.MustParsePrefix("10.2.0.1/24")}}
	eth3 := dhcp.Link{Interface: "eth3", Addrs: []netip.Prefix{netip.MustParsePrefix("10.3.0.1/24")}}
	bare := dhcp.Link{Interface: "eth1"}
	for name, steps := range map[string][]step{
		"discover":           {{packet: request(discover, mac(7), relay("10.9.0.254")), want: "OFFER 10.9.0.100 to 10.9.0.254:67"}},
		"selecting":          {{packet: request(ask, mac(7), relay("10.9.0.254"), asks("10.9.0.100"), chooses("10.0.0.1")), want: "ACK 10.9.0.100 to 10.9.0.254:67"}},
		"subnet named":       {{packet: request(discover, mac(7), relay("172.16.0.1"), relayInfo("10.9.0.0")), want: "OFFER 10.9.0.100 to 172.16.0.1:67"}},
		"subnet unknown":     {{packet: request(discover, mac(7), relay("172.16.0.1"), relayInfo("")), want: "nothing: relayed from 172.16.0.1, which lies in none of the networks"}},
		"subnet, no relay":   {{packet: request(discover, mac(7), relayInfo("10.9.0.0")), want: offer100}},
		"wrong net":          {{packet: request(ask, mac(7), relay("10.9.0.254"), asks("10.0.0.100")), want: "NAK to 10.9.0.254:67: 10.0.0.100 is not on network far (10.9.0.0/24)"}},
		"reserved elsewhere": {{packet: request(discover, mac(1), relay("10.9.0.254")), want: "OFFER 10.9.0.100 to 10.9.0.254:67"}},
		"renews without the agent": {{packet: request(ask, mac(7), relay("10.9.0.254"), asks("10.9.0.102")), want: "ACK 10.9.0.102 to 10.9.0.254:67"},
			{after: 6 * time.Hour, packet: request(ask, mac(7), has("10.9.0.102")), want: "ACK 10.9.0.102 to 10.9.0.102:68"},
			{packet: request(release, mac(7), has("10.9.0.102"), chooses("10.0.0.1")), want: "nothing: released 10.9.0.102"}},
		"renews through the agent": {{packet: request(ask, mac(7), relay("10.9.0.254"), has("10.9.0.102")), want: "ACK 10.9.0.102 to 10.9.0.254:67"}},

		"proxy":              {{packet: request(discover, mac(7)), link: eth2, want: "nothing: its address is somebody else's to give, and it asks for nothing to boot"}},
		"off":                {{packet: request(discover, mac(7)), link: eth3, want: "nothing: network office is off"}},
		"no network":         {{packet: request(discover, mac(7)), link: dhcp.Link{Interface: "eth9", Addrs: eth1.Addrs}, want: "nothing: interface eth9 has no address in any of its networks"}},
		"no address":         {{packet: request(discover, mac(7)), link: bare, want: "nothing: interface eth1 has no address in any of its networks"}},
		"no address, relay":  {{packet: request(discover, mac(7), relay("10.9.0.254")), link: bare, want: "nothing: interface eth1 has no IPv4 address"}},
		"off, but relayed":   {{packet: request(discover, mac(7), relay("10.9.0.254")), link: eth3, want: "OFFER 10.9.0.100 to 10.9.0.254:67"}},
		"authoritative, off": {{packet: request(discover, mac(7), relay("10.3.0.254")), want: "nothing: network office is off"}},
	} {
		t.Run(name, func(t *testing.T) { play(t, policy(t), steps) })
	}
}

// Two networks on one wire: a client keeps the one that it is in.
func TestNetworksOnOneWire(t *testing.T) {
	link := dhcp.Link{Interface: "eth1", Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("10.1.0.1/24")}}
	p := policy(t, network("a", "eth1", "10.0.0.0/24", boot.Authoritative, span("10.0.0.100", "10.0.0.109")),
		network("b", "eth1", "10.1.0.0/24", boot.Authoritative, span("10.1.0.100", "10.1.0.109")))
	play(t, p, []step{
		{link: link, packet: request(discover, mac(7)), want: offer100},
		{link: link, packet: request(ask, mac(8), asks("10.1.0.100")), want: "ACK 10.1.0.100 to 10.1.0.100:68" + at8},
		{link: link, packet: request(ask, mac(8), has("10.1.0.100")), want: "ACK 10.1.0.100 to 10.1.0.100:68"},
		{link: link, packet: request(ask, mac(9), asks("10.1.0.101"), chooses("10.1.0.1")), want: "ACK 10.1.0.101 to 10.1.0.101:68 at 02:00:00:00:00:09"},
	})
}

func reply(t *testing.T, p dhcp.Policy, packet []byte) *dhcpv4.DHCPv4 {
	t.Helper()
	r, err := dhcp.Decode(packet)
	if err != nil {
		t.Fatal(err)
	}
	a := p.Answer(r, eth1, t0)
	m, err := dhcpv4.FromBytes(a.Reply)
	if err != nil {
		t.Fatalf("%v; %s", err, a.Why)
	}
	return m
}

func TestRelayEcho(t *testing.T) {
	for _, kind := range []dhcpv4.MessageType{discover, ask} {
		for _, a := range []string{"10.9.0.100", "10.0.0.100"} { // the second is refused by ask
			m := reply(t, policy(t), request(kind, mac(7), relay("10.9.0.254"), relayInfo("10.9.0.0"), asks(a)))
			want := append([]byte{1, 2, 'g', '1', 2, 1, 'r', 5, 4}, ip("10.9.0.0")...)
			if diff := cmp.Diff(want, m.Options.Get(dhcpv4.OptionRelayAgentInformation)); diff != "" {
				t.Errorf("%s: option 82 (-want +got):\n%s", m.MessageType(), diff)
			}
			if !m.GatewayIPAddr.Equal(ip("10.9.0.254")) {
				t.Errorf("%s: giaddr is %s", m.MessageType(), m.GatewayIPAddr)
			}
			if nak := m.MessageType() == dhcpv4.MessageTypeNak; m.IsBroadcast() != nak {
				t.Errorf("%s: broadcast is %t; the agent is to broadcast refusals", m.MessageType(), m.IsBroadcast())
			}
		}
	}
}

func TestLeaseTimes(t *testing.T) {
	ipxe := generic(77, []byte("iPXE"))
	for _, c := range []struct {
		name                   string
		options                []option
		lease, renewal, rebind time.Duration
	}{
		{"system", nil, 12 * time.Hour, 6 * time.Hour, 10*time.Hour + 30*time.Minute},
		{"initramfs", []option{class("dracut-network")}, 12 * time.Hour, 6 * time.Hour, 10*time.Hour + 30*time.Minute},
		{"firmware", []option{class("PXEClient:Arch:00007:UNDI:003000")}, 10 * time.Minute, 0, 0},
		{"HTTP firmware", []option{class("HTTPClient:Arch:00016:UNDI:003000")}, 10 * time.Minute, 0, 0},
		{"iPXE", []option{ipxe, class("PXEClient:Arch:00007:UNDI:003000")}, 10 * time.Minute, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, kind := range []dhcpv4.MessageType{discover, ask} {
				m := reply(t, policy(t), request(kind, mac(7), append(c.options, asks("10.0.0.100"))...))
				got := []time.Duration{m.IPAddressLeaseTime(0), m.IPAddressRenewalTime(0), m.IPAddressRebindingTime(0)}
				if diff := cmp.Diff([]time.Duration{c.lease, c.renewal, c.rebind}, got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", kind, diff)
				}
			}
		})
	}
	m := reply(t, policy(t), request(inform, mac(7), has("10.0.0.7")))
	if m.Options.Has(dhcpv4.OptionIPAddressLeaseTime) || !m.YourIPAddr.IsUnspecified() || !m.ClientIPAddr.Equal(ip("10.0.0.7")) {
		t.Errorf("answer to INFORM gives an address or a lease:\n%s", m.Summary())
	}
}

func TestHostName(t *testing.T) {
	wants := func(codes ...dhcpv4.OptionCode) option { return dhcpv4.WithRequestedOptions(codes...) }
	for _, c := range []struct {
		name    string
		from    int
		options []option
		want    string
	}{
		{"entry", 1, nil, "node1"},
		{"entry, wants it", 2, []option{wants(dhcpv4.OptionHostName)}, "node2"},
		{"entry, wants others", 2, []option{wants(dhcpv4.OptionRouter)}, ""},
		{"unknown machine", 7, []option{wants(dhcpv4.OptionHostName)}, ""},
	} {
		if got := reply(t, policy(t), request(discover, mac(c.from), c.options...)).HostName(); got != c.want {
			t.Errorf("%s: host name %q, want %q", c.name, got, c.want)
		}
	}
	p := policy(t)
	reply(t, p, request(ask, mac(7), asks("10.0.0.100"), generic(12, []byte("Laptop\x00"))))
	if l, _ := p.Leases.ByAddr("lab", addr("10.0.0.100")); l.Host != "laptop" {
		t.Errorf("the lease has host name %q, want laptop", l.Host)
	}
}

func TestEvents(t *testing.T) {
	pxe := []option{class("PXEClient:Arch:00007:UNDI:003000"), asks("10.0.0.100")}
	for _, c := range []struct {
		name   string
		packet []byte
		want   boot.Event
	}{
		{"offer", request(discover, mac(7), pxe...), boot.Event{Stage: boot.Offered, Client: boot.Firmware, Addr: addr("10.0.0.100"), Text: "UEFI x64: snponly.efi"}},
		{"lease", request(ask, mac(7), pxe...), boot.Event{Stage: boot.Leased, Client: boot.Firmware, Addr: addr("10.0.0.100"), Text: "UEFI x64: snponly.efi"}},
		{"refusal", request(ask, mac(7), class("udhcp 1.35"), asks("1.2.3.4")), boot.Event{Stage: boot.Refused, Client: boot.System, Text: "1.2.3.4 is not on network lab (10.0.0.0/24)"}},
		{"no loader", request(discover, mac(7), class("PXEClient:Arch:00012:UNDI:003000")), boot.Event{Stage: boot.Offered, Client: boot.Firmware, Addr: addr("10.0.0.100"), Text: "architecture 12: no loader for this firmware; install the package ipxe"}},
		{"inform", request(inform, mac(7), has("10.0.0.7")), boot.Event{}},
	} {
		r, err := dhcp.Decode(c.packet)
		if err != nil {
			t.Fatal(err)
		}
		if c.want.Stage != "" {
			c.want.Time, c.want.MAC, c.want.Inventory = t0, mac(7), r.Inventory()
		}
		if diff := cmp.Diff(c.want, policy(t).Answer(r, eth1, t0).Event, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// Everything that changes who has an address waits for the disk; nothing else
// does.
func TestDurable(t *testing.T) {
	p := policy(t)
	for _, c := range []struct {
		name   string
		packet []byte
		want   bool
	}{
		{"discover", request(discover, mac(7)), false},
		{"request", request(ask, mac(7), asks("10.0.0.100")), true},
		{"refused", request(ask, mac(8), asks("10.0.0.100")), false},
		{"inform", request(inform, mac(7), has("10.0.0.100")), false},
		{"release", request(release, mac(7), has("10.0.0.100")), true},
		{"request again", request(ask, mac(7), asks("10.0.0.100")), true},
		{"decline", request(decline, mac(7), asks("10.0.0.100")), true},
	} {
		r, err := dhcp.Decode(c.packet)
		if err != nil {
			t.Fatal(err)
		}
		if a := p.Answer(r, eth1, t0); a.Durable != c.want {
			t.Errorf("%s: durable %t, want %t", c.name, a.Durable, c.want)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for want, packet := range map[string][]byte{
		"not a DHCP packet":           []byte("hello"),
		"a reply":                     request(discover, mac(7), func(m *dhcpv4.DHCPv4) { m.OpCode = dhcpv4.OpcodeBootReply }),
		"which is no Ethernet card's": request(discover, boot.MAC{}),
		"from 01:00:5e:00:00:01, hardware of type 1, which is": request(discover, boot.MAC{1, 0, 0x5e, 0, 0, 1}),
		"hardware of type 32, which is no":                     request(discover, mac(7), func(m *dhcpv4.DHCPv4) { m.HWType = 32 }),
		"from 02:00, hardware":                                 request(discover, mac(7), func(m *dhcpv4.DHCPv4) { m.ClientHWAddr = net.HardwareAddr{2, 0} }),
		"BOOTP":                                                request(discover, mac(7), func(m *dhcpv4.DHCPv4) { m.Options = dhcpv4.Options{} }),
	} {
		if _, err := dhcp.Decode(packet); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

// U-Boot that does not say its architecture says it in its class.
func TestUBootArchitecture(t *testing.T) {
	for _, c := range []struct {
		options []option
		want    boot.Arch
		known   bool
	}{
		{[]option{class("U-Boot.armv8")}, boot.UBootA64, true},
		{[]option{class("U-Boot.armv7")}, boot.UBootARM, true},
		{[]option{class("U-Boot.arm")}, boot.UBootARM, true},
		{[]option{class("U-Boot.armv8"), arch(24)}, boot.UBootHA64, true},
		{[]option{class("U-Boot")}, 0, false},
	} {
		r, err := dhcp.Decode(request(discover, mac(7), c.options...))
		if err != nil || r.Arch != c.want || r.ArchKnown != c.known || r.ROM != boot.UBoot {
			t.Errorf("%q: %v, %t, %q, %v", r.Class, r.Arch, r.ArchKnown, r.ROM, err)
		}
	}
}

// Firmware and iPXE are told the next step; the server is found wherever they
// look for it.
func TestBootFile(t *testing.T) {
	ipxe := generic(77, []byte("iPXE"))
	for _, c := range []struct {
		name                    string
		options                 []option
		file, class, siaddr, vs string
	}{
		{"BIOS", []option{class("PXEClient:Arch:00000:UNDI:002001")}, "undionly.kpxe", "PXEClient", "10.0.0.1", "\x06\x01\x08\xff"},
		{"UEFI", []option{class("PXEClient:Arch:00007:UNDI:003000")}, "snponly.efi", "PXEClient", "10.0.0.1", "\x06\x01\x08\xff"},
		{"UEFI that says byte code", []option{generic(93, []byte{0, 9}), class("PXEClient")}, "snponly.efi", "PXEClient", "10.0.0.1", "\x06\x01\x08\xff"},
		{"ARM64", []option{generic(93, []byte{0, 11}), class("PXEClient")}, "arm64/snponly.efi", "PXEClient", "10.0.0.1", "\x06\x01\x08\xff"},
		{"HTTP", []option{class("HTTPClient:Arch:00016:UNDI:003000")}, "http://10.0.0.1:8080/loader/snponly.efi", "HTTPClient", "10.0.0.1", ""},
		{"iPXE", []option{ipxe, class("PXEClient:Arch:00007:UNDI:003000")}, "http://10.0.0.1:8080/boot.ipxe", "", "10.0.0.1", ""},
		{"iPXE with counted user class", []option{generic(77, []byte("\x04iPXE"))}, "http://10.0.0.1:8080/boot.ipxe", "", "10.0.0.1", ""},
		{"iPXE by its options", []option{generic(175, []byte{0x13, 1, 1, 0x18, 1, 1})}, "http://10.0.0.1:8080/boot.ipxe", "", "10.0.0.1", ""},
		{"iPXE that says nothing", []option{generic(175, []byte{0xeb, 3, 1, 0, 0})}, "http://10.0.0.1:8080/boot.ipxe", "", "10.0.0.1", ""},
		{"a card's iPXE without HTTP", []option{generic(175, []byte{0x15, 1, 1, 0x18, 1, 1}), generic(77, []byte("iPXE"))}, "undionly.kpxe", "", "10.0.0.1", ""},
		{"a card's iPXE without HTTP, on UEFI", []option{arch(7), generic(175, []byte{0x15, 1, 1, 0x24, 1, 1})}, "snponly.efi", "", "10.0.0.1", ""},
		{"U-Boot", []option{class("U-Boot.armv8")}, "", "", "10.0.0.1", ""},
		{"U-Boot by its architecture", []option{class("PXEClient"), arch(22)}, "", "", "10.0.0.1", ""},
		{"U-Boot as UEFI", []option{class("PXEClient:Arch:00011:UNDI:003000"), arch(11)}, "arm64/snponly.efi", "PXEClient", "10.0.0.1", "\x06\x01\x08\xff"},
		{"HTTP boot that says it is PXE's architecture", []option{class("HTTPClient:Arch:00007:UNDI:003000")}, "http://10.0.0.1:8080/loader/snponly.efi", "HTTPClient", "10.0.0.1", ""},
		{"firmware without loader", []option{class("PXEClient:Arch:00012:UNDI:003000")}, "", "", "0.0.0.0", ""},
		{"system", nil, "", "", "0.0.0.0", ""},
	} {
		p := policy(t)
		p.HTTPPort = 8080
		m := reply(t, p, request(discover, mac(7), c.options...))
		got := []string{m.BootFileNameOption(), m.BootFileName, m.ClassIdentifier(), m.ServerIPAddr.String(), string(m.Options.Get(dhcpv4.OptionVendorSpecificInformation))}
		if diff := cmp.Diff([]string{c.file, c.file, c.class, c.siaddr, c.vs}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
		if nopxe := string(m.Options.Get(dhcpv4.GenericOptionCode(175))); (nopxe == "\xb0\x01\x01") != strings.Contains(c.name, "iPXE") {
			t.Errorf("%s: option 175 is %q", c.name, nopxe)
		}
	}
}

// An entry for a subnet is for machines that come up there.
func TestEntryBySubnet(t *testing.T) {
	p := policy(t)
	c, err := boot.NewCatalog(boot.Catalog{
		Networks: p.Catalog().Networks,
		Profiles: map[string]*boot.Profile{"worker": {Name: "worker"}},
		Machines: []*boot.Machine{{Name: "far-away", Match: boot.Selector{Subnet: netip.MustParsePrefix("10.9.0.0/24")}, Profile: "worker"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Catalog = func() *boot.Catalog { return c }
	// It had an address in the other network before.
	p.Remembered = func(boot.MAC) boot.Inventory { return boot.Inventory{Addr: addr("10.0.0.100")} }
	if got := reply(t, p, request(discover, mac(7), relay("10.9.0.254"))).HostName(); got != "far-away" {
		t.Errorf("host name behind the relay agent is %q, want far-away", got)
	}
	if got := reply(t, p, request(discover, mac(7))).HostName(); got != "" {
		t.Errorf("host name elsewhere is %q, want none", got)
	}
}

// Addresses of bootd and of the router are never leased, though they lie in a
// range.
func TestInfrastructureIsNotLeased(t *testing.T) {
	lab := network("lab", "eth1", "10.0.0.0/24", boot.Authoritative, span("10.0.0.1", "10.0.0.4"))
	lab.Server, lab.Router = addr("10.0.0.2"), addr("10.0.0.3") // .1 is the interface's
	play(t, policy(t, lab), []step{
		{packet: request(discover, mac(7)), want: "OFFER 10.0.0.4 to 10.0.0.4:68" + at7},
		{packet: request(ask, mac(8), asks("10.0.0.1")), want: "NAK to " + everybody + ": 10.0.0.1 is not an address that this machine can have"},
		{packet: request(ask, mac(8), asks("10.0.0.2")), want: "NAK to " + everybody + ": 10.0.0.2 is not an address that this machine can have"},
		{packet: request(ask, mac(8), asks("10.0.0.3")), want: "NAK to " + everybody + ": 10.0.0.3 is not an address that this machine can have"},
	})
}
