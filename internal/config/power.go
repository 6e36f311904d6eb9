package config

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"bootd/boot"
)

// power reads how machines are switched on and off: none, or a mapping.
func (l *loader) power(d *document, p *boot.Profile, v ast.Node) {
	b := &boot.BMC{}
	p.Power = b
	p.Origins["power"] = d.origin(v)
	if _, ok := v.(ast.MapNode); !ok {
		if s, ok := d.text(v, "power"); ok && s != string(boot.NoPower) {
			d.wrong(v, fmt.Sprintf("power cannot be %q", clip(s)), "write power: {redfish: https://10.1.0.11, user: root, password_file: FILE}, or ipmi: or wol: instead of redfish:, or power: none")
		}
		b.Kind = boot.NoPower
		return
	}
	note := func(key string, f func(string, ast.Node)) func(string, ast.Node) {
		return func(k string, v ast.Node) { p.Origins["power."+key] = d.origin(v); f(k, v) }
	}
	var kinds, tls []string
	wolPassword := ""
	addr := func(kind boot.PowerKind) func(string, ast.Node) {
		return func(k string, v ast.Node) {
			kinds = append(kinds, k)
			b.Kind = kind
			d.into(&b.Addr, func(v ast.Node, s string) {
				if err := boot.ParsePowerAddr(kind, s); err != nil {
					d.wrong(v, k+": "+err.Error(), "")
					if strings.Contains(s, "@") {
						d.hideLine()
					}
				}
			})(k, v)
		}
	}
	secure := func(f func(string, ast.Node)) func(string, ast.Node) {
		return note("tls", func(k string, v ast.Node) { tls = append(tls, k); f(k, v) })
	}
	if !d.mapping(v, "power", fields{
		"redfish": addr(boot.Redfish),
		"ipmi":    addr(boot.IPMI),
		"wol": func(k string, v ast.Node) {
			kinds = append(kinds, k)
			b.Kind = boot.WOL
			if _, null := v.(*ast.NullNode); null {
				return
			}
			d.mapping(v, k, fields{
				"interface": d.into(&b.Interface, d.checkInterface),
				"broadcast": func(k string, v ast.Node) {
					if a, err := d.broadcastAddr(k, v); err == nil {
						b.Broadcast = a
					}
				},
				"password_file": l.path(d, &wolPassword),
			})
		},
		"user":          note("user", d.into(&b.User)),
		"password_file": note("password_file", l.path(d, &b.PasswordFile)),
		"insecure": secure(func(k string, v ast.Node) {
			yes := false
			d.yes(&yes)(k, v)
			b.Insecure = &yes
		}),
		"fingerprint": secure(func(k string, v ast.Node) { b.Fingerprint = d.fingerprint(k, v) }),
		"ca_file":     secure(l.path(d, &b.CAFile)),
		"password": func(_ string, v ast.Node) {
			d.wrong(v, "a password does not belong here", "write it into a file that only bootd can read, and that file's path here, as password_file: FILE")
			d.hideLine()
		},
		"system": d.into(&b.System),
		"cipher_suite": func(k string, v ast.Node) {
			s := ""
			if d.one(&s, "3", "17")(k, v); s != "" {
				b.CipherSuite = int(s[len(s)-1]-'0') + 10*(len(s)-1)
			}
		},
	}) {
		return
	}
	if wolPassword != "" {
		b.PasswordFile = wolPassword
	}
	l.checkPower(d, b, v, kinds, tls)
}

// hideLine keeps the text of the line from being shown with the mistake noted
// last: there is a password in it, and mistakes are logged.
func (d *document) hideLine() { (*d.mistakes)[len(*d.mistakes)-1].Line = "" }

// checkPower finds keys that do not go together.
func (l *loader) checkPower(d *document, b *boot.BMC, v ast.Node, kinds, tls []string) {
	if len(kinds) > 1 {
		d.wrong(v, fmt.Sprintf("power has both %s and %s", kinds[0], kinds[1]), "keep one of them")
		return
	}
	if len(tls) > 1 && !(len(tls) == 2 && slices.Contains(tls, "insecure") && !b.AnyCertificate()) {
		d.wrong(v, fmt.Sprintf("power has both %s and %s", tls[0], tls[1]), "keep one of them: fingerprint is the safest for a certificate that nobody signed")
	}
	// Without a kind, they are defaults for whichever is told elsewhere.
	for _, f := range []struct {
		key  string
		only boot.PowerKind
	}{
		{"insecure", boot.Redfish}, {"fingerprint", boot.Redfish}, {"ca_file", boot.Redfish}, {"system", boot.Redfish}, {"cipher_suite", boot.IPMI},
	} {
		if has(v, f.key) && b.Kind != "" && b.Kind != f.only {
			d.wrong(v, fmt.Sprintf("%s means nothing for %s, only for %s", f.key, b.Kind, f.only), "leave it out")
		}
	}
	if b.Kind == boot.WOL && (has(v, "user") || has(v, "password_file")) {
		d.wrong(v, "wake-on-LAN has no user and password", "a password of SecureOn is written as wol: {password_file: FILE}")
	}
	if b.Kind == boot.Redfish && strings.HasPrefix(b.Addr, "http://") && !b.AnyCertificate() {
		d.wrong(v, fmt.Sprintf("%s sends the password in the clear", b.Addr), "write https://; or insecure: true, if the network is for BMCs only")
	}
}

// fingerprint reads the SHA-256 of a certificate, as bootd and openssl write it.
func (d *document) fingerprint(key string, v ast.Node) string {
	var s string
	d.into(&s)(key, v)
	if s == "" {
		return ""
	}
	plain := strings.ToLower(strings.ReplaceAll(s, ":", ""))
	plain = strings.TrimPrefix(plain, "sha256")
	if b, err := hex.DecodeString(plain); err != nil || len(b) != 32 {
		d.wrong(v, fmt.Sprintf("%q is not the SHA-256 fingerprint of a certificate", clip(s)), "it has 64 hexadecimal digits; `bootd machine power status` says it when the certificate is not known")
		return ""
	}
	return plain
}

// broadcastAddr reads where magic packets are sent to.
func (d *document) broadcastAddr(key string, v ast.Node) (netip.Addr, error) {
	s, ok := d.text(v, key)
	a, err := netip.ParseAddr(strings.TrimSpace(s))
	if ok && (err != nil || !a.Is4() || a.IsMulticast() || a.IsUnspecified() || a.IsLoopback()) {
		err = fmt.Errorf("%q is no IPv4 address", s)
		d.wrong(v, fmt.Sprintf("%s: %q is not an IPv4 broadcast address", key, clip(s)), "write it as 10.0.0.255; a router in between must let it through")
	}
	return a, err
}

// checkWholePower finds machines whose power is not complete when everything
// that is written about it has been put together.
func (l *loader) checkWholePower(c *boot.Catalog) {
	told := map[boot.Origin]bool{}
	for _, m := range c.Machines {
		p := c.Effective(m)
		b := p.Power
		if b == nil || b.Kind != boot.Redfish && b.Kind != boot.IPMI {
			continue
		}
		at := p.Origins["power"]
		say := func(message, hint string) {
			if told[at] {
				return
			}
			told[at] = true
			mistake := Mistake{Origin: at, Message: message, Hint: hint}
			if text, err := readFile(l.fsys, at.File); err == nil {
				if lines := bytes.Split(text, []byte("\n")); at.Line >= 1 && at.Line <= len(lines) {
					mistake.Line = string(bytes.TrimRight(lines[at.Line-1], "\r "))
				}
			}
			l.mistakes = append(l.mistakes, mistake)
		}
		switch {
		case b.User == "":
			say(fmt.Sprintf("machine %q: the BMC at %s has no user", m.Name, b.Addr), "add user: NAME, here or under power in bootd.yaml")
		case b.PasswordFile == "":
			say(fmt.Sprintf("machine %q: the BMC at %s has no password", m.Name, b.Addr), "add password_file: FILE, here or under power in bootd.yaml")
		case b.Kind == boot.Redfish && strings.HasPrefix(b.Addr, "http://") && !b.AnyCertificate():
			say(fmt.Sprintf("machine %q: %s sends the password in the clear", m.Name, b.Addr), "write https://; or insecure: true, if the network is for BMCs only")
		}
	}
}
