package tftp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"
)

// Opcodes (RFC 1350 section 5).
const (
	opRead  = 1
	opWrite = 2
	opError = 5
)

// Modes (RFC 1350 section 1). In the second one ends of lines are converted.
const (
	octet    = "octet"
	netASCII = "netascii"
)

// maxRequest is the size of the largest request (RFC 2347: "The maximum size of
// a request packet is 512 octets").
const maxRequest = 512

// Sizes of a data block without its header. Every client takes 512 (RFC 1350);
// the largest fills an IP packet (RFC 2348).
const (
	minBlock = 512
	maxBlock = 65464
	// overhead is what a data packet adds to its block: IPv4, UDP, TFTP.
	overhead = 20 + 8 + 4
)

var (
	errNotRequest = errors.New("not a request")
	errWrite      = errors.New("a write request")
)

// A request is a read request, as far as it matters here.
type request struct {
	name  string // as the client spelled it
	mode  string
	block int  // wished block size; 0: none
	size  bool // wants to know the file's size (option tsize, RFC 2349)

	window  int           // blocks to an acknowledgement (RFC 7440); 0: does not say
	timeout time.Duration // until something is sent again (RFC 2349); 0: does not say
}

// parseRequest reads a packet that arrived at the server's port.
func parseRequest(p []byte) (request, error) {
	var q request
	if len(p) < 2 || len(p) > maxRequest {
		return q, errNotRequest
	}
	switch binary.BigEndian.Uint16(p) {
	case opRead:
	case opWrite:
		return q, errWrite
	default:
		return q, errNotRequest
	}
	// Everything is text ended by a zero; what follows the last zero is
	// padding of firmware that sends a whole buffer.
	fields := bytes.Split(p[2:], []byte{0})
	fields = fields[:len(fields)-1]
	if len(fields) < 2 || len(fields[0]) == 0 || len(fields[1]) == 0 {
		return q, fmt.Errorf("%w: no file name or mode", errNotRequest)
	}
	q.name = string(fields[0])
	q.mode = octet // whatever a client calls it: files go out as they are
	if strings.EqualFold(string(fields[1]), netASCII) {
		q.mode = netASCII
	}
	for opts := fields[2:]; len(opts) >= 2; opts = opts[2:] {
		q.option(strings.ToLower(string(opts[0])), string(opts[1]))
	}
	return q, nil
}

// option takes in an option if it is known and well-formed; the others are to
// be ignored (RFC 2347).
func (q *request) option(name, value string) {
	switch name {
	case "blksize":
		if n, err := strconv.Atoi(value); err == nil && n >= minBlock && n <= maxBlock {
			q.block = n
		}
	case "tsize":
		q.size = true
	case "windowsize":
		if n, err := strconv.ParseUint(value, 10, 16); err == nil && n > 0 {
			q.window = int(n)
		}
	case "timeout":
		if n, err := strconv.ParseUint(value, 10, 8); err == nil && n > 0 {
			q.timeout = time.Duration(n) * time.Second
		}
	}
}

// errorPacket writes an error (RFC 1350 section 5).
func errorPacket(code uint16, text string) []byte {
	p := binary.BigEndian.AppendUint16(nil, opError)
	p = binary.BigEndian.AppendUint16(p, code)
	return append(append(p, text...), 0)
}

// cleanName turns the name in a request into a slash-separated path below the
// root, without dots. It reports false when no file can be meant.
func cleanName(name string) (string, bool) {
	// Firmware that takes the boot file from DHCP option 67 without looking
	// at its length sends the end-of-options byte too.
	for strings.HasSuffix(name, "\xff") {
		name = name[:len(name)-1]
	}
	name = strings.ReplaceAll(name, `\`, "/")
	for i := range len(name) {
		if name[i] < ' ' || name[i] == 0x7f {
			return "", false
		}
	}
	// Cleaning from the root makes .. at the root stay there, as in a chroot.
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	return name, name != ""
}
