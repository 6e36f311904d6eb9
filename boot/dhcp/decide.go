package dhcp

import (
	"context"
	"log/slog"
	"slices"
	"time"
)

// An acknowledger hands what has to wait for the disk from those who decide to
// the one who commits, in batches whose memory goes back and forth.
type acknowledger struct {
	batches chan []Answer
	used    chan []Answer // empty, to be used again
}

func newAcknowledger() acknowledger {
	return acknowledger{make(chan []Answer, backlog), make(chan []Answer, backlog)}
}

// add hands a batch over, with its memory, and waits when too many wait.
func (a acknowledger) add(batch []Answer) { a.batches <- batch }

// empty returns memory for a batch.
func (a acknowledger) empty() []Answer {
	select {
	case b := <-a.used:
		return b
	default:
		return make([]Answer, 0, batch)
	}
}

// again gives back the memory of a batch that is done with.
func (a acknowledger) again(b []Answer) {
	clear(b)
	select {
	case a.used <- b[:0]:
	default:
	}
}

// A decider decides about the requests of a port.
type decider struct {
	*Server
	port    *port
	acks    acknowledger
	work    workspace
	replies [batch][maxPacket]byte
	ready   []Answer // to be sent at once
	durable []Answer // to be sent when their leases are on stable storage
}

func newDecider(s *Server, p *port, acks acknowledger) *decider {
	return &decider{Server: s, port: p, acks: acks, durable: acks.empty()}
}

// decide answers what needs no disk at once and hands on the rest.
func (d *decider) decide(packets []Packet) {
	now, p := time.Now(), d.port
	if now.Sub(p.asked) > time.Second {
		link, err := d.Server.link(p.iface)
		if err != nil {
			d.log.Warn("requests are not answered", "err", err)
			return
		}
		p.link, p.asked = link, now
	}
	debug := d.log.Enabled(context.Background(), slog.LevelDebug)
	for i, in := range packets {
		r, err := Decode(in.Data)
		if err != nil {
			d.log.Debug("left alone", "interface", p.iface, "err", err)
			continue
		}
		r.From, r.BootPort = in.From, p.number == bootPort
		d.work.reply = d.replies[i][:]
		r.work = &d.work
		a := d.policy.Answer(r, p.link, now)
		if debug {
			d.tell(p, r, a)
		}
		switch {
		case a.Durable:
			d.durable = append(d.durable, a.clone())
		case d.hold(p, r, a, p.link, now):
		default:
			d.happened(a)
			if a.Reply != nil {
				d.ready = append(d.ready, a)
			}
		}
	}
	if len(d.durable) > 0 {
		d.acks.add(d.durable)
		d.durable = d.acks.empty()
	}
	d.send(p, d.ready)
	clear(d.ready)
	d.ready = d.ready[:0]
}

// commit sends acknowledgements after their leases are durable, as many as
// have gathered with one sync. It returns when there are no more. When leases
// can no longer be kept it says so, and acknowledges nothing any more.
func (s *Server) commit(p *port, acks acknowledger) error {
	var failed error
	var gathered []Answer
	for b := range acks.batches {
		clear(gathered)
		gathered = append(gathered[:0], b...)
		acks.again(b)
		for more := true; more && len(gathered) < group; {
			select {
			case b, more = <-acks.batches:
				gathered = append(gathered, b...)
				acks.again(b)
			default:
				more = false
			}
		}
		if failed != nil {
			continue
		}
		if failed = s.policy.Leases.Flush(); failed != nil {
			s.log.Error("leases cannot be kept; nothing is acknowledged any more", "err", failed)
			_ = p.conn.Close() // ends the port, and so the server, which may be restarted
			continue
		}
		// A batch at a time, so that the first need not wait for the last.
		for some := range slices.Chunk(gathered, batch) {
			for i := range some {
				s.happened(some[i])
			}
			s.send(p, slices.DeleteFunc(some, func(a Answer) bool { return a.Reply == nil }))
		}
	}
	return failed
}
