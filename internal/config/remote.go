package config

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"github.com/goccy/go-yaml/ast"
	"golang.org/x/crypto/ssh"
)

// knownHosts is where the keys of SSH servers are looked for unless told
// otherwise.
const knownHosts = "known_hosts"

// maxSecret bounds files with keys and certificates.
const maxSecret = 1 << 20

// checkEngine checks where a manager's engine is.
func (d *document) checkEngine(v ast.Node, s string) {
	const how = "write it as unix:///var/run/docker.sock, tcp://10.0.0.2:2376 or ssh://user@10.0.0.2"
	u, err := url.Parse(s)
	if err != nil || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" {
		d.wrong(v, fmt.Sprintf("host %q is not the address of a Docker engine", clip(s)), how)
		return
	}
	_, secret := u.User.Password()
	port, portErr := strconv.ParseUint(u.Port(), 10, 16)
	portOK := u.Port() == "" || portErr == nil && port > 0
	switch {
	case u.Scheme == "unix" && u.Host == "" && path.IsAbs(u.Path) && u.Path != "/":
	case u.Scheme == "tcp" && u.Hostname() != "" && portOK && u.User == nil && (u.Path == "" || u.Path == "/"):
		if u.Port() == "" {
			d.wrong(v, fmt.Sprintf("host %q has no port", clip(s)), fmt.Sprintf("Docker's is 2376 with TLS: tcp://%s", net.JoinHostPort(u.Hostname(), "2376")))
		}
	case u.Scheme == "ssh" && secret:
		d.wrong(v, "the host has a password in it", "passwords are not used; name a key under ssh")
	case u.Scheme == "ssh" && u.Hostname() != "" && portOK && u.Path != "/":
		if u.User.Username() == "" {
			d.wrong(v, fmt.Sprintf("host %q does not say who logs in", clip(s)), "write ssh://user@"+u.Host)
		}
	default:
		d.wrong(v, fmt.Sprintf("host %q is not the address of a Docker engine", clip(s)), how)
	}
}

// tls reads how the engine is proven to be the right one, and bootd to it.
func (l *loader) tls(d *document, s *rawSwarm, v ast.Node) {
	t := &TLS{}
	s.TLS, s.tlsAt = t, located{d, v}
	var ca, cert, key located
	mark := func(dst *located, f func(string, ast.Node)) func(string, ast.Node) {
		return func(k string, v ast.Node) { *dst = located{d, v}; f(k, v) }
	}
	if !d.mapping(v, "tls", fields{
		"ca":          mark(&ca, l.path(d, &t.CA)),
		"cert":        mark(&cert, l.path(d, &t.Cert)),
		"key":         mark(&key, l.path(d, &t.Key)),
		"server_name": d.into(&t.ServerName, d.checkServerName),
	}) {
		return
	}
	if t.CA != "" {
		if b, ok := l.secret(ca, "ca", t.CA, ""); ok && !x509.NewCertPool().AppendCertsFromPEM(b) {
			ca.wrong(fmt.Sprintf("%s holds no certificate", t.CA), "it must be PEM: -----BEGIN CERTIFICATE-----")
		}
	}
	switch {
	case t.Cert != "" && t.Key == "":
		d.lacks(v, "key", "there is a certificate without its key", "add key: FILE")
	case t.Cert == "" && t.Key != "":
		d.lacks(v, "cert", "there is a key without its certificate", "add cert: FILE")
	case t.Cert != "":
		c, ok1 := l.secret(cert, "cert", t.Cert, "")
		k, ok2 := l.secret(key, "key", t.Key, "")
		if !ok1 || !ok2 {
			return
		}
		if _, err := tls.X509KeyPair(c, k); err != nil {
			key.wrong(fmt.Sprintf("the key %s and the certificate %s cannot be used: %v", t.Key, t.Cert, err), "")
		}
	}
}

func (d *document) checkServerName(v ast.Node, s string) {
	if !hostName.MatchString(s) {
		d.wrong(v, fmt.Sprintf("%q is not a host name", clip(s)), "write the name, or the address, that is in the engine's certificate")
	}
}

// ssh reads how bootd logs in where the engine is, and knows the place.
func (l *loader) ssh(d *document, s *rawSwarm, v ast.Node) {
	a := &SSH{}
	s.SSH, s.sshAt = a, located{d, v}
	var key, known located
	if !d.mapping(v, "ssh", fields{
		"key":         func(k string, v ast.Node) { key = located{d, v}; l.path(d, &a.Key)(k, v) },
		"known_hosts": func(k string, v ast.Node) { known = located{d, v}; l.path(d, &a.KnownHosts)(k, v) },
	}) {
		return
	}
	if a.Key != "" {
		if b, ok := l.secret(key, "key", a.Key, ""); ok {
			key.checkPrivateKey(a.Key, b)
		}
	}
	if a.KnownHosts != "" {
		if b, ok := l.secret(known, "known_hosts", a.KnownHosts, "ssh-keyscan HOST prints what belongs there; compare it with what the host itself says"); ok {
			known.checkKnownHosts(a.KnownHosts, b)
		}
	}
}

func (at located) checkPrivateKey(name string, text []byte) {
	_, err := ssh.ParsePrivateKey(text)
	var locked *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &locked):
		at.wrong(fmt.Sprintf("the key %s needs a passphrase, which nobody is there to type", name), "make one without (ssh-keygen -N ''), or leave key out and let an agent hold it")
	case err != nil:
		at.wrong(fmt.Sprintf("%s is not a private SSH key: %v", name, err), "ssh-keygen -t ed25519 -N '' -f FILE makes one")
	}
}

// checkKnownHosts parses the lines one by one: the parser that will read the
// file takes a name only.
func (at located) checkKnownHosts(name string, text []byte) {
	for n, rest := 1, text; len(rest) > 0; n++ {
		var line []byte
		line, rest, _ = bytes.Cut(rest, []byte("\n"))
		if line = bytes.TrimSpace(line); len(line) == 0 || line[0] == '#' {
			continue
		}
		if _, _, _, _, _, err := ssh.ParseKnownHosts(line); err != nil {
			at.wrong(fmt.Sprintf("line %d of %s is no server's key", n, name), "it must be as ssh-keyscan prints it")
			return
		}
	}
}

// checkAccess finds tls and ssh that do not belong to the host, and fills in
// what a host of that kind needs.
func (l *loader) checkAccess(s *rawSwarm) {
	u, err := url.Parse(s.Host)
	if err != nil {
		return // said already
	}
	if s.TLS != nil && u.Scheme != "tcp" {
		s.tlsAt.wrong(fmt.Sprintf("tls is for engines at tcp://, not for %s", s.Host), "")
	}
	if s.SSH != nil && u.Scheme != "ssh" {
		s.sshAt.wrong(fmt.Sprintf("ssh is for engines at ssh://, not for %s", s.Host), "")
	}
	if u.Scheme != "ssh" {
		return
	}
	if s.SSH == nil {
		s.SSH = &SSH{}
	}
	if s.SSH.KnownHosts == "" {
		s.SSH.KnownHosts = filepath.Join(l.config.Dir, knownHosts)
	}
}

// secret reads a file that the configuration names. Nothing of it gets into a
// mistake.
func (l *loader) secret(at located, what, name, hint string) ([]byte, bool) {
	b, err := l.readSecret(name)
	if err == nil {
		return b, true
	}
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	at.wrong(fmt.Sprintf("%s: cannot read %s: %v", what, name, err), hint)
	return nil, false
}

func (l *loader) readSecret(name string) ([]byte, error) {
	open, stat := func() (fs.File, error) { return os.Open(name) }, func() (fs.FileInfo, error) { return os.Stat(name) }
	if rel, err := filepath.Rel(l.config.Dir, name); err == nil && filepath.IsLocal(rel) {
		rel = filepath.ToSlash(rel)
		open = func() (fs.File, error) { return l.fsys.Open(rel) }
		stat = func() (fs.FileInfo, error) { return fs.Stat(l.fsys, rel) }
	}
	// Before it is opened: opening a pipe waits for somebody to write.
	info, err := stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("it is not a file")
	case info.Size() > maxSecret:
		return nil, fmt.Errorf("it is larger than %d MiB", maxSecret>>20)
	}
	f, err := open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxSecret))
}
