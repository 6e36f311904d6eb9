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

	guard *guard // nil: as many addresses are offered as there are
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
	catalog *boot.Catalog
	link    Link
	now     time.Time
	network *boot.Network
	server  netip.Addr // bootd's own address there
	id      netip.Addr // by which the client knows it: option 54
	to      boot.Assignment
	named   bool // to.Name is what an entry says
	pool    lease.Pool
}

// A workspace is memory that answers are made in, one after the other: what has
// been answered is of no use to the next one, and a thousand answers make much
// garbage.
type workspace struct {
	query query
	reply []byte
}

func (p Policy) query(r Request, link Link, now time.Time) (*query, error) {
	catalog := p.Catalog()
	n := network(catalog, r, link)
	switch {
	case n == nil && r.Link.IsValid():
		return nil, fmt.Errorf("relayed from %s, which lies in none of the networks", r.Link)
	case n == nil:
		return nil, fmt.Errorf("interface %s has no address in any of its networks", link.Interface)
	case n.Mode == boot.Off:
		return nil, fmt.Errorf("network %s is %s", n.Name, n.Mode)
	}
	var q *query
	if r.work != nil {
		q = &r.work.query
	} else {
		q = new(query)
	}
	*q = query{Policy: p, Request: r, catalog: catalog, link: link, now: now, network: n}
	inv := p.Remembered(r.MAC).Merge(r.Inventory())
	// Whether an entry with a subnet matches is decided by where the machine
	// is now, not by the address it had before.
	inv.Addr = n.Subnet.Addr()
	// An undecided entry does not keep a machine from getting an address; what
	// it boots is refused later, with the reason, where a person can see it.
	var undecided error
	q.to, undecided = catalog.Assign(inv)
	q.named = q.to.Machine != nil && undecided == nil
	q.on(q.home(n))
	if !q.server.IsValid() {
		return nil, fmt.Errorf("interface %s has no IPv4 address", link.Interface)
	}
	return q, nil
}

// on makes n the network that the answer is about.
func (q *query) on(n *boot.Network) {
	q.network, q.server = n, ServerAddr(n, q.link)
	if !n.Server.IsValid() && !inside(n, q.link).IsValid() {
		q.server = facing(q.link, q.From.Addr()) // the client is behind a relay agent
	}
	// The agent may want to be taken for the server, so that clients renew
	// their leases through it (RFC 5107).
	q.id = q.server
	if a := q.packet.agent(agentServer); a.IsValid() && q.Relay.IsValid() {
		q.id = a
	}
	q.pool = lease.Pool{Network: n.Name, Ranges: n.Ranges, Reserved: q.reserved}
	if own := q.own(); n.Subnet.Contains(own) {
		q.pool.Own = own
	}
}

// own is the address that is kept for the client; invalid: none.
func (q *query) own() netip.Addr {
	if m := q.to.Machine; m != nil {
		return m.IP
	}
	return netip.Addr{}
}

// reserved reports whether an address is not for leasing to whoever comes.
func (q *query) reserved(a netip.Addr) bool {
	return a == q.server || a == q.network.Router || a == q.Relay || q.catalog.Reserved(a) != nil ||
		slices.ContainsFunc(q.link.Addrs, func(p netip.Prefix) bool { return p.Addr() == a })
}

// discover offers an address of the client's network, or, when there is none,
// of another one of its wire.
func (q *query) discover() Answer {
	first := q.network
	if admitted, _ := q.admitted(netip.Addr{}); !admitted {
		return q.unanswered()
	}
	l, err := q.Leases.Offer(q.pool, q.MAC, q.Asked, hold, q.now)
	for _, n := range siblings(q.catalog, first, q.link) {
		if !errors.Is(err, lease.ErrExhausted) {
			break
		}
		q.on(n)
		if other, failed := q.Leases.Offer(q.pool, q.MAC, q.Asked, hold, q.now); failed == nil {
			l, err = other, nil
		}
	}
	if err != nil {
		q.on(first)
		return Answer{Why: err.Error(), Event: q.event(boot.Failed, netip.Addr{}, err.Error())}
	}
	if q.guarded() && l.State == lease.Offered {
		q.guard.hold(q.source(), client{q.MAC, l.Network}, l.Expires)
	}
	m, file := q.reply(TypeOffer, l.Addr)
	q.leaseTimes(&m)
	a := q.send(m, q.event(boot.Offered, l.Addr, q.describe(file)), false)
	if l.Fresh && !q.Relay.IsValid() {
		a.Probe = l
	}
	return a
}

// guarded reports whether the client is one that could be made up.
func (q *query) guarded() bool { return q.guard != nil && !q.named && !q.own().IsValid() }

// source tells where the request comes from.
func (q *query) source() source {
	s := source{network: q.network.Name, relay: q.Relay}
	if q.Relay.IsValid() {
		s.port = agentPort(q.packet.get(optRelayInfo))
	}
	return s
}

// admitted reports whether the client may be given an address. One that is known
// may: it has a lease, or has been offered the address want or had it last.
func (q *query) admitted(want netip.Addr) (admitted, known bool) {
	if !q.guarded() {
		return true, true
	}
	l, ok := q.Leases.ByMAC(q.network.Name, q.MAC)
	if ok && (l.State == lease.Bound && l.Active(q.now) || l.Addr == want) {
		return true, true
	}
	return q.guard.admit(q.network, q.source(), q.MAC, q.now), false
}

// taken notes that the client has taken its address. Who was never offered it
// may be as made up as who never took it.
func (q *query) taken(known bool) {
	c := client{q.MAC, q.network.Name}
	switch {
	case !q.guarded():
	case known:
		q.guard.settle(c)
	default:
		q.guard.hold(q.source(), c, q.now.Add(hold))
	}
}

func (q *query) unanswered() Answer {
	return Answer{Why: "more new machines ask on network " + q.network.Name + " than take what they are offered"}
}

// request answers the four states in which a client asks for an address
// (RFC 2131 section 4.3.2).
func (q *query) request() Answer {
	want := q.Asked
	switch {
	case q.foreign():
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
	// It may know of an offer that was made before a restart, or have been
	// given the address elsewhere. It may also have made it up.
	admitted, known := q.admitted(want)
	if !admitted {
		return q.unanswered()
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
	q.taken(known)
	m, file := q.reply(TypeAck, l.Addr)
	q.leaseTimes(&m)
	return q.send(m, q.event(boot.Leased, l.Addr, q.describe(file)), true)
}

// foreign reports whether the client speaks to another server.
func (q *query) foreign() bool {
	return q.Server.IsValid() && q.Server != q.id && q.Server != q.server
}

func (q *query) decline() Answer {
	switch {
	case q.foreign():
		return Answer{Why: "declines an address of the server " + q.Server.String()}
	case !q.Asked.IsValid():
		return Answer{Why: "declines no address"}
	}
	if !q.Leases.Decline(q.network.Name, q.MAC, q.Asked, quarantine, q.now) {
		return Answer{Why: fmt.Sprintf("declines %s, which it was not given", q.Asked)}
	}
	if q.guarded() {
		q.guard.decline(q.source(), client{q.MAC, q.network.Name}, q.now.Add(quarantine))
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
	case q.foreign():
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
