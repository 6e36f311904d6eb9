package timeline

import (
	"slices"

	"bootd/boot"
)

// tellLocked numbers an event, keeps it and hands it to readers. One that does
// not keep up is dropped: its channel is closed.
func (r *Recorder) tellLocked(e boot.Event) {
	r.seq++
	n := Numbered{r.seq, e}
	if len(r.events) >= keepEvents+keepEvents/4 {
		r.events = slices.Clone(r.events[len(r.events)-keepEvents:])
	}
	r.events = append(r.events, n)
	for c := range r.readers {
		select {
		case c <- n:
		default:
			delete(r.readers, c)
			close(c)
		}
	}
}

// Subscribe returns a channel of the events from now on, and a function that
// ends it. The channel is closed when the reader has fallen buffer events
// behind; what it missed is in Since.
func (r *Recorder) Subscribe(buffer int) (events <-chan Numbered, cancel func()) {
	c := make(chan Numbered, buffer)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.readers[c] = true
	return c, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.readers[c] {
			delete(r.readers, c)
			close(c)
		}
	}
}

// Since returns the events after number seq, as far as they are kept.
func (r *Recorder) Since(seq uint64) []Numbered {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := len(r.events)
	for i > 0 && r.events[i-1].Seq > seq {
		i--
	}
	return slices.Clone(r.events[i:])
}
