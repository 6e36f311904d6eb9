package swarm_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bootd/internal/swarm"
	"bootd/internal/swarm/dockertest"
)

// An authority signs certificates, and writes all it makes into a directory.
type authority struct {
	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // its own certificate
}

func newAuthority(t testing.TB, dir, name string) *authority {
	a := &authority{t: t, dir: dir}
	a.file, _ = a.sign(name, func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign })
	return a
}

// sign makes a certificate, and makes the first one the authority's own.
func (a *authority) sign(name string, change func(*x509.Certificate)) (cert, key string) {
	a.t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		a.t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	change(c)
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, k
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &k.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	if a.cert == nil {
		if a.cert, err = x509.ParseCertificate(der); err != nil {
			a.t.Fatal(err)
		}
		a.key = k
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, key = filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+".key")
	a.write(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	a.write(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	return cert, key
}

func (a *authority) write(name string, b []byte) {
	a.t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		a.t.Fatal(err)
	}
}

func forLoopback(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} }

// inactive answers what is asked when connecting, as an engine in no swarm does.
func inactive(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	switch {
	case strings.HasSuffix(r.URL.Path, "/_ping"):
		w.Header().Set("Api-Version", "1.41")
	case strings.HasSuffix(r.URL.Path, "/info"):
		fmt.Fprint(w, `{"ServerVersion": "20.10.24", "Swarm": {"LocalNodeState": "inactive"}}`)
	default:
		http.NotFound(w, r)
	}
}

// tlsServer serves the API with a certificate and asks clients for one that
// clients has signed, unless that is empty.
func tlsServer(t testing.TB, cert, key, clients string) string {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(inactive))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	if clients != "" {
		b, err := os.ReadFile(clients)
		if err != nil {
			t.Fatal(err)
		}
		s.TLS.ClientCAs, s.TLS.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		s.TLS.ClientCAs.AppendCertsFromPEM(b)
	}
	s.Config.ErrorLog = quiet()
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// said asks an engine what it is, and returns what people are told if it does
// not answer.
func said(t testing.TB, host string, tl *swarm.TLS, s *swarm.SSH) string {
	t.Helper()
	e, err := swarm.RemoteEngine(host, tl, s)
	if err != nil {
		t.Fatal(err)
	}
	defer e.(io.Closer).Close()
	ctx, cancel := context.WithTimeout(t.Context(), swarm.Connecting)
	defer cancel()
	i, err := e.Info(ctx)
	if err != nil {
		return swarm.Explain(err, host)
	}
	if i.State != swarm.Inactive || i.Version == "" {
		t.Errorf("the engine says %+v", i)
	}
	return ""
}

// TestTLS: an engine is asked when both ends trust each other; otherwise what is
// wrong is said, and what helps.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	ca, other := newAuthority(t, dir, "ca"), newAuthority(t, dir, "other")
	cert, key := ca.sign("server", forLoopback)
	mine, myKey := ca.sign("bootd", func(*x509.Certificate) {})
	foreign, foreignKey := other.sign("stranger", func(*x509.Certificate) {})
	oldCert, oldKey := ca.sign("old", func(c *x509.Certificate) {
		forLoopback(c)
		c.NotBefore, c.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
	})
	namedCert, namedKey := ca.sign("named", func(c *x509.Certificate) { c.DNSNames = []string{"manager1.example.com"} })

	open := tlsServer(t, cert, key, "")
	strict := tlsServer(t, cert, key, ca.file)
	old := tlsServer(t, oldCert, oldKey, "")
	named := tlsServer(t, namedCert, namedKey, "")
	plain := httptest.NewServer(http.HandlerFunc(inactive))
	t.Cleanup(plain.Close)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	_ = closed.Close()
	empty := filepath.Join(dir, "empty")
	ca.write(empty, nil)

	for _, tt := range []struct {
		name, addr string
		tls        *swarm.TLS
		want       string // part of what is said; empty: it answers
	}{
		{"trusted", open, &swarm.TLS{CA: ca.file}, ""},
		{"both trusted", strict, &swarm.TLS{CA: ca.file, Cert: mine, Key: myKey}, ""},
		{"by another name", named, &swarm.TLS{CA: ca.file, ServerName: "manager1.example.com"}, ""},
		{"without TLS", plain.Listener.Addr().String(), nil, ""},
		{"wrong authority", open, &swarm.TLS{CA: other.file}, "is not signed by what is in " + other.file},
		{"the system's authorities", open, &swarm.TLS{}, "set tls.ca"},
		{"no certificate", strict, &swarm.TLS{CA: ca.file}, "refuses bootd's certificate"},
		{"foreign certificate", strict, &swarm.TLS{CA: ca.file, Cert: foreign, Key: foreignKey}, "refuses bootd's certificate"},
		{"outdated", old, &swarm.TLS{CA: ca.file}, "but it is"},
		{"wrong name", named, &swarm.TLS{CA: ca.file}, "is for manager1.example.com, not for 127.0.0.1: set tls.server_name"},
		{"no TLS there", plain.Listener.Addr().String(), &swarm.TLS{CA: ca.file}, "does not speak TLS"},
		{"TLS there", open, nil, "speaks TLS only"},
		{"nobody there", nobody, &swarm.TLS{CA: ca.file}, "nobody listens at"},
		{"nobody there without TLS", nobody, nil, "nobody listens at"},
		{"no such file", open, &swarm.TLS{CA: dir + "/none"}, "cannot read " + dir + "/none: no such file"},
		{"no certificate in the file", open, &swarm.TLS{CA: empty}, "holds no certificate"},
		{"key of another", open, &swarm.TLS{CA: ca.file, Cert: mine, Key: foreignKey}, "cannot be used"},
	} {
		got := said(t, "tcp://"+tt.addr, tt.tls, nil)
		if (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestCertificatesReplaced: new certificates are used by the next connection of
// the same engine.
func TestCertificatesReplaced(t *testing.T) {
	dir := t.TempDir()
	ca := newAuthority(t, dir, "ca")
	cert, key := ca.sign("server", forLoopback)
	addr := tlsServer(t, cert, key, ca.file)
	mine, myKey := ca.sign("bootd", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	e, err := swarm.RemoteEngine("tcp://"+addr, &swarm.TLS{CA: ca.file, Cert: mine, Key: myKey}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer e.(io.Closer).Close()
	if _, err := e.Info(t.Context()); err == nil {
		t.Fatal("an outdated certificate was taken")
	}
	ca.sign("bootd", func(*x509.Certificate) {}) // over the old one
	if _, err := e.Info(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestRealEngineTLS: a swarm is made and kept on a real engine behind TLS.
func TestRealEngineTLS(t *testing.T) {
	lab := dockertest.New(t)
	dir := t.TempDir()
	ca := newAuthority(t, dir, "ca")
	cert, key := ca.sign("server", forLoopback)
	mine, myKey := ca.sign("bootd", func(*x509.Certificate) {})
	real := lab.Engine("m1", "--host", "tcp://127.0.0.1:2376", "--tlsverify", "--tlscacert", ca.file, "--tlscert", cert, "--tlskey", key)
	host := "tcp://" + real.Expose(2376)
	if got := said(t, host, &swarm.TLS{CA: ca.file}, nil); !strings.Contains(got, "refuses bootd's certificate") {
		t.Errorf("without a certificate: %q", got)
	}
	if got := said(t, host, nil, nil); !strings.Contains(got, "speaks TLS only") {
		t.Errorf("without TLS: %q", got)
	}
	e, err := swarm.RemoteEngine(host, &swarm.TLS{CA: ca.file, Cert: mine, Key: myKey}, nil)
	if err != nil {
		t.Fatal(err)
	}
	makeAndWatch(t, e, real)
}

// makeAndWatch makes a swarm on an engine, sees a change of a node by its
// events, and sees that the engine goes away.
func makeAndWatch(t *testing.T, e swarm.Engine, real *dockertest.Engine) {
	t.Helper()
	defer e.(io.Closer).Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := e.Init(ctx, swarm.Init{Advertise: real.Addr}); err != nil {
		t.Fatal(err)
	}
	nodes, err := e.Nodes(ctx)
	if err != nil || len(nodes) != 1 {
		t.Fatalf("nodes: %+v, %v", nodes, err)
	}
	changes, ended := make(chan struct{}, 100), make(chan error, 1)
	go func() { ended <- e.Watch(ctx, func() { changes <- struct{}{} }) }()
	heard := func() bool {
		select {
		case <-changes:
			return true
		case err := <-ended:
			t.Fatalf("watching ended: %v", err)
		default:
		}
		return false
	}
	until(t, "watching begins", heard)
	// The engine answers just before it begins to listen for changes itself, so
	// that a first one can be missed.
	rack := 0
	until(t, "a label is heard of", func() bool {
		if heard() {
			return true
		}
		nodes, err := e.Nodes(ctx)
		if err != nil {
			t.Fatal(err)
		}
		n := nodes[0]
		rack++
		n.Labels = map[string]string{"rack": fmt.Sprint(rack)}
		if err := e.SetNode(ctx, n.ID, n.Version, n.Spec); err != nil && !errors.Is(err, swarm.ErrConflict) {
			t.Fatal(err)
		}
		return false
	})
	real.Kill()
	select {
	case err := <-ended:
		if err == nil || ctx.Err() != nil {
			t.Errorf("watching an engine that was killed ended with %v", err)
		}
	case <-ctx.Done():
		t.Error("watching an engine that was killed did not end")
	}
}

// TestBounded: an engine that answers more than any would is refused before its
// answer is in memory.
func TestBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("sends much")
	}
	var sent atomic.Int64
	flood := func(w io.Writer, begin, part, sep string) {
		block := []byte(strings.Repeat(part+sep, (64<<10)/len(part)))
		_, _ = io.WriteString(w, begin)
		for sent.Load() < 4*swarm.MaxAnswer {
			n, err := w.Write(block)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	}
	var mode string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case strings.HasSuffix(r.URL.Path, "/_ping"):
			w.Header().Set("Api-Version", "1.41")
			return
		case strings.HasSuffix(r.URL.Path, "/version"):
			fmt.Fprint(w, "{}")
		case mode == "headers":
			for i := range 10_000 {
				w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("x", 100))
			}
		case mode == "error":
			w.WriteHeader(http.StatusInternalServerError)
			flood(w, `{"message":"`, "x", "")
		case mode == "objects":
			flood(w, "[", "{}", ",")
		case mode == "nulls":
			flood(w, "[", "null", ",")
		default:
			flood(w, `[{"ID":"`, "{n", "")
		}
	}))
	defer s.Close()
	e, err := swarm.RemoteEngine("tcp://"+s.Listener.Addr().String(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer e.(io.Closer).Close()
	for _, tt := range []struct {
		mode string
		most int64 // bytes that may be sent until the end; sockets hold some more
		ask  func() error
	}{
		{"bytes", swarm.MaxAnswer, func() error { _, err := e.Nodes(t.Context()); return err }},
		{"objects", 3 * swarm.MaxObjects, func() error { _, err := e.Nodes(t.Context()); return err }},
		{"nulls", 5 * swarm.MaxObjects, func() error { _, err := e.Tasks(t.Context()); return err }},
		{"error", 1 << 20, func() error { _, err := e.Nodes(t.Context()); return err }},
		{"headers", 1 << 20, func() error { _, err := e.Nodes(t.Context()); return err }},
		{"event", swarm.MaxEvent, func() error { return e.Watch(t.Context(), func() {}) }},
	} {
		mode = tt.mode
		sent.Store(0)
		err := tt.ask()
		if err == nil || len(err.Error()) > 32<<10 {
			t.Errorf("%s: %.200v", tt.mode, err)
		}
		if got := sent.Load(); got > tt.most+16<<20 {
			t.Errorf("%s: %d bytes were taken", tt.mode, got)
		}
	}
}

// TestManyEvents: a stream is not bounded, only what is between its line ends.
func TestManyEvents(t *testing.T) {
	event := []byte(`{"Type":"node","Action":"update","Actor":{"ID":"n","Attributes":{"name":"` + strings.Repeat("{n", 1000) + `"}}}` + "\n")
	count := swarm.MaxEvent/len(event) + 1000
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/events") {
			fmt.Fprint(w, "{}")
			return
		}
		_, _ = w.Write(bytes.Repeat(event, count))
	}))
	defer s.Close()
	e, err := swarm.RemoteEngine("tcp://"+s.Listener.Addr().String(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer e.(io.Closer).Close()
	heard := 0
	err = e.Watch(t.Context(), func() { heard++ })
	if heard != count+1 || err == nil || !strings.Contains(err.Error(), "EOF") {
		t.Errorf("%d of %d events, then %v", heard, count+1, err)
	}
}

// TestRemoteHosts: what cannot be an engine's address is refused at once.
func TestRemoteHosts(t *testing.T) {
	for _, tt := range []struct {
		host string
		tls  *swarm.TLS
		ssh  *swarm.SSH
		ok   bool
	}{
		{"unix:///var/run/docker.sock", nil, nil, true},
		{"tcp://10.0.0.2:2375", nil, nil, true},
		{"tcp://[fd00::2]:2376", &swarm.TLS{}, nil, true},
		{"ssh://core@10.0.0.2", nil, nil, true},
		{"ssh://core@10.0.0.2:2222/run/user/1000/docker.sock", nil, &swarm.SSH{}, true},
		{"tcp://10.0.0.2", nil, nil, false},
		{"ssh://10.0.0.2", nil, nil, false},
		{"unix:///var/run/docker.sock", &swarm.TLS{}, nil, false},
		{"tcp://10.0.0.2:2375", nil, &swarm.SSH{}, false},
		{"http://10.0.0.2:2375", nil, nil, false},
		{"tcp://10.0.0.2:x", nil, nil, false},
		{"docker", nil, nil, false},
		{"", nil, nil, false},
	} {
		if _, err := swarm.RemoteEngine(tt.host, tt.tls, tt.ssh); (err == nil) != tt.ok {
			t.Errorf("%q: %v", tt.host, err)
		}
	}
}
