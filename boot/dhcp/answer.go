package dhcp

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"bootd/boot"
	"bootd/boot/lease"
)

const (
	// hold is how long an offered address is kept for its client. Firmware
	// retries for up to a minute.
	hold = 2 * time.Minute
	// quarantine is how long an address that a client found in use is left
	// alone.
	quarantine = time.Hour
)

// A Policy decides how requests are answered.
type Policy struct {
	Catalog func() *boot.Catalog
	// Remembered is what is known of a machine from before, such as its serial
	// number, which DHCP does not tell.
	Remembered func(boot.MAC) boot.Inventory
	Leases     *lease.Table
	Loaders    func(name string) bool // which iPXE builds are there
	HTTPPort   uint16                 // of what machines fetch
}

// A Link is where a packet came in.
type Link struct {
	Interface string
	Index     int            // of the interface; another one after it was made anew
	Addrs     []netip.Prefix // of the interface, IPv4
}

// An Answer is what to do about a request.
type Answer struct {
	Reply   []byte         // the packet; nil: none is sent
	To      netip.AddrPort // its destination
	From    netip.Addr     // bootd's address that it is sent from; invalid: whichever the system chooses
	MAC     boot.MAC       // set when To is an address that the client does not have yet
	Durable bool           // leases must be flushed before it is sent
	Probe   lease.Lease    // what is offered, when it is yet to be found out whether somebody uses it
	Event   boot.Event     // what happened; without a Stage, nothing worth telling
	Why     string         // for the log, when there is no reply
}

// Answer decides about one request.
func (p Policy) Answer(r Request, link Link, now time.Time) Answer {
	q, err := p.query(r, link, now)
	if err != nil {
		return Answer{Why: err.Error()}
	}
	a := q.answer()
	// Firmware may compare the sender with the server that the packet names,
	// which matters when the interface has several addresses.
	if slices.ContainsFunc(link.Addrs, func(p netip.Prefix) bool { return p.Addr() == q.server }) {
		a.From = q.server
	}
	return a
}

func (q *query) answer() Answer {
	switch {
	case q.BootPort:
		return q.bootRequest()
	case q.network.Mode == boot.Proxy:
		return q.proxy()
	}
	switch q.Type {
	case TypeDiscover:
		return q.discover()
	case TypeRequest:
		return q.request()
	case TypeDecline:
		return q.decline()
	case TypeRelease:
		return q.release()
	case TypeInform:
		return q.inform()
	}
	return Answer{Why: "a " + q.Type.String() + " needs no answer"}
}

// A query is a request with everything that decides about it.
type query struct {
	Policy
	Request
	now     time.Time
	network *boot.Network
	server  netip.Addr // bootd's own address there
	id      netip.Addr // by which the client knows it: option 54
	to      boot.Assignment
	named   bool // to.Name is what an entry says
	pool    lease.Pool
}

func (p Policy) query(r Request, link Link, now time.Time) (*query, error) {
	catalog := p.Catalog()
	n := network(catalog, r, link)
	if n == nil {
		if r.Link.IsValid() {
			return nil, fmt.Errorf("relayed from %s, which lies in none of the networks", r.Link)
		}
		return nil, fmt.Errorf("interface %s has no address in any of its networks", link.Interface)
	}
	if n.Mode == boot.Off {
		return nil, fmt.Errorf("network %s is %s", n.Name, n.Mode)
	}
	q := &query{Policy: p, Request: r, now: now, network: n, server: ServerAddr(n, link)}
	if !q.server.IsValid() && len(link.Addrs) > 0 {
		q.server = link.Addrs[0].Addr() // the client is behind a relay agent
	}
	if !q.server.IsValid() {
		return nil, fmt.Errorf("interface %s has no IPv4 address", link.Interface)
	}
	inv := p.Remembered(r.MAC).Merge(r.Inventory())
	// Whether an entry with a subnet matches is decided by where the machine
	// is now, not by the address it had before.
	inv.Addr = n.Subnet.Addr()
	// An undecided entry does not keep a machine from getting an address; what
	// it boots is refused later, with the reason, where a person can see it.
	var undecided error
	q.to, undecided = catalog.Assign(inv)
	q.named = q.to.Machine != nil && undecided == nil
	var own netip.Addr
	if m := q.to.Machine; m != nil {
		own = m.IP
	}
	if other := onSameWire(catalog, own, n, r, link); other != nil {
		q.network, q.server = other, ServerAddr(other, link)
	}
	q.id = q.server
	if q.network.Subnet.Contains(own) {
		q.pool.Own = own
	}
	q.pool.Network, q.pool.Ranges = q.network.Name, q.network.Ranges
	q.pool.Reserved = func(a netip.Addr) bool {
		return a == q.server || a == q.network.Router || a == r.Relay || catalog.Reserved(a) != nil ||
			slices.ContainsFunc(link.Addrs, func(p netip.Prefix) bool { return p.Addr() == a })
	}
	return q, nil
}

// network finds the network that a client is on. A relay agent names it. What
// comes without one comes from a network that the interface has an address in,
// or was routed here from a client behind a relay agent, which renews its lease
// without the agent's help and is known by its address. Several networks on one
// interface are told apart by the address that the client has or had; the
// first serves those that have none.
func network(c *boot.Catalog, r Request, link Link) *boot.Network {
	if r.Link.IsValid() {
		return c.NetworkOf(r.Link)
	}
	had := r.Has
	if r.BootPort && r.From.Addr().IsValid() {
		had = r.From.Addr()
	}
	if !had.IsValid() && r.Type == TypeRequest {
		had = r.Asked
	}
	var first *boot.Network
	for i := range c.Networks {
		n := &c.Networks[i]
		if n.Interface != link.Interface {
			continue
		}
		attached := ServerAddr(n, link).IsValid()
		if had.IsValid() && n.Subnet.Contains(had) && (attached || r.Has.IsValid() || r.BootPort) {
			return n
		}
		if attached && (first == nil || rank(n.Mode) > rank(first.Mode)) {
			first = n
		}
	}
	return first
}

// rank says which of the networks of one interface a client is in that could be
// in any: one that gives it most.
func rank(m boot.Mode) int {
	switch m {
	case boot.Authoritative:
		return 2
	case boot.Proxy:
		return 1
	}
	return 0
}

// onSameWire finds the network of the address that is reserved for a client,
// when that is another one of the wire that it has just come up on.
func onSameWire(c *boot.Catalog, own netip.Addr, n *boot.Network, r Request, link Link) *boot.Network {
	if !own.IsValid() || n.Subnet.Contains(own) || r.Link.IsValid() || r.Type != TypeDiscover {
		return nil
	}
	other := c.NetworkOf(own)
	if other == nil || other.Interface != link.Interface || other.Mode != boot.Authoritative || !ServerAddr(other, link).IsValid() {
		return nil
	}
	return other
}

// ServerAddr is bootd's own address on a network: as configured, or the one of
// the interface that lies in the subnet. It is invalid when there is none, as
// on a network that is reached through a relay agent.
func ServerAddr(n *boot.Network, link Link) netip.Addr {
	if n.Server.IsValid() {
		return n.Server
	}
	for _, a := range link.Addrs {
		if n.Subnet.Contains(a.Addr()) {
			return a.Addr()
		}
	}
	return netip.Addr{}
}

func (q *query) discover() Answer {
	l, err := q.Leases.Offer(q.pool, q.MAC, q.Asked, hold, q.now)
	if err != nil {
		return Answer{Why: err.Error(), Event: q.event(boot.Failed, netip.Addr{}, err.Error())}
	}
	m, file := q.reply(TypeOffer, l.Addr)
	q.leaseTimes(&m)
	a := q.send(m, q.event(boot.Offered, l.Addr, q.describe(file)), false)
	if l.Fresh && !q.Relay.IsValid() {
		a.Probe = l
	}
	return a
}

// request answers the four states in which a client asks for an address
// (RFC 2131 section 4.3.2).
func (q *query) request() Answer {
	want := q.Asked
	switch {
	case q.Server.IsValid() && q.Server != q.id:
		return Answer{Why: "chose the server " + q.Server.String()}
	case q.Server.IsValid(): // SELECTING
		if !want.IsValid() {
			want = q.Has // some firmware says it there
		}
	case want.IsValid(): // INIT-REBOOT
	default: // RENEWING, REBINDING
		want = q.Has
	}
	if !want.IsValid() {
		return Answer{Why: "asks for no address"}
	}
	if !q.network.Subnet.Contains(want) {
		return q.nak(want, fmt.Sprintf("%s is not on network %s (%s)", want, q.network.Name, q.network.Subnet))
	}
	l, err := q.Leases.Bind(q.pool, q.MAC, want, q.Host, q.leaseTime(), q.now)
	switch {
	case errors.Is(err, lease.ErrTaken):
		return q.nak(want, want.String()+" belongs to another machine")
	case errors.Is(err, lease.ErrNotAllowed):
		return q.nak(want, want.String()+" is not an address that this machine can have")
	case err != nil:
		return Answer{Why: err.Error()}
	}
	m, file := q.reply(TypeAck, l.Addr)
	q.leaseTimes(&m)
	return q.send(m, q.event(boot.Leased, l.Addr, q.describe(file)), true)
}

func (q *query) decline() Answer {
	switch {
	case q.Server.IsValid() && q.Server != q.id:
		return Answer{Why: "declines an address of the server " + q.Server.String()}
	case !q.Asked.IsValid():
		return Answer{Why: "declines no address"}
	}
	if !q.Leases.Decline(q.network.Name, q.MAC, q.Asked, quarantine, q.now) {
		return Answer{Why: fmt.Sprintf("declines %s, which it was not given", q.Asked)}
	}
	why := fmt.Sprintf("found %s in use by another machine; it is left alone for %s", q.Asked, quarantine)
	return Answer{Why: why, Durable: true, Event: q.event(boot.Failed, netip.Addr{}, why)}
}

// Conflict decides what becomes of an offer whose address was found to be
// used by somebody else: nobody gets it for a while. It has no reply; the client
// is to be offered another one.
func (p Policy) Conflict(a Answer, by boot.MAC, now time.Time) Answer {
	l := a.Probe
	why := fmt.Sprintf("%s is used by %s, to whom it was not given; it is left alone for %s", l.Addr, by, quarantine)
	if !p.Leases.Decline(l.Network, l.MAC, l.Addr, quarantine, now) {
		return Answer{Why: why}
	}
	e := a.Event
	e.Time, e.Stage, e.Addr, e.Text = now, boot.Failed, netip.Addr{}, why
	return Answer{Why: why, Durable: true, Event: e}
}

func (q *query) release() Answer {
	switch {
	case q.Server.IsValid() && q.Server != q.id:
		return Answer{Why: "releases an address of the server " + q.Server.String()}
	case !q.Has.IsValid():
		return Answer{Why: "releases no address"}
	}
	if !q.Leases.Release(q.network.Name, q.MAC, q.Has, q.now) {
		return Answer{Why: fmt.Sprintf("releases %s, which it does not have", q.Has)}
	}
	return Answer{Why: "released " + q.Has.String(), Durable: true}
}

// inform answers a client that has an address from elsewhere and wants the
// rest (RFC 2131 section 4.3.5): no address, no lease.
func (q *query) inform() Answer {
	if !q.Has.IsValid() {
		return Answer{Why: "informs without an address"}
	}
	if !q.network.Subnet.Contains(q.Has) {
		// Anybody could have it sent to anybody.
		return Answer{Why: fmt.Sprintf("informs from %s, which is not on network %s (%s)", q.Has, q.network.Name, q.network.Subnet)}
	}
	m, _ := q.reply(TypeAck, netip.Addr{})
	return q.send(m, boot.Event{}, false)
}

func (q *query) nak(a netip.Addr, why string) Answer {
	m := q.blank(TypeNak)
	m.putText(optMessage, why)
	// The client may have no usable address; through a relay the flag makes
	// the agent broadcast (RFC 2131 section 4.3.2).
	to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), clientPort)
	if q.Relay.IsValid() {
		m[atFlags] |= broadcasts
		to = netip.AddrPortFrom(q.Relay, serverPort)
	}
	return Answer{Reply: q.pack(m), To: to, Event: q.event(boot.Refused, netip.Addr{}, why)}
}

func (q *query) event(s boot.Stage, a netip.Addr, text string) boot.Event {
	return boot.Event{Time: q.now, MAC: q.MAC, Stage: s, Client: q.Client, Addr: a, Text: text, Inventory: q.Inventory()}
}

// describe says in a word who asked and what it is to boot.
func (q *query) describe(file string) string {
	switch {
	case !q.boots():
		return q.Class
	case q.ROM == boot.RaspberryPi || q.ROM == boot.UBoot:
		return strings.TrimSuffix(q.Arch.String()+": its own files by TFTP, "+file, ", ")
	case file == "":
		return fmt.Sprintf("%s: no loader for this firmware; install the package ipxe", q.Arch)
	}
	return q.Arch.String() + ": " + file
}

func (q *query) leaseTime() time.Duration {
	if q.boots() {
		return q.network.FirmwareLeaseTime
	}
	return q.network.LeaseTime
}

const (
	serverPort = 67
	clientPort = 68
	bootPort   = 4011 // of boot servers (PXE specification 2.1, section 2.2.1)
)

// send addresses a reply (RFC 2131 section 4.1).
func (q *query) send(m message, e boot.Event, durable bool) Answer {
	a := Answer{Reply: q.pack(m), Event: e, Durable: durable}
	to := addr4(m[atYIAddr : atYIAddr+4])
	switch {
	case q.Relay.IsValid():
		a.To = netip.AddrPortFrom(q.Relay, serverPort)
	case q.network.Subnet.Contains(q.Has):
		a.To = netip.AddrPortFrom(q.Has, clientPort)
	case q.Broadcast || !to.IsValid():
		a.To = netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), clientPort)
	default:
		a.To, a.MAC = netip.AddrPortFrom(to, clientPort), q.MAC
	}
	return a
}
