package assets

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"bootd/boot"
)

const (
	maxBootCfg     = 1 << 20 // bytes
	maxESXiModules = 2000
)

// A bootCfg is what the boot.cfg of an installation medium says.
type bootCfg struct {
	title, prefix, build, kernelopt string
	kernel                          string // path on the medium, without a slash in front
	modules                         []cfgModule
	settings                        []boot.ESXiSetting
}

// A cfgModule is one element of modules.
type cfgModule struct{ path, options string }

// bootCfgNumbers are the keys that mboot reads as numbers (esx-boot,
// mboot/config.c) and that are as right on the network as on a CD. It does not
// start with one that is no number.
var bootCfgNumbers = []string{"timeout", "noquirks", "norts", "runtimewd", "runtimewdtimeout", "errtimeout"}

// cdOptions begin the kernel options that say where the installer finds things,
// which is elsewhere on the network.
var cdOptions = []string{"cdromBoot", "ks=", "ks", "ksdevice=", "netdevice=", "bootproto=", "ip=", "netmask=", "gateway=", "nameserver=", "vlanid=", "BOOTIF="}

// parseBootCfg reads a boot.cfg as mboot does (esx-boot, bootlib/parse.c): lines
// of key=value, where case does not matter in the key, spaces count once, the
// last of several lines for one key holds, and keys that mean nothing are passed
// over. An error names the line.
func parseBootCfg(text []byte) (bootCfg, error) {
	var c bootCfg
	if len(text) > maxBootCfg {
		return c, fmt.Errorf("it has %d bytes, which is more than can be", len(text))
	}
	n := 0
	for line := range bytes.Lines(text) {
		n++
		if err := c.line(string(line)); err != nil {
			return bootCfg{}, fmt.Errorf("line %d: %w", n, err)
		}
	}
	switch {
	case c.kernel == "":
		return bootCfg{}, fmt.Errorf("no line kernel= in %d lines", n)
	case len(c.modules) == 0:
		return bootCfg{}, fmt.Errorf("no line modules= in %d lines", n)
	}
	return c, nil
}

// line reads one line.
func (c *bootCfg) line(s string) error {
	s = strings.Join(strings.Fields(s), " ")
	if s == "" || s[0] == '#' {
		return nil
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return fmt.Errorf("%.40q has a character that is not text", s)
		}
	}
	key, value, ok := strings.Cut(s, "=")
	if !ok {
		return fmt.Errorf("%.40q has no '='", s)
	}
	key, value = strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(value)
	switch key {
	case "title":
		c.title = value
	case "prefix":
		c.prefix = value
	case "build":
		c.build = value
	case "kernelopt":
		c.kernelopt = networkOptions(value)
	case "kernel":
		p, err := cfgPath(value)
		c.kernel = p
		return err
	case "modules":
		l, err := cfgModules(value)
		c.modules = l
		return err
	case "acpitables":
		if value != "" {
			return fmt.Errorf("it replaces ACPI tables, which is not supported")
		}
	default:
		if slices.Contains(bootCfgNumbers, key) && value != "" {
			return c.number(key, value)
		}
	}
	return nil
}

func (c *bootCfg) number(key, value string) error {
	if n, err := strconv.Atoi(value); err != nil || n < -1 || n > 1<<30 {
		return fmt.Errorf("%s is %.40q, not a number", key, value)
	}
	c.settings = slices.DeleteFunc(c.settings, func(s boot.ESXiSetting) bool { return s.Key == key })
	c.settings = append(c.settings, boot.ESXiSetting{Key: key, Value: value})
	return nil
}

// cfgModules takes a list apart: name, options if any, "---" in between.
func cfgModules(s string) ([]cfgModule, error) {
	var l []cfgModule
	if s == "" {
		return nil, nil
	}
	seen := map[string]bool{}
	for item := range strings.SplitSeq(s, "---") {
		name, options, _ := strings.Cut(strings.TrimSpace(item), " ")
		if name == "" {
			continue // mboot passes over it too
		}
		p, err := cfgPath(name)
		if err != nil {
			return nil, err
		}
		if key := strings.ToLower(path.Base(p)); seen[key] {
			return nil, fmt.Errorf("module %s is there twice", name)
		} else {
			seen[key] = true
		}
		if l = append(l, cfgModule{p, options}); len(l) > maxESXiModules {
			return nil, fmt.Errorf("there are more than %d modules", maxESXiModules)
		}
	}
	return l, nil
}

// cfgPath checks the path of a file on the medium, and strips the slash in
// front: with it, mboot would take the path for absolute and leave out the
// prefix.
func cfgPath(s string) (string, error) {
	p := strings.TrimPrefix(path.Clean("/"+s), "/")
	if base := path.Base(p); !filePattern.MatchString(base) || strings.Contains(s, "..") || strings.ContainsAny(s, " :\\") {
		return "", fmt.Errorf("%.60q cannot be the name of a file on the medium", s)
	}
	return p, nil
}

// networkOptions are kernel options without those that are only right on a CD.
func networkOptions(s string) string {
	words := slices.DeleteFunc(strings.Fields(s), func(w string) bool {
		return slices.ContainsFunc(cdOptions, func(o string) bool {
			if strings.HasSuffix(o, "=") {
				return len(w) >= len(o) && strings.EqualFold(w[:len(o)], o)
			}
			return strings.EqualFold(w, o)
		})
	})
	return strings.Join(words, " ")
}
