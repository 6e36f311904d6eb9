package lease

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"time"

	"bootd/boot"
)

// A file begins with magic, followed by frames. A frame is what was made
// durable at once; the next one is written only after that. So what is torn by
// a crash is the last frame, whichever of its pages reached the disk, and a bad
// frame with a good one behind it is damage.
//
//	frame    mark (4 bytes), length of the payload (4, little endian),
//	         CRC-32C of the payload (4), payload
//	payload  records
//	record   state (1), MAC (6), address (4), start (8), expiry (8, both Unix
//	         nanoseconds, little endian), network and host (each 1 byte of
//	         length and the text)
const (
	magic       = "bootd leases 2\n"
	mark        = "\xb0\x07\x1e\xa5"
	frameHeader = len(mark) + 8
	minRecord   = 1 + 6 + 4 + 8 + 8 + 1 + 1
	maxText     = 255
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errTorn says that a file ends in a frame that is not whole.
var errTorn = errors.New("its last commit is not complete")

// encode appends the record of l to b.
func encode(b []byte, l Lease) []byte {
	b = append(b, byte(l.State))
	b = append(b, l.MAC[:]...)
	a := l.Addr.As4()
	b = append(b, a[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(l.Start.UnixNano()))
	b = binary.LittleEndian.AppendUint64(b, uint64(l.Expires.UnixNano()))
	for _, s := range []string{l.Network, l.Host} {
		s = s[:min(len(s), maxText)]
		b = append(b, byte(len(s)))
		b = append(b, s...)
	}
	return b
}

// seal fills in the header of a frame: frameHeader bytes, then records.
func seal(b []byte) {
	payload := b[frameHeader:]
	copy(b, mark)
	binary.LittleEndian.PutUint32(b[len(mark):], uint32(len(payload)))
	binary.LittleEndian.PutUint32(b[len(mark)+4:], crc32.Checksum(payload, castagnoli))
}

// frame returns the payload of the frame at the beginning of b, or nil when
// there is none that is whole.
func frame(b []byte) []byte {
	if len(b) < frameHeader || string(b[:len(mark)]) != mark {
		return nil
	}
	n := uint64(binary.LittleEndian.Uint32(b[len(mark):]))
	if n < minRecord || n > uint64(len(b)-frameHeader) {
		return nil
	}
	payload := b[frameHeader : frameHeader+int(n)]
	if crc32.Checksum(payload, castagnoli) != binary.LittleEndian.Uint32(b[len(mark)+4:]) {
		return nil
	}
	return payload
}

// parse applies the records of a file that begins with magic, and returns
// where the last good frame ends.
func parse(b []byte, apply func(Lease)) (end int, err error) {
	end = len(magic)
	for end < len(b) {
		payload := frame(b[end:])
		if payload == nil {
			return end, badFrame(b, end)
		}
		for rest := payload; len(rest) > 0; {
			l, n, err := decode(rest)
			if err != nil {
				return end, err
			}
			apply(l)
			rest = rest[n:]
		}
		end += frameHeader + len(payload)
	}
	return end, nil
}

// badFrame tells a torn end from damage.
func badFrame(b []byte, at int) error {
	for i := at + 1; ; i++ {
		n := bytes.Index(b[i:], []byte(mark))
		if n < 0 {
			return errTorn
		}
		if i += n; frame(b[i:]) != nil {
			return fmt.Errorf("what follows from byte %d on is whole", i)
		}
	}
}

// decode reads the record at the beginning of b and returns its length. The
// checksum was right, so an error means another version of the format.
func decode(b []byte) (Lease, int, error) {
	if len(b) < minRecord {
		return Lease{}, 0, errors.New("a record is too short")
	}
	l := Lease{
		State:   State(b[0]),
		MAC:     boot.MAC(b[1:7]),
		Addr:    netip.AddrFrom4([4]byte(b[7:11])),
		Start:   time.Unix(0, int64(binary.LittleEndian.Uint64(b[11:]))),
		Expires: time.Unix(0, int64(binary.LittleEndian.Uint64(b[19:]))),
	}
	n := 27
	for _, s := range []*string{&l.Network, &l.Host} {
		if len(b) <= n || len(b) < n+1+int(b[n]) {
			return Lease{}, 0, errors.New("a record is too short")
		}
		*s = string(b[n+1 : n+1+int(b[n])])
		n += 1 + int(b[n])
	}
	if l.State != Bound && l.State != Released && l.State != Declined {
		return Lease{}, 0, fmt.Errorf("a record has %s", l.State)
	}
	return l, n, nil
}
