package config

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"bootd/boot"
)

// A Mistake is one thing that is wrong in the configuration.
type Mistake struct {
	Origin  boot.Origin `json:"origin"`
	Message string      `json:"message"`
	Hint    string      `json:"hint,omitempty"` // what would be right
	Line    string      `json:"line,omitempty"` // the text of the line
}

// String writes m as a compiler would: place, message, and the line with a
// caret under the column.
func (m Mistake) String() string {
	var b strings.Builder
	if at := m.Origin.String(); at != "" {
		b.WriteString(at + ": ")
	}
	b.WriteString(m.Message)
	if m.Hint != "" {
		b.WriteString("; " + m.Hint)
	}
	if m.Line != "" {
		line, before := window(m.Line, m.Origin.Column)
		// Tabs are kept before the caret, so that it stands where the eye looks.
		pad := strings.Map(func(r rune) rune {
			if r == '\t' {
				return r
			}
			return ' '
		}, before)
		fmt.Fprintf(&b, "\n    %s\n    %s^", line, pad)
	}
	return b.String()
}

// window cuts a long line, such as one with a key or a certificate, to what is
// around a column, and tells what then stands before that.
func window(line string, column int) (cut, before string) {
	const width, lead, dots = 160, 60, "..."
	r := []rune(strings.Map(printable, line))
	at := min(max(column-1, 0), len(r))
	start, end, left, right := 0, len(r), "", ""
	if len(r) <= width {
		return string(r), string(r[:at])
	}
	if at > width-lead {
		start, left = at-lead, dots
	}
	if end > start+width {
		end, right = start+width, dots
	}
	return left + string(r[start:end]) + right, left + string(r[start:at])
}

// printable keeps a file from sending commands to the terminal that its mistakes
// are shown on.
func printable(r rune) rune {
	if r != '\t' && !unicode.IsPrint(r) {
		return unicode.ReplacementChar
	}
	return r
}

// Mistakes are all that is wrong, in the order of files and lines.
type Mistakes []Mistake

// Error lists all of them.
func (l Mistakes) Error() string {
	var b strings.Builder
	for _, m := range l {
		b.WriteString(m.String() + "\n")
	}
	n := "1 mistake"
	if len(l) != 1 {
		n = fmt.Sprintf("%d mistakes", len(l))
	}
	fmt.Fprintf(&b, "%s in the configuration", n)
	return b.String()
}

// Sort puts l in the order of files and lines.
func (l Mistakes) Sort() {
	slices.SortStableFunc(l, func(a, b Mistake) int {
		return cmp.Or(cmp.Compare(a.Origin.File, b.Origin.File), cmp.Compare(a.Origin.Line, b.Origin.Line),
			cmp.Compare(a.Origin.Column, b.Origin.Column))
	})
}

// Mistake makes a mistake that was found after loading, by who looks deeper
// into a value; o is the value's place.
func (c *Config) Mistake(o boot.Origin, message string) Mistake {
	m := Mistake{Origin: o, Message: message}
	if o.File == "" || o.Line < 1 {
		return m
	}
	text, err := os.ReadFile(filepath.Join(c.Dir, o.File))
	if lines := strings.Split(string(text), "\n"); err == nil && o.Line <= len(lines) {
		m.Line = strings.TrimRight(lines[o.Line-1], "\r ")
	}
	return m
}

// suggest returns "did you mean ..." for the known word that is nearest to
// word, or the list of what is known when none is near.
func suggest(word string, known []string) string {
	if best := nearest(word, known); best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	if len(known) == 0 {
		return ""
	}
	sorted := slices.Sorted(slices.Values(known))
	if len(sorted) > 12 {
		sorted = append(sorted[:12], "...")
	}
	return "known here: " + strings.Join(sorted, ", ")
}

// nearest returns the known word that word is most likely a misspelling of, or
// "" when none is near.
func nearest(word string, known []string) string {
	best, dist := "", 3
	for _, k := range known {
		if d := distance(strings.ToLower(word), strings.ToLower(k)); d < dist || d == dist && best == "" {
			if d <= max(1, len(k)/2) {
				best, dist = k, d
			}
		}
	}
	return best
}

// distance is the number of letters to insert, remove, replace or swap with
// their neighbour that make b of a.
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	d := make([][]int, len(x)+1)
	for i := range d {
		d[i] = make([]int, len(y)+1)
		d[i][0] = i
	}
	for j := range y {
		d[0][j+1] = j + 1
	}
	for i := 1; i <= len(x); i++ {
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(x)][len(y)]
}
