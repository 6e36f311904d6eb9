package main

import (
	"fmt"
	"regexp"
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

// lines draws boots as they stand at now. No line is wider than the terminal, as
// long as that has the 40 columns that a bar and what is around it need: a line
// that the terminal broke would be two where the caller counts one.
func (w waterfall) lines(boots []boot.Timeline, now time.Time) []string {
	if len(boots) == 0 {
		return nil
	}
	start, end := axis(boots, now)
	name, bar := 0, 0
	for _, t := range boots {
		name = max(name, utf8.RuneCountInString(label(t)))
	}
	const state = 14 // "ignition 1m02s"
	name = min(name, max(8, w.width/3))
	bar = max(8, w.width-name-state-2)
	at := func(t time.Time) int {
		return int(float64(bar) * float64(t.Sub(start)) / float64(end.Sub(start)))
	}
	var out []string
	for _, t := range boots {
		out = append(out, fmt.Sprintf("%-*s %s %s", name, clip(label(t), name), w.bar(t, at, bar), outcome(t, start, now)))
	}
	out = append(out, fmt.Sprintf("%-*s %s", name, "", ruler(start, end, bar)))
	out = append(out, wrap(w.legend(boots), "  ", w.width)...)
	for _, t := range boots {
		if m, ok := t.Missing(now); ok && m.Late {
			text := fmt.Sprintf("%s waits for %s since %s: %s", label(t), m.Next, short(now.Sub(m.Since)), m.Reason)
			out = append(out, wrap(strings.Fields(text), " ", w.width)...)
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
	next, last := 0, ""
	for i := range 6 {
		at := total * time.Duration(i) / 5
		text := fmt.Sprintf("%.0fs", at.Seconds())
		pos := min(n*i/5, n-len(text))
		if pos < next || text == last {
			continue
		}
		copy(line[pos:], text)
		next, last = pos+len(text)+1, text
	}
	return strings.TrimRight(string(line), " ")
}

// legend explains the shades that occur.
func (w waterfall) legend(boots []boot.Timeline) []string {
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
	return parts
}

// colouring is what a terminal does not show.
var colouring = regexp.MustCompile("\x1b\\[[0-9]*m")

// wrap joins parts into lines that have at most so many columns.
func wrap(parts []string, sep string, columns int) []string {
	var lines []string
	used := 0
	for _, p := range parts {
		n := utf8.RuneCountInString(colouring.ReplaceAllString(p, ""))
		if len(lines) > 0 && used+len(sep)+n <= columns {
			lines[len(lines)-1] += sep + p
			used += len(sep) + n
			continue
		}
		lines = append(lines, p)
		used = n
	}
	return lines
}
