package tftp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
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

// wants reports whether a client asks for something that the library does not
// do: windows, or a timeout of its own.
func (q request) wants() bool {
	return q.mode == "octet" && (q.window > 0 || q.timeout > 0)
}

// A transfer sends a file in windows of several blocks (RFC 7440).
type transfer struct {
	conn    wire
	blocks  *blocks
	window  uint64 // blocks
	timeout time.Duration
	oack    []byte // what is told of the options

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
}

func (s socket) Read(p []byte) (int, error) { return s.conn.Read(p) }

// dial opens a socket for one client, which is known by its port (RFC 1350
// section 4). What others send there does not arrive.
func dial(s session) (*net.UDPConn, error) {
	return net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.server, 0)), net.UDPAddrFromAddrPort(s.client))
}

// newTransfer agrees upon what the client asks for: no more than it said, and no
// more than fits.
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
	t.oack = binary.BigEndian.AppendUint16(nil, opOack)
	add := func(name string, value int64) {
		t.oack = append(append(append(append(t.oack, name...), 0), strconv.FormatInt(value, 10)...), 0)
	}
	if q.block > 0 {
		add("blksize", int64(block))
	}
	if q.size {
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

// run sends the file, and returns its size.
func (t *transfer) run() (int64, error) {
	acked, err := t.exchange(0, 0, true)
	for err == nil {
		var end uint64
		if end, err = t.send(acked + 1); err != nil {
			break
		}
		if acked, err = t.exchange(acked, end, false); err == nil && t.blocks.last > 0 && acked == t.blocks.last {
			return t.blocks.bytes, nil
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
			case repeated:
				// The first block was lost, and that has been seen to. To
				// answer each of these would double every packet to the end
				// of the file.
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
	r     io.Reader
	size  int      // of a block
	ring  [][]byte // packets; block n is at n modulo the length
	read  uint64   // the last block that was read; they count from 1
	last  uint64   // the file's last one, shorter than size; 0: not known yet
	bytes int64
}

func newBlocks(r io.Reader, size, window int) *blocks {
	b := &blocks{r: r, size: size, ring: make([][]byte, window)}
	for i := range b.ring {
		b.ring[i] = make([]byte, 4+size)
		binary.BigEndian.PutUint16(b.ring[i], opData)
	}
	return b
}

// packet returns the packet of a block, at most a window before the last one
// that was asked for. It reports false behind the last one.
func (b *blocks) packet(n uint64) ([]byte, bool, error) {
	for b.read < n {
		if b.last > 0 {
			return nil, false, nil
		}
		p := b.ring[(b.read+1)%uint64(len(b.ring))]
		p = p[:4+b.size]
		got, err := io.ReadFull(b.r, p[4:])
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, false, err
		}
		b.read++
		b.bytes += int64(got)
		binary.BigEndian.PutUint16(p[2:], uint16(b.read))
		b.ring[b.read%uint64(len(b.ring))] = p[:4+got]
		if got < b.size {
			b.last = b.read
		}
	}
	return b.ring[n%uint64(len(b.ring))], true, nil
}

// sendWindows is one transfer without the library.
func (s *Server) sendWindows(ctx context.Context, q request, ses session, mtu int) {
	defer s.front.end(ses.id)
	log := s.log.With("addr", ses.client.String(), "file", ses.name)
	conn, err := dial(ses)
	if err != nil {
		log.Warn("TFTP request not served", "err", err)
		return
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	name, f, refusal := s.find(ctx, log, ses)
	if refusal != nil {
		_, _ = conn.Write(errorPacket(1, refusal.Error())) // it asks again if this is lost
		return
	}
	defer f.Close()
	t := newTransfer(socket{ipv4.NewPacketConn(conn), conn}, q, mtu, &source{ctx, f}, f.Size)
	n, err := t.run()
	var ended *clientError
	switch {
	case ctx.Err() != nil:
		log.Debug("TFTP transfer ended: the server stops")
	case errors.As(err, &ended):
		log.Debug("TFTP transfer ended by the client", "err", err)
	case err != nil:
		log.Info("TFTP transfer not completed", "err", err)
		_, _ = conn.Write(errorPacket(0, "the file cannot be sent"))
	default:
		s.sent(log, ses, name, f, n)
	}
}
