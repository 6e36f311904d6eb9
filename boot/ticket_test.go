package boot_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"bootd/boot"
)

var (
	ticketKey  = bytes.Repeat([]byte{7}, 32)
	ticketMAC  = boot.MAC{0x52, 0x54, 0, 0x12, 0x34, 0x56}
	ticketHost = netip.MustParsePrefix("10.0.0.11/32")
	ticketTime = time.Date(2026, 5, 9, 12, 0, 0, 0, time.UTC)
)

func newTickets(t testing.TB, key []byte) *boot.Tickets {
	t.Helper()
	ts, err := boot.NewTickets(key)
	if err != nil {
		t.Fatal(err)
	}
	return ts
}

func TestBootTicket(t *testing.T) {
	ts := newTickets(t, ticketKey)
	expires := ticketTime.Add(10 * time.Minute)
	subnet := netip.MustParsePrefix("10.0.0.0/24")
	for name, tt := range map[string]struct {
		from netip.Prefix
		addr string
		now  time.Time
		want error
	}{
		"in time":               {ticketHost, "10.0.0.11", ticketTime, nil},
		"as a mapped address":   {ticketHost, "::ffff:10.0.0.11", ticketTime, nil},
		"in the last second":    {ticketHost, "10.0.0.11", expires, nil},
		"a second late":         {ticketHost, "10.0.0.11", expires.Add(time.Second), boot.ErrTicketExpired},
		"from another address":  {ticketHost, "10.0.0.12", ticketTime, boot.ErrTicketAddress},
		"late and elsewhere":    {ticketHost, "10.0.0.12", expires.Add(time.Hour), boot.ErrTicketAddress},
		"in the network":        {subnet, "10.0.0.99", ticketTime, nil},
		"outside the network":   {subnet, "10.0.1.99", ticketTime, boot.ErrTicketAddress},
		"for nobody":            {netip.Prefix{}, "10.0.0.11", ticketTime, boot.ErrTicketMalformed},
		"IPv6":                  {netip.MustParsePrefix("fd00::/64"), "fd00::1", ticketTime, nil},
		"IPv6, another network": {netip.MustParsePrefix("fd00::/64"), "fd00:0:0:1::1", ticketTime, boot.ErrTicketAddress},
	} {
		t.Run(name, func(t *testing.T) {
			text := ts.Boot("b1", ticketMAC, tt.from, expires)
			got, err := ts.OpenBoot(text, netip.MustParseAddr(tt.addr), tt.now)
			if !errors.Is(err, tt.want) {
				t.Fatalf("err = %v, want %v", err, tt.want)
			}
			if errors.Is(err, boot.ErrTicketMalformed) {
				return
			}
			if got.MAC != ticketMAC || !got.Of("b1") || got.Of("b2") || !got.Expires.Equal(expires) || got.From != tt.from.Masked() {
				t.Errorf("the ticket says %+v", got)
			}
		})
	}
}

func TestReportTicket(t *testing.T) {
	ts := newTickets(t, ticketKey)
	got, err := ts.OpenReport(ts.Report("b1", ticketMAC))
	if err != nil {
		t.Fatal(err)
	}
	if got.MAC != ticketMAC || !got.Of("b1") || got.Of("") || got.From.IsValid() || !got.Expires.IsZero() {
		t.Errorf("the ticket says %+v", got)
	}
}

// TestTicketSurvivesRestart is about a machine that got its ticket before bootd
// was restarted.
func TestTicketSurvivesRestart(t *testing.T) {
	text := newTickets(t, ticketKey).Report("b1", ticketMAC)
	if _, err := newTickets(t, bytes.Clone(ticketKey)).OpenReport(text); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	other := bytes.Clone(ticketKey)
	other[31]++
	if _, err := newTickets(t, other).OpenReport(text); !errors.Is(err, boot.ErrTicketForged) {
		t.Errorf("under another key: %v", err)
	}
}

func TestTicketsAreNotInterchangeable(t *testing.T) {
	ts := newTickets(t, ticketKey)
	addr := ticketHost.Addr()
	if _, err := ts.OpenBoot(ts.Report("b1", ticketMAC), addr, ticketTime); !errors.Is(err, boot.ErrTicketForged) {
		t.Errorf("a report ticket opens secrets: %v", err)
	}
	if _, err := ts.OpenReport(ts.Boot("b1", ticketMAC, ticketHost, ticketTime)); !errors.Is(err, boot.ErrTicketForged) {
		t.Errorf("a boot ticket reports: %v", err)
	}
}

func TestTicketIsShort(t *testing.T) {
	ts := newTickets(t, ticketKey)
	for kind, c := range map[string]struct {
		text string
		max  int
	}{
		"boot":   {ts.Boot(strings.Repeat("b", 64), ticketMAC, ticketHost, ticketTime), 54},
		"report": {ts.Report(strings.Repeat("b", 64), ticketMAC), 42},
	} {
		if len(c.text) > c.max {
			t.Errorf("%s ticket %s has %d characters, want at most %d", kind, c.text, len(c.text), c.max)
		}
		if strings.Trim(c.text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
			t.Errorf("%s ticket %s needs quoting in a URL", kind, c.text)
		}
	}
}

func TestTicketMalformed(t *testing.T) {
	ts := newTickets(t, ticketKey)
	good := ts.Report("b1", ticketMAC)
	for _, text := range []string{
		"", "x", "====", "../../etc/passwd", good[:20], good + "\n", "\n" + good, good + "=", good[:10] + "\r\n" + good[10:],
		strings.Repeat("A", 97), strings.Repeat("A", 1<<20), "\x00", "ü",
	} {
		if _, err := ts.OpenReport(text); !errors.Is(err, boot.ErrTicketMalformed) {
			t.Errorf("%.40q: err = %v, want %v", text, err, boot.ErrTicketMalformed)
		}
	}
	if _, err := boot.NewTickets(ticketKey[:31]); err == nil {
		t.Error("a short key is taken")
	}
}

// TestEveryBitCounts flips each bit of each kind of ticket.
func TestEveryBitCounts(t *testing.T) {
	ts := newTickets(t, ticketKey)
	addr := ticketHost.Addr()
	for _, text := range []string{ts.Boot("b1", ticketMAC, ticketHost, ticketTime), ts.Report("b1", ticketMAC)} {
		raw, err := base64.RawURLEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		for i := range len(raw) * 8 {
			raw[i/8] ^= 1 << (i % 8)
			changed := base64.RawURLEncoding.EncodeToString(raw)
			raw[i/8] ^= 1 << (i % 8)
			if _, err := ts.OpenBoot(changed, addr, ticketTime); !errors.Is(err, boot.ErrTicketForged) {
				t.Errorf("bit %d flipped: OpenBoot: %v", i, err)
			}
			if _, err := ts.OpenReport(changed); !errors.Is(err, boot.ErrTicketForged) {
				t.Errorf("bit %d flipped: OpenReport: %v", i, err)
			}
		}
	}
}

// FuzzTicket: no text but the issued one opens anything, whatever was done to
// it, and whatever is thrown at it does not panic.
func FuzzTicket(f *testing.F) {
	ts := newTickets(f, ticketKey)
	boots := ts.Boot("b1", ticketMAC, ticketHost, ticketTime)
	report := ts.Report("b1", ticketMAC)
	v6 := ts.Boot("b1", ticketMAC, netip.MustParsePrefix("fd00::/64"), ticketTime)
	other := newTickets(f, bytes.Repeat([]byte{8}, 32))
	for _, s := range []string{
		boots, report, v6, boots[1:], report + "A", boots + report, "", "AQ",
		other.Boot("b1", ticketMAC, ticketHost, ticketTime), other.Report("b1", ticketMAC),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := ts.OpenBoot(text, ticketHost.Addr(), ticketTime); err == nil && text != boots {
			t.Errorf("OpenBoot took %q, which was never issued for this address", text)
		}
		if _, err := ts.OpenReport(text); err == nil && text != report {
			t.Errorf("OpenReport took %q, which was never issued", text)
		}
	})
}

func BenchmarkOpenBootTicket(b *testing.B) {
	ts := newTickets(b, ticketKey)
	text := ts.Boot("b1", ticketMAC, ticketHost, ticketTime)
	for b.Loop() {
		if _, err := ts.OpenBoot(text, ticketHost.Addr(), ticketTime); err != nil {
			b.Fatal(err)
		}
	}
}
