package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"bootd/boot"
)

// shades gives neighbouring stages different looks, so that a bar shows where
// one ends and the next begins even without colour.
var shades = []string{"█", "▒", "▓", "░"}

// colours are the ANSI foreground colours of the stages, in the same rhythm.
var colours = []int{34, 36, 32, 33, 35, 31}

// A waterfall draws boots under one another on one time axis.
type waterfall struct {
	width  int  // columns of the terminal
	colour bool // ANSI colours are understood
}

// lines draws boots as they stand at now.
func (w waterfall) lines(boots []boot.Timeline, now time.Time) []string {
	if len(boots) == 0 {
		return nil
	}
	start, end := axis(boots, now)
	name, bar := 0, 0
	for _, t := range boots {
		name = max(name, utf8.RuneCountInString(label(t)))
	}
	const state = 22 // "ready 123.4s" and room for a longer word
	bar = max(20, w.width-name-state-3)
	at := func(t time.Time) int {
		return int(float64(bar) * float64(t.Sub(start)) / float64(end.Sub(start)))
	}
	var out []string
	for _, t := range boots {
		out = append(out, fmt.Sprintf("%-*s %s %s", name, label(t), w.bar(t, at, bar), outcome(t, start, now)))
	}
	out = append(out, fmt.Sprintf("%-*s %s", name, "", ruler(start, end, bar)), w.legend(boots))
	for _, t := range boots {
		if m, ok := t.Missing(now); ok && now.Sub(m.Since) > m.Patience {
			out = append(out, fmt.Sprintf("%s waits for %s since %s: %s", label(t), m.Next, short(now.Sub(m.Since)), m.Reason))
		}
	}
	return out
}

// axis is the time that the picture spans: from the first machine's power-on
// to now, or to the end of the last boot when all are done.
func axis(boots []boot.Timeline, now time.Time) (start, end time.Time) {
	done := true
	for i, t := range boots {
		if i == 0 || t.Started.Before(start) {
			start = t.Started
		}
		if s := t.Steps; len(s) > 0 && s[len(s)-1].Last.After(end) {
			end = s[len(s)-1].Last
		}
		done = done && t.Done()
	}
	if !done && now.After(end) {
		end = now
	}
	if end.Sub(start) < time.Second {
		end = start.Add(time.Second)
	}
	return start, end
}

func label(t boot.Timeline) string {
	name := t.Name
	if name == "" {
		name = t.MAC.String()
	}
	return name + " " + t.Arch.String()
}

func outcome(t boot.Timeline, start, now time.Time) string {
	if t.Done() {
		return fmt.Sprintf("%s %s", t.Stage(), short(t.Steps[len(t.Steps)-1].Last.Sub(t.Started)))
	}
	return fmt.Sprintf("%s ...", t.Stage())
}

// bar draws the spans of one boot into n columns.
func (w waterfall) bar(t boot.Timeline, at func(time.Time) int, n int) string {
	var b strings.Builder
	col := 0
	for _, s := range t.Durations() {
		k := slices.Index(boot.SpanNames(), s.Name)
		from, to := min(at(s.From), n), min(at(s.To), n)
		if from > col {
			b.WriteString(strings.Repeat(" ", from-col))
			col = from
		}
		if to == col && to < n { // too short to see is still shown
			to++
		}
		if to <= col {
			continue
		}
		cells := strings.Repeat(shades[max(k, 0)%len(shades)], to-col)
		if w.colour {
			cells = fmt.Sprintf("\x1b[%dm%s\x1b[0m", colours[max(k, 0)%len(colours)], cells)
		}
		b.WriteString(cells)
		col = to
	}
	return b.String() + strings.Repeat(" ", max(0, n-col))
}

// ruler writes seconds under the bars.
func ruler(start, end time.Time, n int) string {
	total := end.Sub(start)
	line := []byte(strings.Repeat(" ", n))
	next := 0
	for i := range 6 {
		at := total * time.Duration(i) / 5
		text := fmt.Sprintf("%.0fs", at.Seconds())
		pos := min(n*i/5, n-len(text))
		if pos < next {
			continue
		}
		copy(line[pos:], text)
		next = pos + len(text) + 1
	}
	return string(line)
}

// legend explains the shades that occur.
func (w waterfall) legend(boots []boot.Timeline) string {
	var parts []string
	for k, name := range boot.SpanNames() {
		used := slices.ContainsFunc(boots, func(t boot.Timeline) bool {
			return slices.ContainsFunc(t.Durations(), func(s boot.Span) bool { return s.Name == name })
		})
		if !used {
			continue
		}
		block := shades[k%len(shades)]
		if w.colour {
			block = fmt.Sprintf("\x1b[%dm%s\x1b[0m", colours[k%len(colours)], block)
		}
		parts = append(parts, block+" "+name)
	}
	return strings.Join(parts, "  ")
}
