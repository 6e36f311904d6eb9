package ipxe_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A sim runs scripts as iPXE of January 2019 does (1.0.0+git-20190125.36a4c85,
// core/exec.c, image/script.c, core/settings.c): lines are split at white space,
// then at ||, && and ;, then ${...} is expanded. It knows the commands that BIOS
// and UEFI builds of that time have, and no others.
type sim struct {
	cards    []*card
	settings map[string]string
	// fetch gets a URL by a card's MAC; false is any error.
	fetch func(mac, url string) (string, bool)
	log   []string // what happened, without echoes
	said  []string // what was echoed

	open    []int // cards, the one opened last at the end
	images  []string
	kernel  string // URL and arguments
	initrds map[string]string
	budget  int // commands until it is given up
}

// A card is a network card.
type card struct {
	mac  string
	link bool // has a cable and a DHCP server behind it
	ip   bool // was configured at some time
}

func newSim(fetch func(mac, url string) (string, bool), cards ...*card) *sim {
	return &sim{cards: cards, fetch: fetch, budget: 5000, initrds: map[string]string{}, settings: map[string]string{
		"version": "1.0.0+", "platform": "pcbios", "buildarch": "i386", "memsize": "1024",
		"uuid": "77000000-0000-4000-8000-525400770010", "serial": "LAB0001", "manufacturer": "Lab", "product": "PXE Node",
	}}
}

// Ways for a script to end.
const (
	ended     = ""
	booted    = "booted"
	restarted = "restarted"
	disk      = "local disk"
	exited    = "exited"
	failed    = "failed" // a command failed and nothing caught it
	tooLong   = "too long"
)

// run runs a script and those it chains to.
func (s *sim) run(script string) string {
	for {
		next, end := s.one(script)
		if end != ended || next == "" {
			return end
		}
		script = next
	}
}

// one runs a script until it ends or another replaces it.
func (s *sim) one(script string) (replaced, end string) {
	lines := strings.Split(script, "\n")
	if lines[0] != "#!ipxe" {
		return "", "not a script"
	}
	for i := 0; i < len(lines); i++ {
		line := strings.TrimLeft(lines[i], " \t")
		if strings.HasPrefix(line, ":") {
			_, line, _ = strings.Cut(line, " ")
		}
		ok, jump, next, end := s.line(line)
		switch {
		case next != "" || end != ended:
			return next, end
		case jump != "":
			i = slices.Index(lines, ":"+jump)
			if i < 0 {
				return "", "no label " + jump
			}
		case !ok:
			s.note("failed: %s", lines[i])
			return "", failed
		}
	}
	return "", exited
}

// line runs the commands of a line (system() in exec.c).
func (s *sim) line(line string) (ok bool, jump, next, end string) {
	tokens, process := strings.Fields(line), true
	ok = true
	for {
		i := slices.IndexFunc(tokens, func(t string) bool { return t[0] == '#' || t == "||" || t == "&&" || t == ";" })
		cmd, op := tokens, ""
		if i >= 0 {
			cmd, op = tokens[:i], tokens[i]
		}
		if process {
			argv := make([]string, len(cmd))
			for i, t := range cmd {
				argv[i] = s.expand(t)
			}
			ok, jump, next, end = s.command(argv)
			if jump != "" || next != "" || end != ended {
				return
			}
		}
		switch op {
		case "||":
			process = !ok
		case "&&":
			process = ok
		case ";":
			process = true
		default:
			return
		}
		tokens = tokens[i+1:]
	}
}

// expand replaces ${...}, innermost first, until none is left.
func (s *sim) expand(t string) string {
	for {
		start, end := -1, -1
		for i := range len(t) {
			if strings.HasPrefix(t[i:], "${") {
				start = i
			}
			if start >= 0 && t[i] == '}' {
				end = i
				break
			}
		}
		if end < 0 {
			return t
		}
		t = t[:start] + s.setting(t[start+2:end]) + t[end+1:]
	}
}

func (s *sim) setting(name string) string {
	name, kind, _ := strings.Cut(name, ":")
	value := s.settings[name]
	if dev, field, ok := strings.Cut(name, "/"); ok {
		c := s.card(dev)
		switch {
		case c == nil:
		case field == "mac":
			value = c.mac
		case field == "ip" && c.ip:
			value = "10.0.0.11"
		}
	}
	if kind == "uristring" {
		return uriString(value)
	}
	return value
}

// uriString is iPXE's uri_encode for the field 0.
func uriString(v string) string {
	var b strings.Builder
	for i := range len(v) {
		if c := v[i]; c <= ' ' || c >= 0x7f || strings.IndexByte("%/#:@?=&", c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func (s *sim) card(dev string) *card {
	if dev == "netX" {
		if len(s.open) == 0 {
			return nil
		}
		return s.cards[s.open[len(s.open)-1]]
	}
	n, err := strconv.Atoi(strings.TrimPrefix(dev, "net"))
	if err != nil || n < 0 || n >= len(s.cards) {
		return nil
	}
	return s.cards[n]
}

func (s *sim) note(format string, args ...any) { s.log = append(s.log, fmt.Sprintf(format, args...)) }

// options takes the options off argv, as getopt: up to the first word without a
// hyphen.
func options(argv []string, known ...string) (opts map[string]string, rest []string, ok bool) {
	opts = map[string]string{}
	for len(argv) > 0 && strings.HasPrefix(argv[0], "--") {
		name := argv[0][2:]
		switch {
		case slices.Contains(known, name): // a flag
			opts[name], argv = "set", argv[1:]
		case slices.Contains(known, name+"=") && len(argv) > 1:
			opts[name], argv = argv[1], argv[2:]
		default:
			return nil, nil, false
		}
	}
	return opts, argv, true
}

// command runs one command. jump is a label, next a script that replaces this one.
func (s *sim) command(argv []string) (ok bool, jump, next, end string) {
	if s.budget--; s.budget < 0 {
		return false, "", "", tooLong
	}
	if len(argv) == 0 {
		return true, "", "", ended
	}
	cmd, argv := argv[0], argv[1:]
	switch cmd {
	case "goto":
		return true, argv[0], "", ended
	case "exit":
		s.note("exit %s", strings.Join(argv, " "))
		return true, "", "", exited
	case "reboot":
		return true, "", "", restarted
	case "shell":
		return false, "", "", "shell"
	case "chain":
		next, ok := s.chain(argv)
		return ok, "", next, ended
	case "boot":
		if s.kernel == "" {
			return false, "", "", ended
		}
		return true, "", "", booted
	case "sanboot":
		opts, _, ok := options(argv, "no-describe", "drive=")
		if !ok || opts["drive"] != "0x80" {
			return false, "", "", "bad sanboot"
		}
		s.note("sanboot")
		return false, "", "", ended // no disk
	}
	return s.simple(cmd, argv), "", "", ended
}

// simple runs a command that only succeeds or fails.
func (s *sim) simple(cmd string, argv []string) bool {
	switch cmd {
	case "echo":
		s.said = append(s.said, strings.Join(argv, " "))
	case "set":
		name, _, _ := strings.Cut(argv[0], ":")
		s.settings[name] = strings.Join(argv[1:], " ")
	case "inc":
		n, _ := strconv.Atoi(s.settings[argv[0]])
		s.settings[argv[0]] = strconv.Itoa(n + 1)
	case "isset":
		return argv[0] != ""
	case "iseq":
		return argv[0] == argv[1]
	case "cpuid":
		return slices.Equal(argv, []string{"--ext", "29"})
	case "sleep":
		s.note("sleep %s", argv[0])
	case "prompt":
		opts, _, ok := options(argv, "key=", "timeout=")
		if !ok || opts["timeout"] == "" {
			return false
		}
		s.note("pause")
		return false // nobody presses a key
	case "dhcp":
		return s.dhcp(argv)
	case "ifclose":
		if len(argv) == 0 {
			s.open = nil
			break
		}
		i := slices.Index(s.cards, s.card(argv[0]))
		s.open = slices.DeleteFunc(s.open, func(o int) bool { return o == i })
	case "imgfree":
		s.images, s.kernel, s.initrds = nil, "", map[string]string{}
	case "kernel":
		if !s.download(argv[0]) {
			return false
		}
		s.kernel = strings.Join(argv, " ")
	case "initrd":
		opts, rest, ok := options(argv, "name=")
		if !ok || len(rest) != 1 || !s.download(rest[0]) {
			return false
		}
		s.initrds[opts["name"]] = rest[0]
	default:
		s.note("%s: command not found", cmd)
		return false
	}
	return true
}

func (s *sim) dhcp(argv []string) bool {
	if len(argv) == 0 { // the first card that gets an address
		for i := range s.cards {
			if s.dhcp([]string{"net" + strconv.Itoa(i)}) {
				return true
			}
		}
		return false
	}
	c := s.card(argv[0])
	if c == nil || !c.link {
		s.note("no DHCP on %s", argv[0])
		return false
	}
	c.ip = true
	i := slices.Index(s.cards, c)
	s.open = append(slices.DeleteFunc(s.open, func(o int) bool { return o == i }), i)
	s.note("DHCP on %s", argv[0])
	return true
}

// chain fetches a script. All of bootd's chains replace.
func (s *sim) chain(argv []string) (string, bool) {
	opts, rest, ok := options(argv, "replace", "autofree", "timeout=")
	if !ok || opts["replace"] == "" || opts["autofree"] == "" || len(rest) != 1 {
		s.note("bad chain: %v", argv)
		return "", false
	}
	path, _, _ := strings.Cut(rest[0], "?")
	text, ok := s.get(rest[0])
	s.note("chain %s: %t", path, ok)
	if !ok {
		return "", false
	}
	return text, true
}

func (s *sim) download(url string) bool {
	_, ok := s.get(url)
	s.note("get %s: %t", url, ok)
	if ok {
		s.images = append(s.images, url)
	}
	return ok
}

// get fetches by the card that the routing table has first.
func (s *sim) get(url string) (string, bool) {
	if len(s.open) == 0 {
		return "", false
	}
	return s.fetch(s.cards[slices.Min(s.open)].mac, url)
}
