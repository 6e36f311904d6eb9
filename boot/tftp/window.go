package tftp

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
)

// More opcodes (RFC 1350 section 5, RFC 2347).
const (
	opData = 3
	opAck  = 4
	opOack = 6
)

const (
	// maxWindow is how many blocks are sent without an acknowledgement, and
	// maxFlight how many bytes: what a switch and a card's ring can take.
	maxWindow = 64
	maxFlight = 256 << 10
)

// A transfer sends a file, in windows of one block (RFC 1350) or several (RFC 7440).
type transfer struct {
	conn    wire
	blocks  *blocks
	window  uint64 // blocks
	timeout time.Duration
	oack    []byte // what is told of the options (RFC 2347); nil: there are none

	out []ipv4.Message // for one system call
}

// A wire leads to one client.
type wire interface {
	WriteBatch(ms []ipv4.Message, flags int) (int, error)
	Read(p []byte) (int, error)
	SetReadDeadline(t time.Time) error
}

// A socket is a wire of the network.
type socket struct {
	*ipv4.PacketConn
	conn *net.UDPConn
	end  time.Time // the deadline, as far as the kernel's timers know
}

// WriteBatch implements [wire].
func (s *socket) WriteBatch(ms []ipv4.Message, flags int) (int, error) {
	if len(ms) > 1 {
		return s.PacketConn.WriteBatch(ms, flags)
	}
	_, err := s.conn.Write(ms[0].Buffers[0]) // takes less time
	return 1, err
}

// Read implements [wire].
func (s *socket) Read(p []byte) (int, error) { return s.conn.Read(p) }

// SetReadDeadline implements [wire]. To set it for each of many packets would take as
// long as to send them, so it may end up a little early.
func (s *socket) SetReadDeadline(t time.Time) error {
	if early := t.Sub(s.end); early >= 0 && early < 50*time.Millisecond {
		return nil
	}
	s.end = t
	return s.conn.SetReadDeadline(t)
}

// dial opens a socket for one client, which is known by its port (RFC 1350
// section 4). What others send there does not arrive. It leaves from the address
// that the client has asked, unless that is unknown (unspecified); mtu is how large
// packets can be, or 0.
func dial(server netip.Addr, client netip.AddrPort) (conn *net.UDPConn, mtu int, err error) {
	conn, err = net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(server, 0)), net.UDPAddrFromAddrPort(client))
	if err != nil {
		return nil, 0, err
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			if n, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_MTU); err == nil {
				mtu = n
			}
		})
	}
	if err != nil {
		conn.Close()
		return nil, 0, err
	}
	return conn, mtu, nil
}

// newTransfer agrees upon what the client asks for: no more than it said, and no
// more than fits. A size below 0 is not known.
func newTransfer(conn wire, q request, mtu int, r io.Reader, size int64) *transfer {
	block := minBlock
	if q.block > 0 {
		block = q.block
		if mtu > 0 {
			block = min(block, max(mtu-overhead, minBlock))
		}
	}
	window := min(max(q.window, 1), maxWindow, max(maxFlight/block, 1))
	t := &transfer{conn: conn, window: uint64(window), timeout: timeout, blocks: newBlocks(r, block, window)}
	add := func(name string, value int64) {
		if t.oack == nil {
			t.oack = binary.BigEndian.AppendUint16(nil, opOack)
		}
		t.oack = append(append(append(append(t.oack, name...), 0), strconv.FormatInt(value, 10)...), 0)
	}
	if q.block > 0 {
		add("blksize", int64(block))
	}
	if q.size && size >= 0 {
		add("tsize", size)
	}
	if q.timeout > 0 {
		t.timeout = q.timeout
		add("timeout", int64(q.timeout/time.Second))
	}
	if q.window > 0 {
		add("windowsize", int64(window))
	}
	return t
}

// run sends the file, and returns its size. As soon as the client has answered it
// calls answered, whose error ends it.
func (t *transfer) run(answered func() error) (int64, error) {
	acked, err := uint64(0), error(nil)
	if t.oack != nil {
		if _, err = t.exchange(0, 0, true); err == nil {
			err = answered()
		}
	}
	for first := t.oack == nil; err == nil; first = false {
		var end uint64
		if end, err = t.send(acked + 1); err != nil {
			break
		}
		if acked, err = t.exchange(acked, end, false); err == nil && t.blocks.last > 0 && acked == t.blocks.last {
			return t.blocks.bytes, nil
		}
		if err == nil && first {
			err = answered()
		}
	}
	return 0, err
}

// exchange waits until some block after acked is acknowledged, as far as end,
// and returns which. What is not answered in time is sent again; first means the
// answer about the options, which has the number 0.
func (t *transfer) exchange(acked, end uint64, first bool) (uint64, error) {
	if first {
		if err := t.write([]ipv4.Message{{Buffers: [][]byte{t.oack}}}); err != nil {
			return 0, err
		}
	}
	repeated := false
	var p [maxRequest]byte
	for try := 0; ; {
		if err := t.conn.SetReadDeadline(time.Now().Add(t.timeout)); err != nil {
			return 0, err
		}
	wait:
		n, err := t.conn.Read(p[:])
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if try++; try > retries {
				return 0, fmt.Errorf("the client does not acknowledge block %d", acked+1)
			}
		case err != nil:
			return 0, err
		default:
			number, ok, err := acknowledged(p[:n])
			if err != nil {
				return 0, err
			}
			// Numbers wrap around at 16 bits; what is older than the window
			// was meant for another one.
			at := acked + uint64(number-uint16(acked))
			switch {
			case !ok || at > end:
				goto wait
			case first || at > acked:
				return at, nil
			case repeated || t.window == 1:
				// Without windows there is nothing to learn from it (RFC 1123
				// section 4.2.3.1). With them, first block was lost, and that
				// has been seen to. To answer each of these would double every
				// packet to the end of the file.
				goto wait
			}
			repeated = true
		}
		if first {
			err = t.write([]ipv4.Message{{Buffers: [][]byte{t.oack}}})
		} else {
			_, err = t.send(acked + 1)
		}
		if err != nil {
			return 0, err
		}
	}
}

// send sends a window of blocks from the given one on, and returns the last.
func (t *transfer) send(from uint64) (uint64, error) {
	t.out = t.out[:0]
	end := from - 1
	for n := from; n < from+t.window; n++ {
		p, ok, err := t.blocks.packet(n)
		if err != nil {
			return 0, err
		}
		if !ok {
			break
		}
		t.out = append(t.out, ipv4.Message{Buffers: [][]byte{p}})
		end = n
	}
	return end, t.write(t.out)
}

func (t *transfer) write(out []ipv4.Message) error {
	for len(out) > 0 {
		n, err := t.conn.WriteBatch(out, 0)
		if errors.Is(err, syscall.ENOBUFS) {
			return nil // lost on the way, as it were
		}
		if err != nil {
			return err
		}
		out = out[n:]
	}
	return nil
}

// A clientError is what a client ended a transfer with.
type clientError struct {
	code uint16
	text string
}

func (e *clientError) Error() string {
	return fmt.Sprintf("the client ended it with error %d: %s", e.code, e.text)
}

// acknowledged reads which block a client has. It reports false for what is
// neither an acknowledgement nor an error.
func acknowledged(p []byte) (number uint16, ok bool, err error) {
	if len(p) < 4 {
		return 0, false, nil
	}
	number = binary.BigEndian.Uint16(p[2:])
	switch binary.BigEndian.Uint16(p) {
	case opAck:
		return number, true, nil
	case opError:
		text := p[4:]
		for i, c := range text {
			if c < ' ' || c > '~' {
				text = text[:i]
				break
			}
		}
		return 0, false, &clientError{number, string(text)}
	}
	return 0, false, nil
}

// blocks are the data packets of a file, of which the last window is kept.
type blocks struct {
	r      io.Reader
	size   int // of a block
	window int
	ring   [][]byte // packets, made when they are needed; block n is at n modulo the window
	read   uint64   // the last block that was read; they count from 1
	last   uint64   // the file's last one, shorter than size; 0: not known yet
	bytes  int64
}

func newBlocks(r io.Reader, size, window int) *blocks {
	return &blocks{r: r, size: size, window: window}
}

// packet returns the packet of a block, at most a window before the last one
// that was asked for. It reports false behind the last one.
func (b *blocks) packet(n uint64) ([]byte, bool, error) {
	if b.ring == nil {
		b.ring, b.r = make([][]byte, b.window), bufio.NewReaderSize(b.r, readAhead)
	}
	for b.read < n {
		if b.last > 0 {
			return nil, false, nil
		}
		p := b.ring[(b.read+1)%uint64(b.window)]
		if p == nil {
			p = binary.BigEndian.AppendUint16(make([]byte, 0, 4+b.size), opData)
		}
		p = p[:4+b.size]
		got, err := io.ReadFull(b.r, p[4:])
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, false, err
		}
		b.read++
		b.bytes += int64(got)
		binary.BigEndian.PutUint16(p[2:], uint16(b.read))
		b.ring[b.read%uint64(b.window)] = p[:4+got]
		if got < b.size {
			b.last = b.read
		}
	}
	return b.ring[n%uint64(b.window)], true, nil
}
