package boot

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// What can be wrong with a ticket. A ticket that is expired or shown from the
// wrong address is genuine otherwise, so what it says can be believed when the
// refusal is recorded; of the other two nothing can be.
var (
	ErrTicketMalformed = errors.New("this is not a ticket")
	ErrTicketForged    = errors.New("this ticket was not issued here, or for something else")
	ErrTicketExpired   = errors.New("this ticket has expired")
	ErrTicketAddress   = errors.New("this ticket belongs to another address")
)

// A ticketKind keeps one kind of ticket from being taken for another: it is
// the first byte of what is authenticated.
type ticketKind byte

const (
	bootTicket   ticketKind = 1
	reportTicket ticketKind = 2
)

const (
	ticketTag  = 16 // HMAC-SHA256 truncated to 128 bits
	ticketBoot = 8  // of the boot's ID, hashed
	minKey     = 32

	// maxTicket bounds the text that is looked at: the longest ticket is one
	// for an IPv6 network.
	maxTicket = 96
)

// ticketText is URL-safe, and strict so that every ticket has one spelling.
var ticketText = base64.RawURLEncoding.Strict()

// Tickets issues and checks tickets. A ticket is text that goes into a URL: it
// says which machine in which boot it is for, and carries a message
// authentication code that only the holder of the key can compute. Nothing is
// remembered about tickets issued, so they outlive a restart as long as the key
// does.
//
// There are two kinds, which do not stand for each other. A boot ticket opens
// what is secret, the machine's Ignition config, to one address (or network)
// until it expires. A report ticket lets a machine tell how its boot goes on; it
// opens nothing, and ends with the boot.
//
// Tickets may be used by several goroutines at once.
type Tickets struct{ key []byte }

// NewTickets issues tickets under key, which must hold at least 32 random
// bytes. Tickets issued under another key are refused as forged.
func NewTickets(key []byte) (*Tickets, error) {
	if len(key) < minKey {
		return nil, fmt.Errorf("cannot issue tickets: the key has %d bytes, needs %d or more", len(key), minKey)
	}
	return &Tickets{slices.Clone(key)}, nil
}

// A Ticket is what a genuine ticket says.
type Ticket struct {
	MAC MAC
	// From is where a boot ticket may be shown from, the machine's own
	// address for the most part; the zero Prefix in a report ticket.
	From netip.Prefix
	// Expires is when a boot ticket ends, in whole seconds; zero in a report
	// ticket.
	Expires time.Time

	boot [ticketBoot]byte
}

// Of reports whether t was issued in the boot with this ID ([Timeline.ID]).
func (t Ticket) Of(id string) bool { return t.boot == hashBoot(id) }

// Boot issues the ticket for the secrets of one boot: to the machine mac, to be
// shown from an address in from, until expires.
func (ts *Tickets) Boot(id string, mac MAC, from netip.Prefix, expires time.Time) string {
	p := ts.payload(bootTicket, id, mac)
	p = binary.BigEndian.AppendUint32(p, uint32(expires.Unix())) // until 2106
	p = append(p, byte(from.Bits()))
	p = append(p, from.Masked().Addr().AsSlice()...)
	return ts.seal(p)
}

// Report issues the ticket with which machine mac reports about one boot.
func (ts *Tickets) Report(id string, mac MAC) string {
	return ts.seal(ts.payload(reportTicket, id, mac))
}

// OpenBoot checks a boot ticket that was shown from addr at the time now. With
// [ErrTicketExpired] and [ErrTicketAddress] the Ticket is returned all the same.
// Whether its boot is still the machine's current one is for the caller to see.
func (ts *Tickets) OpenBoot(text string, addr netip.Addr, now time.Time) (Ticket, error) {
	t, rest, err := ts.open(bootTicket, text)
	if err != nil {
		return Ticket{}, err
	}
	// From here on the bytes are our own: what follows can only be wrong if
	// Boot is.
	if len(rest) < 5 {
		return Ticket{}, ErrTicketMalformed
	}
	t.Expires = time.Unix(int64(binary.BigEndian.Uint32(rest)), 0)
	from, ok := netip.AddrFromSlice(rest[5:])
	if !ok {
		return Ticket{}, ErrTicketMalformed
	}
	t.From = netip.PrefixFrom(from, int(rest[4]))
	switch {
	case !t.From.Contains(addr.Unmap()):
		return t, ErrTicketAddress
	case now.After(t.Expires):
		return t, ErrTicketExpired
	}
	return t, nil
}

// OpenReport checks a report ticket. Whether its boot is still the machine's
// current one is for the caller to see.
func (ts *Tickets) OpenReport(text string) (Ticket, error) {
	t, rest, err := ts.open(reportTicket, text)
	if err == nil && len(rest) != 0 {
		return Ticket{}, ErrTicketMalformed
	}
	return t, err
}

// payload begins what both kinds of ticket say: kind, MAC, boot.
func (ts *Tickets) payload(k ticketKind, id string, mac MAC) []byte {
	p := append([]byte{byte(k)}, mac[:]...)
	b := hashBoot(id)
	return append(p, b[:]...)
}

// hashBoot shortens a boot's ID. Tickets are authenticated, so nobody can look
// for two boots with the same hash to his advantage; it only has to tell the
// boots of one machine apart.
func hashBoot(id string) [ticketBoot]byte {
	h := sha256.Sum256([]byte(id))
	return [ticketBoot]byte(h[:ticketBoot])
}

func (ts *Tickets) seal(payload []byte) string {
	return ticketText.EncodeToString(append(payload, ts.tag(payload)...))
}

func (ts *Tickets) tag(payload []byte) []byte {
	h := hmac.New(sha256.New, ts.key)
	h.Write(payload)
	return h.Sum(nil)[:ticketTag]
}

// open checks the tag and takes apart what all tickets have in common.
func (ts *Tickets) open(k ticketKind, text string) (t Ticket, rest []byte, err error) {
	const head = 1 + len(t.MAC) + ticketBoot
	if len(text) > maxTicket {
		return Ticket{}, nil, ErrTicketMalformed
	}
	raw, err := ticketText.DecodeString(text)
	// The decoder skips line ends, so one ticket would have many spellings.
	if err != nil || ticketText.EncodedLen(len(raw)) != len(text) || len(raw) < head+ticketTag {
		return Ticket{}, nil, ErrTicketMalformed
	}
	payload, tag := raw[:len(raw)-ticketTag], raw[len(raw)-ticketTag:]
	if !hmac.Equal(tag, ts.tag(payload)) || ticketKind(payload[0]) != k {
		return Ticket{}, nil, ErrTicketForged
	}
	r := bytes.NewBuffer(payload[1:])
	copy(t.MAC[:], r.Next(len(t.MAC)))
	copy(t.boot[:], r.Next(ticketBoot))
	return t, r.Bytes(), nil
}
