package web

import (
	"fmt"
	"html/template"
	"strconv"
	"strings"
	"time"

	"bootd/boot"
)

// functions are what templates can call.
func functions(stamp string) template.FuncMap {
	return template.FuncMap{
		"asset": func(name string) string { return "/static/" + name + "?v=" + stamp },
		"short": short,
		"after": after,
		"size":  size,
		"ago":   ago,
		"until": until,
		"clock": func(t time.Time) string { return t.Local().Format("15:04:05") },
		"stamp": func(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") },
		"iso":   func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"pct":   pct,
		"id":    idOf,
		"count": count,
		"dict":  dict,
		"lower": strings.ToLower,
	}
}

// short writes a duration for people: 250ms, 9.5s, 1m02s, 3h20m, 4d.
func short(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%.0fs", d.Truncate(time.Second).Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// size writes a number of bytes.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/unit, 0
	for f >= unit && i < 3 {
		f, i = f/unit, i+1
	}
	return fmt.Sprintf("%.1f %ciB", f, "KMGT"[i])
}

// coarse writes how long ago something was, in one unit.
func coarse(d time.Duration) string {
	switch {
	case d < time.Second:
		return "now"
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// ago is an element that tells how long ago t was; the script keeps it true.
func ago(now, t time.Time) template.HTML {
	if t.IsZero() {
		return ""
	}
	text := coarse(now.Sub(t))
	if text != "now" {
		text += " ago"
	}
	// All that is put in are numbers and times.
	return template.HTML(fmt.Sprintf(`<time datetime="%s" title="%s" data-ago="%d">%s</time>`,
		t.UTC().Format(time.RFC3339), t.Local().Format("2006-01-02 15:04:05"), t.UnixMilli(), text))
}

// until is an element that tells how long it is until t.
func until(now, t time.Time) template.HTML {
	if t.IsZero() {
		return ""
	}
	if !t.After(now) {
		return ago(now, t)
	}
	return template.HTML(fmt.Sprintf(`<time datetime="%s" title="%s">in %s</time>`,
		t.UTC().Format(time.RFC3339), t.Local().Format("2006-01-02 15:04:05"), coarse(t.Sub(now))))
}

// pct writes a share as an SVG length.
func pct(f float64) string {
	return strconv.FormatFloat(100*f, 'f', 3, 64) + "%"
}

// count writes a number with its noun: 1 machine, 2,000 machines.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s + " " + many
}

// idOf names a machine in URLs: by its hardware address if that is known.
func idOf(m Machine) string {
	if m.MAC.IsZero() {
		return m.Name
	}
	return m.MAC.Hyphens()
}

// dict makes a map of pairs, so that a template can hand several values to
// another.
func dict(pairs ...any) (map[string]any, error) {
	out := map[string]any{}
	for i := 0; i+1 < len(pairs); i += 2 {
		key, ok := pairs[i].(string)
		if !ok {
			return nil, fmt.Errorf("dict: %v is no name", pairs[i])
		}
		out[key] = pairs[i+1]
	}
	return out, nil
}

// after writes how far into a boot something was, with tenths of a second where
// those still matter.
func after(d time.Duration) string {
	if d < 100*time.Second {
		return fmt.Sprintf("%.1fs", max(d, 0).Seconds())
	}
	return short(d)
}

// look is the name of the look that a stage has in pictures, when a client has
// reached it.
func look(s boot.Stage, c boot.Client) string {
	switch s {
	case boot.Offered, boot.Leased:
		if c != "" {
			return strings.ToLower(string(c))
		}
		return "firmware"
	case boot.Power:
		return "firmware"
	case boot.Script:
		return "ipxe"
	case boot.Up, boot.Installed, boot.Kickstart:
		return "system"
	case boot.Joined:
		return "join"
	case boot.Left, boot.Removed:
		return "gone"
	}
	return strings.ToLower(string(s))
}
