package dhcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"bootd/boot"
)

// A Packet is a datagram that came in.
type Packet struct {
	Data []byte // its payload
	From netip.AddrPort
}

// fill copies a payload into the memory of p's last one.
func (p *Packet) fill(b []byte) {
	p.Data = p.Data[:cap(p.Data)]
	p.Data = p.Data[:copy(p.Data, b)]
}

// A Conn carries DHCP packets of one interface, to and from one port.
type Conn interface {
	// Receive waits for packets and sets the first ones of packets to them. It
	// returns how many there were. There is room in the capacity of each Data.
	// It fails for good, with net.ErrClosed, once the Conn is closed.
	Receive(packets []Packet) (int, error)
	// Send sends answers. Those that cannot be sent are left out and named in
	// the error. Several goroutines may call it. What the answers hold is the
	// caller's again when it returns.
	Send([]Answer) error
	Close() error
}

// batch is how many packets are moved with one system call.
const batch = 64

// A socket is a Conn on a real interface. It receives broadcasts and unicasts
// that arrive there, and no others.
type socket struct {
	conn  *net.UDPConn
	pc    *ipv4.PacketConn
	iface string
	in    []ipv4.Message
	out   sync.Pool   // of *outgoing
	noARP atomic.Bool // entries cannot be made: answers are broadcast instead
}

// open binds a port on an interface.
func open(iface string, port uint16) (*socket, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			failed = errors.Join(
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1),
				unix.BindToDevice(int(fd), iface),
			)
			// Room for a rack that is switched on at once. It is no error if
			// the system allows less.
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20)
		})
		return errors.Join(err, failed)
	}}
	c, err := lc.ListenPacket(context.Background(), "udp4", fmt.Sprintf(":%d", port))
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		other := map[uint16]string{serverPort: "DHCP", bootPort: "boot"}[port]
		return nil, fmt.Errorf("cannot answer DHCP on %s: another %s server has port %d; stop it (ss -lunp 'sport = %d' shows which)", iface, other, port, port)
	case errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM):
		return nil, fmt.Errorf("cannot answer DHCP on %s: %w; bootd needs CAP_NET_BIND_SERVICE and CAP_NET_RAW", iface, err)
	case err != nil:
		return nil, fmt.Errorf("cannot answer DHCP on %s: %w", iface, err)
	}
	u := c.(*net.UDPConn)
	s := &socket{conn: u, pc: ipv4.NewPacketConn(u), iface: iface, in: make([]ipv4.Message, batch)}
	for i := range s.in {
		s.in[i].Buffers = make([][]byte, 1)
	}
	return s, nil
}

// LinkOf describes an interface as it is now.
func LinkOf(iface string) (Link, error) {
	i, err := net.InterfaceByName(iface)
	if err != nil {
		return Link{}, fmt.Errorf("there is no interface %s; `ip link` shows which there are", iface)
	}
	addrs, err := i.Addrs()
	if err != nil {
		return Link{}, fmt.Errorf("cannot read the addresses of interface %s: %w", iface, err)
	}
	l := Link{Interface: iface, Index: i.Index}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP.To4()); ok {
				ones, _ := n.Mask.Size()
				l.Addrs = append(l.Addrs, netip.PrefixFrom(ip, ones))
			}
		}
	}
	return l, nil
}

func (s *socket) Receive(packets []Packet) (int, error) {
	in := s.in[:min(len(packets), len(s.in))]
	for i := range in {
		in[i].Buffers[0] = packets[i].Data[:cap(packets[i].Data)]
	}
	n, err := s.pc.ReadBatch(in, 0)
	if err != nil {
		return 0, err
	}
	for i := range n {
		packets[i] = Packet{Data: in[i].Buffers[0][:in[i].N]}
		if from, ok := in[i].Addr.(*net.UDPAddr); ok {
			packets[i].From = from.AddrPort()
		}
	}
	return n, nil
}

// A departure is memory for one packet that is being sent.
type departure struct {
	to      net.UDPAddr
	ip      [4]byte
	payload [1][]byte
}

// outgoing is memory for packets that are sent at once.
type outgoing struct {
	messages   []ipv4.Message
	departures []departure
	from       netip.Addr // whose control message oob is
	oob        []byte
}

// fill sets up the message for a reply.
func (o *outgoing) fill(i int, reply []byte, to netip.AddrPort, from netip.Addr) {
	d := &o.departures[i]
	d.ip, d.payload[0] = to.Addr().As4(), reply
	d.to.IP, d.to.Port = d.ip[:], int(to.Port())
	m := ipv4.Message{Buffers: d.payload[:], Addr: &d.to}
	if from.IsValid() {
		if from != o.from {
			o.from, o.oob = from, (&ipv4.ControlMessage{Src: from.AsSlice()}).Marshal()
		}
		m.OOB = o.oob
	}
	o.messages[i] = m
}

func (s *socket) Send(answers []Answer) error {
	o, _ := s.out.Get().(*outgoing)
	if o == nil || len(o.messages) < len(answers) {
		n := max(len(answers), batch)
		o = &outgoing{messages: make([]ipv4.Message, n), departures: make([]departure, n)}
	}
	defer s.out.Put(o)
	for i := range answers {
		a := &answers[i]
		to := a.To
		if !a.MAC.IsZero() && !s.teach(to.Addr(), a.MAC) {
			to = netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), to.Port())
		}
		o.fill(i, a.Reply, to, a.From)
	}
	out := o.messages[:len(answers)]
	var failed error
	for len(out) > 0 {
		n, err := s.pc.WriteBatch(out, 0)
		if err != nil {
			// The first of them could not be sent; the others may be.
			failed = errors.Join(failed, fmt.Errorf("cannot send to %s: %w", out[0].Addr, err))
			n = 1
			if errors.Is(err, net.ErrClosed) {
				return failed
			}
		}
		out = out[n:]
	}
	return failed
}

func (s *socket) Close() error { return s.conn.Close() }

// A probingSocket is a socket that can find out whether addresses are in use.
type probingSocket struct {
	*socket
	arp *arpSocket
}

func (s *probingSocket) Probe(a netip.Addr) error { return s.arp.probe(a) }

func (s *probingSocket) Heard() (netip.Addr, boot.MAC, error) { return s.arp.hear() }

func (s *probingSocket) Close() error { return errors.Join(s.socket.Close(), s.arp.Close()) }

// An arpEntry is struct arpreq of arp(7).
type arpEntry struct {
	protocol, hardware unix.RawSockaddrInet4
	flags              int32
	netmask            unix.RawSockaddrInet4
	dev                [16]byte
}

// teach tells the kernel which card has an address that its owner does not use
// yet, and so does not answer for (RFC 2131 section 4.1). It reports false
// where that is not permitted; it takes CAP_NET_ADMIN.
func (s *socket) teach(a netip.Addr, mac boot.MAC) bool {
	if s.noARP.Load() {
		return false
	}
	var e arpEntry
	e.protocol.Family = unix.AF_INET
	e.protocol.Addr = a.As4()
	e.hardware.Family = unix.ARPHRD_ETHER
	// sa_data of struct sockaddr begins where the port is.
	hw := (*[14]byte)(unsafe.Pointer(&e.hardware.Port))
	copy(hw[:], mac[:])
	e.flags = 2 // ATF_COM: the entry is complete
	copy(e.dev[:len(e.dev)-1], s.iface)
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return false
	}
	var errno unix.Errno
	if err := raw.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, unix.SIOCSARP, uintptr(unsafe.Pointer(&e)))
	}); err != nil {
		return false
	}
	if errno == unix.EPERM || errno == unix.EACCES {
		s.noARP.Store(true)
	}
	return errno == 0
}
