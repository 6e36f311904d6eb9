package config

import (
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"bootd/boot"
)

// Times of leases that nobody wrote down. A system keeps its address for a
// working day's pause; firmware never gives an address back, so what it gets
// runs out soon.
const (
	leaseTime         = time.Hour
	firmwareLeaseTime = 5 * time.Minute
)

// maxSocket is the size of sun_path (unix(7)) without its final zero byte.
const maxSocket = 107

// server reads bootd.yaml.
func (l *loader) server(d *document, body ast.Node) {
	c := &l.config
	d.mapping(body, "bootd.yaml", fields{
		"state_dir": l.path(d, &c.StateDir),
		"networks":  func(_ string, v ast.Node) { d.list(v, func(n ast.Node) { l.network(d, n) }) },
		"http": func(key string, v ast.Node) {
			d.mapping(v, key, fields{"port": d.number(&c.HTTPPort, 1, 65535)})
		},
		"tftp": func(key string, v ast.Node) {
			d.mapping(v, key, fields{"port": d.number(&c.TFTPPort, 1, 65535), "root": l.path(d, &c.TFTPRoot)})
		},
		"loaders": l.path(d, &c.Loaders),
		"images": func(key string, v ast.Node) {
			d.entries(v, key, func(name string, k, v ast.Node) { l.image(d, name, k, v) })
		},
		"unknown": d.into(&l.unknown, func(v ast.Node, _ string) { l.unknownAt = located{d, v} }),
		"swarm":   func(key string, v ast.Node) { l.swarm(d, v) },
		"api": func(key string, v ast.Node) {
			d.mapping(v, key, fields{"socket": func(key string, v ast.Node) {
				l.path(d, &c.Socket)(key, v)
				if len(c.Socket) > maxSocket {
					d.wrong(v, fmt.Sprintf("socket %s is too long", clip(c.Socket)), fmt.Sprintf("Linux allows %d characters", maxSocket))
				}
			}})
		},
		"log": func(key string, v ast.Node) { l.log(d, v) },
	})
}

// path reads a file's path; a relative one counts from the configuration
// directory.
func (l *loader) path(d *document, dst *string) func(string, ast.Node) {
	return func(key string, v ast.Node) {
		var s string
		d.into(&s, func(ast.Node, string) {
			if !filepath.IsAbs(s) {
				s = filepath.Join(l.config.Dir, s)
			}
			*dst = filepath.Clean(s)
		})(key, v)
	}
}

func (l *loader) log(d *document, v ast.Node) {
	level, format := "info", "text"
	d.mapping(v, "log", fields{
		"level":  d.one(&level, "debug", "info", "warn", "error"),
		"format": d.one(&format, "text", "json"),
	})
	// The words are checked above, and slog knows all of them.
	_ = l.config.LogLevel.UnmarshalText([]byte(level))
	l.config.LogJSON = format == "json"
}

func (l *loader) network(d *document, n ast.Node) {
	net := boot.Network{Mode: boot.Authoritative, LeaseTime: leaseTime, FirmwareLeaseTime: firmwareLeaseTime, Origin: d.origin(n)}
	mode := string(net.Mode)
	var subnet, ranges, server, router ast.Node
	keep := func(dst *ast.Node) func(string, ast.Node) { return func(_ string, v ast.Node) { *dst = v } }
	ok := d.mapping(n, "network", fields{
		"name":      d.into(&net.Name),
		"interface": d.into(&net.Interface, d.checkInterface),
		"mode":      d.one(&mode, string(boot.Authoritative), string(boot.Off)),
		"subnet": func(key string, v ast.Node) {
			if p, ok := d.prefix(v, key); ok {
				net.Subnet, subnet = p, v
			}
		},
		"range":               keep(&ranges),
		"server":              func(k string, v ast.Node) { server = v; d.addrInto(&net.Server)(k, v) },
		"router":              func(k string, v ast.Node) { router = v; d.addrInto(&net.Router)(k, v) },
		"dns":                 d.addrsInto(&net.DNS),
		"ntp":                 d.addrsInto(&net.NTP),
		"domain":              d.into(&net.Domain, d.checkDomain),
		"mtu":                 d.number(&net.MTU, 576, 65535),
		"lease_time":          d.duration(&net.LeaseTime, 30*time.Second, 365*24*time.Hour),
		"firmware_lease_time": d.duration(&net.FirmwareLeaseTime, 30*time.Second, 365*24*time.Hour),
	})
	if !ok {
		l.lost[allNetworks] = true
		return
	}
	net.Mode = boot.Mode(mode)
	if net.Interface == "" {
		d.wrong(n, "this network has no interface", "add interface: eth1, where its machines are")
	}
	if net.Name == "" {
		net.Name = net.Interface
	}
	if subnet == nil {
		l.lost[allNetworks] = true
		if !net.Subnet.IsValid() && l.clean(d, n) {
			d.wrong(n, "this network has no subnet", "add subnet: 10.0.0.0/24")
		}
		return
	}
	for _, a := range []struct {
		addr netip.Addr
		at   ast.Node
		what string
	}{{net.Server, server, "server"}, {net.Router, router, "router"}} {
		if a.addr.IsValid() && !net.Subnet.Contains(a.addr) {
			d.wrong(a.at, fmt.Sprintf("%s %s is outside the subnet %s", a.what, a.addr, net.Subnet), "")
		}
	}
	if ranges != nil {
		d.list(ranges, func(v ast.Node) {
			if r, ok := d.addrRange(v, net); ok {
				net.Ranges = append(net.Ranges, r)
			}
		})
	}
	l.overlaps(d, n, net)
	l.networks = append(l.networks, net)
}

// clean reports whether no mistake has been found in the lines from n on; a
// network whose subnet is wrong does not also lack one.
func (l *loader) clean(d *document, n ast.Node) bool {
	from := d.origin(n)
	for _, m := range l.mistakes {
		if m.Origin.File == from.File && m.Origin.Line >= from.Line {
			return false
		}
	}
	return true
}

func (d *document) addrRange(v ast.Node, net boot.Network) (boot.Range, bool) {
	s, ok := d.text(v, "range")
	if !ok {
		return boot.Range{}, false
	}
	first, last, ok := strings.Cut(s, "-")
	if !ok {
		last = first
	}
	r := boot.Range{}
	var err1, err2 error
	r.First, err1 = netip.ParseAddr(strings.TrimSpace(first))
	r.Last, err2 = netip.ParseAddr(strings.TrimSpace(last))
	switch {
	case err1 != nil || err2 != nil || !r.First.Is4() || !r.Last.Is4():
		d.wrong(v, fmt.Sprintf("range %q is not two IPv4 addresses", s), "write it as 10.0.0.100-10.0.0.250")
	case r.Last.Less(r.First):
		d.wrong(v, fmt.Sprintf("range %s ends before it begins", s), fmt.Sprintf("did you mean %s-%s?", r.Last, r.First))
	case !net.Subnet.Contains(r.First) || !net.Subnet.Contains(r.Last):
		d.wrong(v, fmt.Sprintf("range %s is not within the subnet %s", s, net.Subnet), "")
	case net.Subnet.Bits() < 31 && r.Contains(net.Subnet.Addr()):
		d.wrong(v, fmt.Sprintf("range %s holds the network's own address %s", s, net.Subnet.Addr()), fmt.Sprintf("begin at %s", net.Subnet.Addr().Next()))
	case net.Subnet.Bits() < 31 && r.Contains(broadcast(net.Subnet)):
		d.wrong(v, fmt.Sprintf("range %s holds the broadcast address %s", s, broadcast(net.Subnet)), fmt.Sprintf("end at %s", broadcast(net.Subnet).Prev()))
	default:
		return r, true
	}
	return r, false
}

func broadcast(p netip.Prefix) netip.Addr {
	a := p.Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		a[bit/8] |= 1 << (7 - bit%8)
	}
	return netip.AddrFrom4(a)
}

func (l *loader) overlaps(d *document, n ast.Node, net boot.Network) {
	for _, other := range l.networks {
		if other.Subnet.Overlaps(net.Subnet) {
			d.wrong(n, fmt.Sprintf("subnet %s overlaps %s of the network at %s", net.Subnet, other.Subnet, other.Origin), "")
		}
		if other.Name == net.Name && net.Name != "" {
			d.wrong(n, fmt.Sprintf("two networks are called %q, the other one at %s", net.Name, other.Origin), "give each a name: of its own")
		}
	}
	for i, r := range net.Ranges {
		for _, q := range net.Ranges[:i] {
			if r.Contains(q.First) || q.Contains(r.First) {
				d.wrong(n, fmt.Sprintf("ranges %s and %s overlap", q, r), "")
			}
		}
	}
}

func (l *loader) swarm(d *document, v ast.Node) {
	if _, null := v.(*ast.NullNode); null {
		return // "swarm:" and nothing: none
	}
	s := &Swarm{Name: "default", Host: "unix:///var/run/docker.sock", Availability: "active", Origin: d.origin(v)}
	d.mapping(v, "swarm", fields{
		"name":         d.into(&s.Name, d.checkName),
		"host":         d.into(&s.Host, d.checkEngine),
		"advertise":    d.into(&s.Advertise, d.checkAdvertise),
		"availability": d.one(&s.Availability, "active", "pause", "drain"),
		"address_pools": func(key string, v ast.Node) {
			d.list(v, func(n ast.Node) {
				if p, ok := d.prefix(n, key); ok {
					s.AddressPools = append(s.AddressPools, p)
					l.pools = append(l.pools, located{d, n})
				}
			})
		},
		"data_path_port": d.number(&s.DataPathPort, 1024, 49151),
	})
	l.config.Swarm = s
}

var (
	builtin   = regexp.MustCompile(`^(fedora-coreos/(stable|testing|next)|flatcar/(stable|beta|alpha|lts))$`)
	imageName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}(/[A-Za-z0-9][A-Za-z0-9._-]{0,63}){0,3}$`)
	version   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}$`)
	hexDigest = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// image reads one entry of images.
func (l *loader) image(d *document, name string, k, v ast.Node) {
	s := ImageSource{Name: name, Origin: d.origin(k)}
	if !imageName.MatchString(name) {
		d.wrong(k, fmt.Sprintf("%q cannot be the name of an image", clip(name)), "use letters, digits, dots, hyphens and slashes between words: lab/debian-13")
	}
	family := ""
	d.mapping(v, "image "+name, fields{
		"family":   d.one(&family, string(boot.FedoraCoreOS), string(boot.Flatcar), string(boot.Linux)),
		"cpu":      d.one(&s.CPU, "x86_64", "aarch64"),
		"version":  d.into(&s.Version, d.checkVersion),
		"path":     l.path(d, &s.Path),
		"mirror":   d.into(&s.Mirror, d.checkURL),
		"insecure": d.yes(&s.Insecure),
		"kernel":   func(key string, v ast.Node) { s.Kernel = d.remote(key, v) },
		"rootfs":   func(key string, v ast.Node) { s.RootFS = d.remote(key, v) },
		"initrds": func(key string, v ast.Node) {
			d.list(v, func(n ast.Node) {
				if r := d.remote(key, n); r != nil {
					s.Initrds = append(s.Initrds, *r)
				}
			})
		},
	})
	s.Family = boot.Family(family)
	switch known := builtin.MatchString(name); {
	case s.Mirror != "" && !known:
		d.wrong(k, fmt.Sprintf("image %q cannot have a mirror", name), "only fedora-coreos/STREAM and flatcar/CHANNEL have; use path, or kernel and initrds with their digests")
	case s.Path != "" && s.Kernel != nil:
		d.wrong(k, fmt.Sprintf("image %q has both a path and a kernel", name), "keep one of them")
	case !known && s.Path == "" && s.Kernel == nil:
		d.wrong(k, fmt.Sprintf("image %q says nothing of where it is", name), "add path: DIRECTORY, or kernel: {url, sha256} and initrds")
	case s.Kernel != nil && family == "":
		d.wrong(k, fmt.Sprintf("image %q has no family", name), "add family: fedora-coreos, flatcar or linux")
	}
	l.config.Images = append(l.config.Images, s)
}

func (d *document) remote(what string, v ast.Node) *Remote {
	var r Remote
	if !d.mapping(v, what, fields{
		"url":       d.into(&r.URL, d.checkURL),
		"sha256":    d.into(&r.SHA256, d.checkDigest),
		"signature": d.into(&r.Signature, d.checkURL),
	}) {
		return nil
	}
	if r.URL == "" {
		d.wrong(v, what+" has no url", "add url: and sha256:")
	} else if r.SHA256 == "" {
		d.wrong(v, what+" has no sha256", "add the digest that the file must have, as sha256sum prints it")
	}
	return &r
}

// checkInterface knows what Linux allows (dev_valid_name in net/core/dev.c).
func (d *document) checkInterface(v ast.Node, s string) {
	if s == "" || s == "." || s == ".." || len(s) > 15 || strings.ContainsAny(s, "/: \t\n") {
		d.wrong(v, fmt.Sprintf("%q cannot be the name of a network interface", clip(s)), "ip link shows their names")
	}
}

func (d *document) checkDomain(v ast.Node, s string) {
	if !boot.ValidName(s) {
		d.wrong(v, fmt.Sprintf("%q is not a domain", clip(s)), "write it as example.com, in lower case")
	}
}

// checkName is for names that people type and that are put into URLs.
func (d *document) checkName(v ast.Node, s string) {
	if !plainName.MatchString(s) {
		d.wrong(v, fmt.Sprintf("%q cannot be a name here", clip(s)), "use letters, digits, dots, hyphens and underscores, at most 64")
	}
}

var plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

func (d *document) checkVersion(v ast.Node, s string) {
	if !version.MatchString(s) {
		d.wrong(v, fmt.Sprintf("%q cannot be a version", clip(s)), "use letters, digits, dots and hyphens, as 13.1-rc2")
	}
}

func (d *document) checkAdvertise(v ast.Node, s string) {
	if _, err := netip.ParseAddr(s); err != nil {
		d.checkInterface(v, s)
	}
}

func (d *document) checkEngine(v ast.Node, s string) {
	u, err := url.Parse(s)
	if err == nil && (u.Scheme == "unix" && u.Path != "" || u.Scheme == "tcp" && u.Host != "") {
		return
	}
	d.wrong(v, fmt.Sprintf("host %q is not the address of a Docker engine", s), "write it as unix:///var/run/docker.sock or tcp://10.0.0.2:2376")
}

func (d *document) checkURL(v ast.Node, s string) {
	if u, err := url.Parse(s); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		d.wrong(v, fmt.Sprintf("%q is not a URL that can be fetched", s), "write it as https://host/path")
	}
}

func (d *document) checkDigest(v ast.Node, s string) {
	if !hexDigest.MatchString(s) {
		d.wrong(v, fmt.Sprintf("%q is not a SHA-256 digest", clip(s)), "it has 64 hexadecimal digits, in lower case, as sha256sum prints them")
	}
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:37] + "..."
	}
	return s
}

// defaults is what a configuration says that says nothing.
func defaults(dir string) Config {
	return Config{Dir: dir, StateDir: "/var/lib/bootd", HTTPPort: 80, TFTPPort: 69, Socket: "/run/bootd/bootd.sock", LogLevel: slog.LevelInfo}
}
