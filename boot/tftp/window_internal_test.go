package tftp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/ipv4"
)

// A client is one of RFC 7440, at the other end of a wire that loses, repeats
// and delays packets. It reads from what is written to it.
type client struct {
	rand           *rand.Rand
	lose           float64 // of packets in either direction
	deaf           bool
	twice          bool // whatever it says comes twice
	abort          bool // after the answer about the options
	in             chan []byte
	acks           chan []byte
	deadline       time.Time
	options        string
	got            bytes.Buffer
	next           uint64 // block that is waited for
	fresh          uint64 // blocks since the last acknowledgement
	window         uint64
	size           int
	done           bool
	packets, gaps  int
	gapTold        bool
	acknowledgedTo uint64
}

func newClient(seed uint64, lose float64) *client {
	return &client{rand: rand.New(rand.NewPCG(seed, 0)), lose: lose, in: make(chan []byte, 1000), acks: make(chan []byte, 10000), next: 1, window: 1, size: minBlock}
}

func (c *client) lost() bool { return c.rand.Float64() < c.lose }

func (c *client) WriteBatch(ms []ipv4.Message, _ int) (int, error) {
	for _, m := range ms {
		c.packets++
		if c.deaf || c.lost() {
			continue
		}
		c.receive(bytes.Join(m.Buffers, nil))
		if c.lost() {
			c.receive(bytes.Join(m.Buffers, nil)) // comes twice
		}
	}
	return len(ms), nil
}

func (c *client) send(p []byte) {
	if !c.lost() {
		c.acks <- p
	}
	if c.twice {
		c.acks <- p
	}
}

func (c *client) ack(n uint64) {
	c.fresh, c.acknowledgedTo = 0, n
	c.send(binary.BigEndian.AppendUint16([]byte{0, opAck}, uint16(n)))
}

// receive does what RFC 7440 section 3 says of a receiver.
func (c *client) receive(p []byte) {
	switch binary.BigEndian.Uint16(p) {
	case opOack:
		c.options = strings.ReplaceAll(string(p[2:]), "\x00", " ")
		f := strings.Fields(c.options)
		c.window, c.size = 1, 512
		for i := 0; i+1 < len(f); i += 2 {
			switch f[i] {
			case "blksize":
				fmt.Sscan(f[i+1], &c.size)
			case "windowsize":
				fmt.Sscan(f[i+1], &c.window)
			}
		}
		if c.abort {
			c.send([]byte("\x00\x05\x00\x08User aborted\x00"))
			return
		}
		if c.next == 1 {
			c.ack(0)
		}
	case opData:
		number := binary.BigEndian.Uint16(p[2:])
		switch {
		case number != uint16(c.next):
			if !c.gapTold { // a block is missing: tell the last good one
				c.gapTold, c.gaps = true, c.gaps+1
				c.ack(c.next - 1)
			} else if number == uint16(c.next-1) {
				c.ack(c.next - 1) // the acknowledgement was lost
			}
			return
		}
		c.gapTold = false
		c.got.Write(p[4:])
		c.next++
		c.fresh++
		c.done = len(p)-4 < c.size
		if c.fresh == c.window || c.done {
			c.ack(c.next - 1)
		}
	}
}

func (c *client) SetReadDeadline(t time.Time) error {
	c.deadline = t
	return nil
}

func (c *client) Read(p []byte) (int, error) {
	select {
	case a := <-c.acks:
		time.Sleep(time.Millisecond)
		return copy(p, a), nil
	case <-time.After(time.Until(c.deadline)):
		return 0, os.ErrDeadlineExceeded
	}
}

// always lets every client have its file at once.
func always() error { return nil }

func content(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return b
}

// TestWindows sends files of all awkward sizes through wires that lose up to a
// tenth of all packets.
func TestWindows(t *testing.T) {
	for _, lose := range []float64{0, 0.01, 0.1} {
		for _, window := range []int{0, 1, 4, 16, 64, 1000} {
			for _, size := range []int{0, 1, 511, 512, 513, 512 * 64, 512*65 + 3, 300_000} {
				synctest.Test(t, func(t *testing.T) {
					c := newClient(uint64(size+window), lose)
					q := request{mode: "octet", block: 512, size: true, window: window, timeout: 2 * time.Second}
					n, err := newTransfer(c, q, 1500, bytes.NewReader(content(size)), int64(size)).run(always)
					if lose > 0 && err != nil && c.done {
						return // all has arrived, and only the last acknowledgement has not
					}
					if err != nil || n != int64(size) || !bytes.Equal(c.got.Bytes(), content(size)) {
						t.Fatalf("loss %.2f, window %d, %d bytes: sent %d, %v; %d arrived", lose, window, size, n, err, c.got.Len())
					}
					if blocks := size/512 + 1; lose == 0 && c.packets != blocks+1 {
						t.Errorf("window %d, %d bytes: %d packets for %d blocks", window, size, c.packets, blocks)
					}
				})
			}
		}
	}
}

// TestPlain sends as RFC 1350 says, to a client that knows of no options.
func TestPlain(t *testing.T) {
	for _, lose := range []float64{0, 0.1} {
		for _, size := range []int{0, 1, 511, 512, 513, 300_000} {
			synctest.Test(t, func(t *testing.T) {
				c := newClient(uint64(size), lose)
				told := 0
				n, err := newTransfer(c, request{mode: octet}, 1500, bytes.NewReader(content(size)), int64(size)).run(func() error {
					if told++; len(c.acks) > 0 {
						t.Error("it went on before the client was let in")
					}
					return nil
				})
				if lose > 0 && err != nil && c.done {
					return
				}
				if err != nil || n != int64(size) || !bytes.Equal(c.got.Bytes(), content(size)) || c.options != "" {
					t.Fatalf("loss %.2f, %d bytes: sent %d, %v; %d arrived, options %q", lose, size, n, err, c.got.Len(), c.options)
				}
				if want := min(size/512, 1); told != want {
					t.Errorf("%d bytes: the client was let in %d times", size, told)
				}
			})
		}
	}
}

// TestRollover: block numbers have 16 bits, and files more blocks than that.
func TestRollover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 512*140_000 + 5
		c := newClient(1, 0.0005)
		c.got.Grow(size)
		file := content(size)
		n, err := newTransfer(c, request{mode: "octet", window: 16, timeout: time.Second}, 1500, bytes.NewReader(file), size).run(always)
		if err != nil || n != size || !bytes.Equal(c.got.Bytes(), file) {
			t.Errorf("sent %d, %v; %d arrived", n, err, c.got.Len())
		}
		if c.gaps == 0 {
			t.Error("nothing was lost")
		}
	})
}

// TestAgreement is what is agreed upon.
func TestAgreement(t *testing.T) {
	for _, tt := range []struct {
		q    request
		mtu  int
		want string
	}{
		{request{window: 4, block: 1468, size: true}, 1500, "blksize 1468 tsize 99 windowsize 4 "},
		{request{window: 4, block: 1468}, 1400, "blksize 1368 windowsize 4 "},
		{request{window: 1000}, 1500, "windowsize 64 "},
		{request{window: 64, block: 65464}, 65536, "blksize 65464 windowsize 4 "},
		{request{timeout: 3 * time.Second}, 1500, "timeout 3 "},
		{request{block: 1468}, 1450, "blksize 1418 "},    // through a tunnel
		{request{block: 65464}, 65536, "blksize 65464 "}, // loopback
		{request{block: 1468}, 0, "blksize 1468 "},       // unknown
		{request{block: 1468}, 68, "blksize 512 "},       // cannot be
		{request{}, 1500, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newClient(1, 0)
			if _, err := newTransfer(c, tt.q, tt.mtu, bytes.NewReader(content(99)), 99).run(always); err != nil || c.options != tt.want {
				t.Errorf("%+v: %q, %v; want %q", tt.q, c.options, err, tt.want)
			}
		})
	}
}

// TestClientGone: who is silent is given up, and who says so has ended it.
func TestClientGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(1, 0)
		c.deaf = true
		began := time.Now()
		_, err := newTransfer(c, request{window: 4, timeout: 3 * time.Second}, 1500, bytes.NewReader(nil), 0).run(always)
		if err == nil || time.Since(began) != 30*time.Second || c.packets != 10 {
			t.Errorf("%v after %s and %d packets", err, time.Since(began), c.packets)
		}
		c = newClient(1, 0)
		c.abort = true
		_, err = newTransfer(c, request{window: 4, size: true}, 1500, bytes.NewReader(nil), 0).run(always)
		var ended *clientError
		if !errors.As(err, &ended) || ended.code != 8 || ended.text != "User aborted" {
			t.Errorf("%v", err)
		}
	})
}

// TestSorcerersApprentice: however often an acknowledgement comes, a window is
// sent again once for it, and once for each silence.
func TestSorcerersApprentice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(1, 0)
		tr := newTransfer(c, request{window: 4, timeout: time.Second}, 1500, bytes.NewReader(content(512*100)), 512*100)
		c.deaf = true
		for range 1000 {
			c.acks <- []byte{0, opAck, 0, 0}
		}
		_, err := tr.run(always)
		// The options once, the first window, once more for the repeated
		// acknowledgements, and then for silence.
		if err == nil || c.packets > 1+4*(2+retries+1) {
			t.Errorf("%v, %d packets", err, c.packets)
		}
	})
}

// TestTwice: a network that doubles each acknowledgement does not have each block
// sent twice (RFC 1123 section 4.2.3.1).
func TestTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const blocks = 100
		c := newClient(1, 0)
		c.twice = true
		file := content(512*blocks - 1)
		n, err := newTransfer(c, request{block: 512}, 1500, bytes.NewReader(file), int64(len(file))).run(always)
		if err != nil || n != int64(len(file)) || !bytes.Equal(c.got.Bytes(), file) || c.packets != 1+blocks {
			t.Errorf("sent %d bytes in %d packets, %v", n, c.packets, err)
		}
	})
}

// FuzzAcknowledged: what is not an acknowledgement changes nothing.
func FuzzAcknowledged(f *testing.F) {
	f.Add([]byte{0, 4, 0, 1})
	f.Add([]byte{0, 5, 0, 8, 'a', 0})
	f.Add([]byte{0, 3, 0, 1, 'a'})
	f.Add([]byte{0, 4})
	f.Fuzz(func(t *testing.T, p []byte) {
		n, ok, err := acknowledged(p)
		if ok && (err != nil || len(p) < 4 || p[0] != 0 || p[1] != opAck || n != binary.BigEndian.Uint16(p[2:])) {
			t.Errorf("%x: %d, %t, %v", p, n, ok, err)
		}
		if err != nil && strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q is not printable", err)
		}
	})
}

var _ wire = (*client)(nil)
