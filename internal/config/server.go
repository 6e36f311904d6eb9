package config

import (
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"regexp"

	"github.com/goccy/go-yaml/ast"
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
		"power":   func(_ string, v ast.Node) { l.power(d, &l.switches, v) },
		"swarm":   func(key string, v ast.Node) { l.swarmSection(d, key, v) },
		"swarms":  func(key string, v ast.Node) { l.swarmSection(d, key, v) },
		"api": func(key string, v ast.Node) {
			d.mapping(v, key, fields{"socket": func(key string, v ast.Node) {
				l.path(d, &c.Socket)(key, v)
				if len(c.Socket) > maxSocket {
					d.wrong(v, fmt.Sprintf("socket %s is too long", clip(c.Socket)), fmt.Sprintf("Linux allows %d characters", maxSocket))
				}
			}})
		},
		"metrics": func(key string, v ast.Node) {
			d.mapping(v, key, fields{"listen": d.into(&c.Metrics, d.checkListen)})
		},
		"controller": func(key string, v ast.Node) { l.controller(d, key, v) },
		"dashboard": func(key string, v ast.Node) {
			c.Dashboard = "127.0.0.1:8080"
			d.mapping(v, key, fields{"listen": d.into(&c.Dashboard, d.checkLoopback)})
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

// checkName is for names that people type and that are put into URLs.
func (d *document) checkName(v ast.Node, s string) {
	if !plainName.MatchString(s) {
		d.wrong(v, fmt.Sprintf("%q cannot be a name here", clip(s)), "use letters, digits, dots, hyphens and underscores, at most 64")
	}
}

// checkListen is for where a server listens.
func (d *document) checkListen(v ast.Node, s string) {
	if a, err := netip.ParseAddrPort(s); err != nil || a.Port() == 0 {
		d.wrong(v, fmt.Sprintf("%q is not an address to listen at", clip(s)), "write it as 127.0.0.1:9177, or 0.0.0.0:9177 for all of this machine's addresses")
	}
}

// checkLoopback is for where a server listens that has no TLS of its own; port 0
// is any that is free.
func (d *document) checkLoopback(v ast.Node, s string) {
	a, err := netip.ParseAddrPort(s)
	switch {
	case err != nil:
		d.wrong(v, fmt.Sprintf("%q is not an address to listen at", clip(s)), "write it as 127.0.0.1:8080")
	case !a.Addr().IsLoopback():
		d.wrong(v, fmt.Sprintf("%q can be reached from other machines, and the dashboard has no TLS", clip(s)),
			fmt.Sprintf("listen at 127.0.0.1:%d, and come by ssh -L %[1]d:127.0.0.1:%[1]d or through a proxy on this machine", a.Port()))
	}
}

var plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

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
