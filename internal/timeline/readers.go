package timeline

import "bootd/boot"

// tellLocked numbers an event, keeps it and tells readers that there is more.
func (r *Recorder) tellLocked(e *boot.Event) {
	r.seq++
	var n *Numbered
	if len(r.events) < keepEvents {
		r.events = append(r.events, Numbered{})
		n = &r.events[len(r.events)-1]
	} else {
		n = &r.events[r.oldest]
		r.oldest = (r.oldest + 1) % keepEvents
	}
	n.Seq, n.Event = r.seq, *e
	for c := range r.readers {
		select {
		case c <- struct{}{}:
		default: // it has not read what came before
		}
	}
}

// Watch returns a channel that holds something when there are events that came
// after the last time that something was taken from it, and a function that ends
// that. What the events are is read with Read or Since.
func (r *Recorder) Watch() (more <-chan struct{}, cancel func()) {
	c := make(chan struct{}, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.readers[c] = true
	return c, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.readers, c)
	}
}

// Since returns the events after number seq, as far as they are kept.
func (r *Recorder) Since(seq uint64) []Numbered {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Numbered, r.afterLocked(seq))
	r.readLocked(out, len(out))
	return out
}

// Read sets the first ones of events to those after number seq, as far as they
// are kept and fit, and returns how many there are.
func (r *Recorder) Read(seq uint64, events []Numbered) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.afterLocked(seq)
	return r.readLocked(events, n)
}

// afterLocked is how many of the kept events come after number seq.
func (r *Recorder) afterLocked(seq uint64) int {
	if seq >= r.seq {
		return 0
	}
	return int(min(r.seq-seq, uint64(len(r.events))))
}

// readLocked copies the first of the latest n events, as many as fit.
func (r *Recorder) readLocked(events []Numbered, n int) int {
	from := r.oldest + len(r.events) - n
	n = min(n, len(events))
	for i := range n {
		events[i] = r.events[(from+i)%len(r.events)]
	}
	return n
}
