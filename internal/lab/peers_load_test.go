package lab_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A load is a relay agent whose clients ask for addresses one after the other,
// so many of them at a time. It shares the processors with the server that it
// measures, so it does as little as it can: packets are changed where they are,
// and go out and in with one system call for as many as there are.
type load struct {
	socket  int
	clients int
	first   int // number of the first client
	next    int
	again   int // packets that were sent again
	slots   []clientSlot
	took    []time.Duration // by the exchanges that are done
	lose    func() bool     // whether a packet gets lost, in either direction; nil: none

	out   []int // slots whose packets are to be sent
	wrote batch
	read  batch
	given map[[4]byte]int // to which client an address was given; nil: not noted
	twice []string        // addresses that were given to two
}

// A clientSlot is an exchange in flight. Its number is in the transaction ID.
type clientSlot struct {
	packet       [300]byte
	busy, asking bool
	client       int
	xid          uint32
	begun, sent  time.Time
}

// dhcpPatience of a client: shorter than any real one's, since a lost packet
// stands still for so long.
const dhcpPatience = 500 * time.Millisecond

// Where things are in the packets of a load.
const (
	loadXID     = 4
	loadOffer   = 16 // yiaddr, in an offer
	loadMAC     = 28
	loadOptions = 240
	loadType    = loadOptions + 2
	loadAsked   = loadOptions + 5
	maxFlight   = 1 << 12
)

func newLoad(b testing.TB, r room, flight, clients int) *load {
	b.Helper()
	l := &load{clients: clients, slots: make([]clientSlot, flight), wrote: newBatch(0), read: newBatch(1500)}
	if flight > maxFlight {
		b.Fatalf("no more than %d exchanges can be in flight", maxFlight)
	}
	r.inside(b, func() (err error) {
		l.socket, err = relaySocket()
		return err
	})
	b.Cleanup(l.close)
	agent := netip.MustParseAddr(roomAgent).As4()
	for i := range l.slots {
		p := &l.slots[i].packet
		*p = [300]byte{0: 1, 1: 1, 2: 6, 3: 1}
		copy(p[24:], agent[:])
		copy(p[236:], "\x63\x82\x53\x63\x35\x01")
	}
	return l
}

// close gives the port up. What is in flight is not waited for.
func (l *load) close() {
	if l.socket >= 0 {
		_ = unix.Close(l.socket)
		l.socket = -1
	}
}

// relaySocket opens the port of the relay agent, towards the server. It is no
// socket of package net: whoever waits for one packet at a time waits longer
// there.
func relaySocket() (int, error) {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	_ = unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
	wait := unix.NsecToTimeval(int64(50 * time.Millisecond))
	if err := errors.Join(
		unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait),
		unix.Bind(s, &unix.SockaddrInet4{Port: 67, Addr: netip.MustParseAddr(roomAgent).As4()}),
		unix.Connect(s, &unix.SockaddrInet4{Port: 67, Addr: netip.MustParseAddr(roomServer).As4()}),
	); err != nil {
		return -1, errors.Join(err, unix.Close(s))
	}
	return s, nil
}

// run has so many exchanges completed, or as many as there is time for.
func (l *load) run(count int, limit time.Duration) (done int, err error) {
	begun, now := 0, time.Now()
	end, look := now.Add(limit), now
	begin := func(i int) {
		if l.slots[i].busy = begun < count; l.slots[i].busy {
			l.discover(i, now)
			begun++
		}
	}
	for i := range l.slots {
		begin(i)
	}
	for done < count {
		if err := l.send(); err != nil {
			return done, err
		}
		n, err := l.read.receive(l.socket)
		if err != nil {
			return done, err
		}
		now = time.Now()
		for i := range n {
			slot, kind, ok := l.answer(l.read.packet(i))
			switch {
			case !ok:
			case kind == 2: // OFFER
				l.request(slot, l.read.packet(i), now)
			case kind == 5: // ACK
				l.gave(slot, l.read.packet(i))
				l.took = append(l.took, now.Sub(l.slots[slot].begun))
				done++
				begin(slot)
			}
		}
		if now.After(end) {
			return done, nil
		}
		if now.Sub(look) > dhcpPatience/10 {
			look = now
			l.repeat(now)
		}
	}
	return done, nil
}

// repeat sends again what was not answered.
func (l *load) repeat(now time.Time) {
	for i := range l.slots {
		if s := &l.slots[i]; s.busy && now.Sub(s.sent) > dhcpPatience {
			l.again++
			s.sent = now
			l.out = append(l.out, i)
		}
	}
}

// discover begins the exchange of the next client.
func (l *load) discover(i int, now time.Time) {
	s := &l.slots[i]
	s.client = l.first + l.next
	l.next = (l.next + 1) % l.clients
	// The upper bits tell this exchange from the slot's one before.
	s.xid = uint32(s.client)<<12 | uint32(i)
	p := &s.packet
	binary.BigEndian.PutUint32(p[loadXID:], s.xid)
	p[loadMAC], p[loadMAC+1] = 2, 0
	binary.BigEndian.PutUint32(p[loadMAC+2:], uint32(s.client)*2654435761) // scattered, as cards' are
	copy(p[loadType:], "\x01\x37\x03\x01\x03\x06\xff")
	clear(p[loadType+7:])
	s.asking, s.begun, s.sent = false, now, now
	l.out = append(l.out, i)
}

// request asks for what was offered.
func (l *load) request(i int, offer []byte, now time.Time) {
	s := &l.slots[i]
	p := &s.packet
	p[loadType] = 3
	p[loadType+1], p[loadType+2] = 50, 4
	copy(p[loadAsked:], offer[loadOffer:loadOffer+4])
	server := netip.MustParseAddr(roomServer).As4()
	rest := p[loadAsked+4:]
	rest[0], rest[1] = 54, 4
	copy(rest[2:], server[:])
	copy(rest[6:], "\x37\x03\x01\x03\x06\xff")
	s.asking, s.sent = true, now
	l.out = append(l.out, i)
}

// answer tells which slot a packet is for.
func (l *load) answer(p []byte) (slot int, kind byte, ok bool) {
	if len(p) <= loadType || p[loadOptions] != 53 {
		return 0, 0, false
	}
	xid := binary.BigEndian.Uint32(p[loadXID:])
	slot = int(xid % maxFlight)
	if slot >= len(l.slots) || !l.slots[slot].busy || l.slots[slot].xid != xid {
		return 0, 0, false
	}
	if l.lose != nil && l.lose() {
		return 0, 0, false
	}
	kind = p[loadType]
	return slot, kind, l.slots[slot].asking == (kind == 5)
}

// gave notes who got an address.
func (l *load) gave(i int, ack []byte) {
	if l.given == nil {
		return
	}
	a, c := [4]byte(ack[loadOffer:loadOffer+4]), l.slots[i].client
	if other, ok := l.given[a]; ok && other != c {
		l.twice = append(l.twice, fmt.Sprintf("%s to %d and %d", netip.AddrFrom4(a), other, c))
	}
	l.given[a] = c
}

// percentile tells what so many percent of the exchanges did not exceed.
func (l *load) percentile(n int) time.Duration {
	if len(l.took) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(l.took))
	return sorted[(len(sorted)-1)*n/100]
}

func (l *load) send() error {
	todo := l.out
	if l.lose != nil {
		todo = slices.DeleteFunc(todo, func(int) bool { return l.lose() })
	}
	for len(todo) > 0 {
		some := todo[:min(len(todo), atOnce)]
		todo = todo[len(some):]
		for i, slot := range some {
			l.wrote.point(i, l.slots[slot].packet[:])
		}
		if err := l.wrote.send(l.socket, len(some)); err != nil {
			return err
		}
	}
	l.out = l.out[:0]
	return nil
}

// atOnce is how many packets go with one system call.
const atOnce = 64

// A batch is struct mmsghdr of recvmmsg(2), with memory for what is received.
type batch struct {
	heads   []mmsghdr
	vectors []unix.Iovec
	memory  []byte
	size    int
}

type mmsghdr struct {
	unix.Msghdr
	n uint32
}

func newBatch(size int) batch {
	m := batch{heads: make([]mmsghdr, atOnce), vectors: make([]unix.Iovec, atOnce), memory: make([]byte, atOnce*size), size: size}
	for i := range m.heads {
		m.heads[i].Iov = &m.vectors[i]
		m.heads[i].SetIovlen(1)
		if size > 0 {
			m.point(i, m.memory[i*size:(i+1)*size])
		}
	}
	return m
}

func (m *batch) point(i int, b []byte) {
	m.vectors[i].Base = &b[0]
	m.vectors[i].SetLen(len(b))
}

func (m *batch) packet(i int) []byte { return m.memory[i*m.size:][:m.heads[i].n] }

// receive waits for packets, but not for long.
func (m *batch) receive(socket int) (int, error) {
	n, _, err := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(socket), uintptr(unsafe.Pointer(&m.heads[0])), atOnce, unix.MSG_WAITFORONE, 0, 0)
	switch err {
	case 0:
		return int(n), nil
	case unix.EAGAIN, unix.EINTR, unix.ECONNREFUSED: // nothing for a while; the server is not there yet
		return 0, nil
	}
	return 0, err
}

func (m *batch) send(socket, count int) error {
	for from := 0; from < count; {
		n, _, err := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(socket), uintptr(unsafe.Pointer(&m.heads[from])), uintptr(count-from), 0, 0, 0)
		switch err {
		case 0:
			from += int(n)
		case unix.EINTR, unix.ECONNREFUSED:
		default:
			return err
		}
	}
	return nil
}
