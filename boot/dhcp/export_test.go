package dhcp

import (
	"log/slog"
	"time"

	"bootd/boot"
)

// Overheard is overheard.
func Overheard(frame []byte, own boot.MAC) (Another, bool) { return overheard(frame, own) }

// Guarded is p as a Server has it.
func Guarded(p Policy) Policy {
	p.guard = newGuard(slog.New(slog.DiscardHandler))
	return p
}

// A Desk answers in memory that it uses again, as a Server does.
type Desk struct{ work workspace }

// Answer is what p answers.
func (d *Desk) Answer(p Policy, r Request, link Link, now time.Time) Answer {
	if d.work.reply == nil {
		d.work.reply = make([]byte, maxPacket)
	}
	r.work = &d.work
	return p.Answer(r, link, now)
}
