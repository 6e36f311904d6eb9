package boot

import (
	"slices"
	"time"
)

// A Span is a part of a boot, between two stages.
type Span struct {
	Name     string
	From, To time.Time
	Bytes    int64 // transferred at its end
}

// spans are the parts of a boot and what ends each of them.
var spans = []struct {
	name  string
	ended func(*Timeline) (Step, bool)
}{
	{"firmware", func(t *Timeline) (Step, bool) { return t.firmware() }},
	{"loader", stepOf(Loader)},
	{"iPXE", stepOf(Script)},
	{"kernel", stepOf(Kernel)},
	{"initrd", func(t *Timeline) (Step, bool) { return t.initrds() }},
	{"initramfs", func(t *Timeline) (Step, bool) { return t.rootfsBegun() }},
	{"rootfs", stepOf(RootFS)},
	{"Ignition", stepOf(Ignition)},
	{"system", stepOf(Up)},
	{"engine", stepOf(Engine)},
	{"join", stepOf(Joined)},
	{"ready", stepOf(Ready)},
}

// SpanNames are the names of all spans, in the order of a boot.
func SpanNames() []string {
	var names []string
	for _, s := range spans {
		names = append(names, s.name)
	}
	return names
}

func stepOf(s Stage) func(*Timeline) (Step, bool) {
	return func(t *Timeline) (Step, bool) {
		i := slices.IndexFunc(t.Steps, func(x Step) bool { return x.Stage == s })
		if i < 0 {
			return Step{}, false
		}
		return t.Steps[i], true
	}
}

// firmware ends when the loader's transfer begins, or, with iPXE in ROM, at
// its first request.
func (t *Timeline) firmware() (Step, bool) {
	for _, x := range t.Steps {
		switch {
		case x.Stage == Loader:
			x.First, x.Bytes = x.First.Add(-x.Took), 0
			return x, true
		case x.Client == IPXE && (x.Stage == Offered || x.Stage == Leased):
			return x, true
		}
	}
	return Step{}, false
}

// initrds is the last of the initrds, with the bytes of all.
func (t *Timeline) initrds() (last Step, ok bool) {
	var bytes int64
	for _, x := range t.Steps {
		if x.Stage == Initrd {
			bytes += x.Bytes
			last, ok = x, true
		}
	}
	last.Bytes = bytes
	return last, ok
}

// rootfsBegun is the beginning of the transfer of the root file system.
func (t *Timeline) rootfsBegun() (Step, bool) {
	x, ok := stepOf(RootFS)(t)
	x.First, x.Bytes = x.First.Add(-x.Took), 0
	return x, ok
}

// Durations splits the boot by its stages, from its beginning to the last one
// that was reached. Spans follow each other without gaps; a stage that was not
// seen belongs to the span after it.
func (t Timeline) Durations() []Span {
	var out []Span
	from := t.Started
	for _, s := range spans {
		step, ok := s.ended(&t)
		if !ok || step.First.Before(from) {
			continue
		}
		out = append(out, Span{s.name, from, step.First, step.Bytes})
		from = step.First
	}
	return out
}
