package swarm

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"syscall"
	"time"
)

// TLS says how an engine at tcp:// is proven to be the right one, and bootd to
// it. The files are read anew for each connection, so that certificates can be
// replaced at any time.
type TLS struct {
	CA         string // file with the certificates that the engine's is signed by; empty: the system's
	Cert, Key  string // files with bootd's own; both or none
	ServerName string // in the engine's certificate; empty: the name in the host
}

// SSH says how to log in where an engine at ssh:// is. The files are read anew
// for each connection.
type SSH struct {
	Key        string // file with a private key; empty: those that the agent has
	KnownHosts string // file with the keys of servers
	Agent      string // socket of an agent, as in SSH_AUTH_SOCK; empty: none
}

const (
	// connecting bounds how long it takes until an engine can be asked. It is
	// shorter than patience, so that what is wrong is told, rather than that
	// it took too long.
	connecting = 8 * time.Second
	// alive is how often a silent connection is tried. The stream of events
	// says nothing for hours, and must be known to have ended soon after its
	// other end lost power.
	alive = 15 * time.Second
	// maxSecret bounds files with keys and certificates.
	maxSecret = 1 << 20
)

// An accessError says why an engine cannot be reached, and what helps. It does
// not unwrap, since Docker's client replaces errors of connecting, by their
// kind and by words in them, with less helpful ones.
type accessError struct{ text string }

func (e *accessError) Error() string { return e.text }

func noAccess(format string, args ...any) error {
	return &accessError{text: fmt.Sprintf(format, args...)}
}

// A route is a way to an engine: each call makes a connection to its API.
type route func(ctx context.Context) (net.Conn, error)

// newRoute returns the way to the engine at a host.
func newRoute(host string, t *TLS, s *SSH) (route, error) {
	u, err := url.Parse(host)
	if err != nil {
		return nil, errors.New("its address cannot be understood")
	}
	switch {
	case t != nil && u.Scheme != "tcp":
		return nil, errors.New("TLS is for engines at tcp://")
	case s != nil && u.Scheme != "ssh":
		return nil, errors.New("SSH is for engines at ssh://")
	case u.Scheme == "unix" && path.IsAbs(u.Path):
		return unixRoute(u.Path), nil
	case u.Scheme == "tcp" && u.Hostname() != "" && u.Port() != "" && t == nil:
		return tcpRoute(u.Host), nil
	case u.Scheme == "tcp" && u.Hostname() != "" && u.Port() != "":
		return tlsRoute(u.Host, *t), nil
	case u.Scheme == "ssh" && u.Hostname() != "" && u.User.Username() != "":
		if s == nil {
			s = &SSH{}
		}
		return newTunnel(u, *s).dial, nil
	}
	return nil, errors.New("write unix:///path/to/docker.sock, tcp://address:port or ssh://user@address")
}

func unixRoute(path string) route {
	return func(ctx context.Context) (net.Conn, error) {
		// As it comes: whoever reads it knows what errors of sockets mean.
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
}

func tcpRoute(addr string) route {
	return func(ctx context.Context) (net.Conn, error) { return dialTCP(ctx, addr) }
}

// dialTCP connects to a remote machine without any proxy.
func dialTCP(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: connecting, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: alive, Interval: alive / 3, Count: 3}}
	c, err := d.DialContext(ctx, "tcp", addr)
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case err == nil:
		return c, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, noAccess("nobody listens at %s: is the server there running?", addr)
	case errors.As(err, &dns):
		return nil, noAccess("the name %s cannot be resolved: %s", dns.Name, dns.Err)
	case errors.As(err, &timeout) && timeout.Timeout():
		return nil, noAccess("%s does not answer: is the machine up, and does a firewall let bootd through?", addr)
	}
	return nil, noAccess("cannot connect to %s: %s", addr, cause(err))
}

// cause is the innermost error's text, without who called whom.
func cause(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err.Error()
		}
		err = next
	}
}

func tlsRoute(addr string, t TLS) route {
	return func(ctx context.Context) (net.Conn, error) {
		config, err := t.config(addr)
		if err != nil {
			return nil, err
		}
		c, err := dialTCP(ctx, addr)
		if err != nil {
			return nil, err
		}
		shake, cancel := context.WithTimeout(ctx, connecting)
		defer cancel()
		s := tls.Client(c, config)
		if err := s.HandshakeContext(shake); err != nil {
			_ = c.Close()
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, explainTLS(err, addr, t, config.ServerName)
		}
		return s, nil
	}
}

// config reads the files.
func (t TLS) config(addr string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName, NextProtos: []string{"http/1.1"}}
	if c.ServerName == "" {
		c.ServerName, _, _ = net.SplitHostPort(addr) // newRoute has seen that it can be split
	}
	if t.CA != "" {
		b, err := readSecret(t.CA)
		if err != nil {
			return nil, err
		}
		if c.RootCAs = x509.NewCertPool(); !c.RootCAs.AppendCertsFromPEM(b) {
			return nil, noAccess("%s holds no certificate: it must be PEM, -----BEGIN CERTIFICATE-----", t.CA)
		}
	}
	if t.Cert == "" {
		return c, nil
	}
	cert, err := readSecret(t.Cert)
	if err != nil {
		return nil, err
	}
	key, err := readSecret(t.Key)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, noAccess("the certificate %s and the key %s cannot be used: %s", t.Cert, t.Key, err)
	}
	c.Certificates = []tls.Certificate{pair}
	return c, nil
}

// readSecret reads a file that is small. Nothing of it gets into an error.
func readSecret(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, noAccess("cannot read %s: %s", name, cause(err))
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	switch {
	case err != nil:
		return nil, noAccess("cannot read %s: %s", name, cause(err))
	case len(b) > maxSecret:
		return nil, noAccess("%s is larger than %d MiB: it is not what it should be", name, maxSecret>>20)
	}
	return b, nil
}

// explainTLS says what helps when there is no trust. What the engine says of
// bootd's certificate comes later, with its first answer: see refusedTLS.
func explainTLS(err error, addr string, t TLS, name string) error {
	var unknown x509.UnknownAuthorityError
	var wrong x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	var timeout net.Error
	switch {
	case errors.As(err, &unknown) && t.CA == "":
		return noAccess("the certificate of %s is signed by nobody that this system trusts: set tls.ca to the certificate that signed it", addr)
	case errors.As(err, &unknown):
		return noAccess("the certificate of %s is not signed by what is in %s: set tls.ca to the certificate that signed it", addr, t.CA)
	case errors.As(err, &wrong):
		return noAccess("the certificate of %s is for %s, not for %s: set tls.server_name to a name that is in it", addr, names(wrong.Certificate), name)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return noAccess("the certificate of %s is valid from %s to %s, but it is %s: replace it, or set the clock of this machine right",
			addr, day(invalid.Cert.NotBefore), day(invalid.Cert.NotAfter), day(time.Now()))
	case errors.As(err, &record):
		return noAccess("%s does not speak TLS: does its engine run with --tlsverify, and is this its port?", addr)
	case errors.As(err, &timeout) && timeout.Timeout():
		return noAccess("%s does not answer: is this the engine's port?", addr)
	case refusedTLS(err):
		return noAccess("%s", ownCertificate(addr))
	case errors.Is(err, io.EOF):
		return noAccess("%s hangs up at once: is this the engine's port?", addr)
	}
	return noAccess("no TLS with %s: %s", addr, err)
}

// refusedTLS reports whether the other end said that it does not like bootd's
// certificate, or that there is none.
func refusedTLS(err error) bool {
	s := err.Error()
	return strings.Contains(s, "remote error: tls: ") && (strings.Contains(s, "certificate") || strings.Contains(s, "access denied"))
}

func ownCertificate(host string) string {
	return "the engine at " + host + " refuses bootd's certificate: tls.cert and tls.key must be signed by what the engine was given as --tlscacert, for clients, and not be outdated"
}

// names lists for what a certificate is.
func names(c *x509.Certificate) string {
	var out []string
	out = append(out, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		out = append(out, ip.String())
	}
	const most = 5
	if len(out) > most {
		out = append(out[:most], "others")
	}
	if len(out) == 0 {
		return "nobody"
	}
	return printable(strings.Join(out, ", "), 200)
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// printable makes a text of somebody else's fit for a log and a terminal.
func printable(s string, most int) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " ")
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}

// transport speaks HTTP over connections of the route.
func (r route) transport() *http.Transport {
	return &http.Transport{
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return r(ctx) },
		MaxIdleConns:           6,
		IdleConnTimeout:        30 * time.Second,
		DisableCompression:     true, // so that what is counted is what arrives
		MaxResponseHeaderBytes: 64 << 10,
	}
}
