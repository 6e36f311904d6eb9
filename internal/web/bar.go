package web

import (
	"slices"
	"strings"
	"time"

	"bootd/boot"
)

// A bar draws one boot on a time axis. Shares are of the axis, from 0 to 1;
// milliseconds count from the beginning of the boot, for the script that makes
// the bar of a boot under way grow.
type bar struct {
	Segments []segment
	Start    int64 // Unix time in milliseconds
	Total    int64 // length of the axis
	Growing  bool  // the last segment goes on
	Text     string
}

// A segment is a part of a bar.
type segment struct {
	Look     string // class
	Name     string
	X, W     float64
	From, To int64
	Now      bool // it goes on
	Took     time.Duration
}

// span is how long the boot took, or takes until now if it is under way.
func span(t *boot.Timeline, now time.Time) (d time.Duration, growing bool) {
	if s := t.Durations(); len(s) > 0 {
		d = s[len(s)-1].To.Sub(t.Started)
	}
	if m, ok := t.Missing(now); ok && !m.Late {
		return max(d, now.Sub(t.Started)), true
	}
	return d, false
}

// drawBar draws a boot on an axis that is so long; 0: as long as the boot.
func drawBar(t *boot.Timeline, axis time.Duration, now time.Time) bar {
	length, growing := span(t, now)
	axis = max(axis, length, time.Second)
	b := bar{Start: t.Started.UnixMilli(), Total: axis.Milliseconds(), Growing: growing}
	var words []string
	add := func(s segment, from, to time.Time) {
		a, e := from.Sub(t.Started), to.Sub(t.Started)
		s.From, s.To, s.Took = a.Milliseconds(), e.Milliseconds(), to.Sub(from)
		s.X, s.W = float64(a)/float64(axis), float64(e-a)/float64(axis)
		b.Segments = append(b.Segments, s)
		words = append(words, s.Name+" "+short(s.Took))
	}
	end := t.Started
	for _, s := range t.Durations() {
		add(segment{Look: strings.ToLower(s.Name), Name: s.Name}, s.From, s.To)
		end = s.To
	}
	if growing && now.After(end) {
		m, _ := t.Missing(now)
		add(segment{Look: "running", Name: "waits for " + string(m.Next), Now: true}, end, now)
	}
	b.Text = strings.Join(words, ", ")
	if b.Text == "" {
		b.Text = "nothing yet"
	}
	return b
}

// A fall is the waterfall of one boot: a line for each step.
type fall struct {
	Start, Total int64 // milliseconds, as in a bar
	Growing      bool
	Ticks        []tick
	Lines        []line
	Legend       []segment
	Whole        bar
}

// A tick is a mark on the time axis.
type tick struct {
	X    float64
	At   int64 // milliseconds
	Text string
}

// A line is a step of a boot, or what it waits for.
type line struct {
	Step       boot.Step
	Look       string
	After      time.Duration // since the boot began
	X, W       float64       // the transfer, or the moment
	GapX, GapW float64       // from the end of the step before
	From, To   int64
	Gap        int64 // beginning of the gap
	Now        bool  // it is awaited
	Missing    boot.Missing
}

// End is when the step was done.
func (l line) End() float64 { return l.X + l.W }

// Moment reports whether the step is too short to be seen as a bar.
func (l line) Moment() bool { return l.W < 0.012 }

// drawFall draws a boot.
func drawFall(t *boot.Timeline, now time.Time) fall {
	length, growing := span(t, now)
	for _, s := range t.Steps {
		length = max(length, s.First.Sub(t.Started))
	}
	axis := max(length, time.Second)
	f := fall{Start: t.Started.UnixMilli(), Total: axis.Milliseconds(), Growing: growing, Whole: drawBar(t, axis, now)}
	share := func(d time.Duration) float64 { return float64(d) / float64(axis) }
	for at := time.Duration(0); at < axis; at += nice(axis) {
		f.Ticks = append(f.Ticks, tick{share(at), at.Milliseconds(), tickText(at)})
	}
	end := time.Duration(0)
	for _, s := range t.Steps {
		to := max(s.First.Sub(t.Started), 0)
		from := max(to-s.Took, 0)
		l := line{Step: s, Look: look(s.Stage, s.Client), After: to, X: share(from), W: share(to - from), From: from.Milliseconds(), To: to.Milliseconds(), Gap: from.Milliseconds()}
		if from > end && boot.Order(s.Stage) >= 0 {
			l.GapX, l.GapW, l.Gap = share(end), share(from-end), end.Milliseconds()
		}
		f.Lines = append(f.Lines, l)
		if boot.Order(s.Stage) >= 0 {
			end = max(end, to)
		}
	}
	if m, ok := t.Missing(now); ok {
		since := max(m.Since.Sub(t.Started), 0)
		to := axis
		if !growing {
			to = since
		}
		f.Lines = append(f.Lines, line{Step: boot.Step{Stage: m.Next}, Look: "running", After: since, Now: true, Missing: m,
			X: share(since), W: share(max(to-since, 0)), From: since.Milliseconds(), To: to.Milliseconds(), Gap: since.Milliseconds()})
	}
	f.Legend = slices.DeleteFunc(slices.Clone(f.Whole.Segments), func(s segment) bool { return s.Now })
	return f
}

// nice is a distance of ticks, so that an axis has four to ten.
func nice(axis time.Duration) time.Duration {
	steps := []time.Duration{200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second,
		15 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute, time.Hour,
		2 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour}
	for _, s := range steps {
		if axis/s < 8 {
			return s
		}
	}
	return (axis / 6).Truncate(24*time.Hour) + 24*time.Hour
}

// tickText writes a place on the axis without what is zero.
func tickText(d time.Duration) string {
	if d == 0 {
		return "0"
	}
	if d < time.Second {
		return d.String()
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
