package lab

import (
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A Marker is a stage of a boot, seen on the machine's serial console. The
// console shows what the machine itself does, whoever served it, so boots from
// different servers can be compared.
type Marker struct {
	Name   string        // one of [Stages], [FATAL], or "file" for what else was fetched
	Text   string        // the line
	Since  time.Duration // since power-on
	Uptime time.Duration // of the kernel, when the machine says it
}

// Stages names the markers of a boot of the lab's live image in their order.
// UEFI machines also show pxe and loader between firmware and ipxe.
func Stages() []string {
	return []string{
		"firmware", "pxe", "loader", "ipxe", "script", "kernel", "initrd",
		"initramfs", "network", "rootfs fetched", "ignition fetched", "ignition done", "switch root",
		"engine up", "joined",
	}
}

// FATAL is the name of the marker of a boot that has failed.
const FATAL = "FATAL"

var (
	controls = regexp.MustCompile("\x1b(\\[[0-9;?=]*[A-Za-z]|[()][A-Z0-9]|[=>c])|[\x00-\x08\x0b\x0c\x0e-\x1a]")
	own      = regexp.MustCompile(`LAB\[([0-9.]+)\] (.*)`)
	scripts  = regexp.MustCompile(`\.ipxe\.\.\.|/ipxe\?`)
	others   = []struct {
		name string
		re   *regexp.Regexp
	}{
		{"pxe", regexp.MustCompile(`>>Start (PXE|HTTP)`)},
		{"loader", regexp.MustCompile(`NBP file downloaded`)},
		{"ipxe", regexp.MustCompile(`^iPXE initialising devices`)},
		{"file", regexp.MustCompile(`/\S*?\.\.\.[ .0-9%]*ok$`)}, // slow ones show how far they are
		{FATAL, regexp.MustCompile(`Kernel panic|No bootable device|BdsDxe: No bootable`)},
	}
)

// plain removes terminal control sequences.
func plain(s string) string { return controls.ReplaceAllString(s, "") }

// parseLine reads the marker on a line of a console, if there is one.
func parseLine(line string) (Marker, bool) {
	line = strings.TrimSpace(plain(line))
	if m := own.FindStringSubmatch(line); m != nil {
		up, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return Marker{}, false
		}
		name, _, _ := strings.Cut(m[2], ":")
		if strings.HasPrefix(name, "network ") {
			name = "network" // and the card and its address
		}
		return Marker{Name: name, Text: line, Uptime: time.Duration(up * float64(time.Second))}, true
	}
	for _, o := range others {
		if o.re.MatchString(line) {
			name := o.name
			if name == "file" {
				name = download(line)
			}
			return Marker{Name: name, Text: line}, true
		}
	}
	return Marker{}, false
}

// download names what iPXE has fetched by the end of its URL.
func download(line string) string {
	switch {
	case strings.Contains(line, "live-kernel"):
		return "kernel"
	case strings.Contains(line, "live-initramfs"):
		return "initrd"
	case scripts.MatchString(line):
		return "script"
	}
	return "file"
}

// Watch follows the machine's console from its last power-on and calls f with
// each marker, until f returns false, the machine is off, or ctx ends. What
// was written before Watch is called is reported with the time of the call.
func (l Lab) Watch(ctx context.Context, machine string, f func(Marker) bool) error {
	s, err := l.load()
	if err != nil {
		return err
	}
	p := s.Machines[machine]
	if p == nil {
		return fmt.Errorf("cannot watch machine %s: it has not been powered on", machine)
	}
	file, err := os.Open(l.Console(machine))
	if err != nil {
		return fmt.Errorf("cannot watch machine %s: %w", machine, err)
	}
	defer file.Close()
	var c console
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		alive := p.Process.alive()
		b, err := io.ReadAll(file)
		if err != nil {
			return fmt.Errorf("cannot watch machine %s: %w", machine, err)
		}
		since := time.Since(p.On)
		for _, m := range c.feed(b) {
			m.Since = since
			if !f(m) {
				return nil
			}
		}
		if !alive {
			return fmt.Errorf("machine %s is off; its last words: %s", machine, lastLine(l.Console(machine)))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// A console cuts what a machine writes into lines and finds the markers.
type console struct {
	started bool
	rest    string
}

func (c *console) feed(b []byte) []Marker {
	var found []Marker
	if len(b) == 0 {
		return nil
	}
	if !c.started {
		c.started = true
		found = append(found, Marker{Name: "firmware", Text: "first character on the console"})
	}
	c.rest += string(b)
	for {
		i := strings.IndexAny(c.rest, "\r\n")
		if i < 0 {
			return found
		}
		if m, ok := parseLine(c.rest[:i]); ok {
			found = append(found, m)
		}
		c.rest = c.rest[i+1:]
	}
}
