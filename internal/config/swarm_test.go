package config_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"maps"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"bootd/boot"
	"bootd/internal/config"
)

// secrets are files with keys and certificates that fit together.
func secrets(t testing.TB) map[string]string {
	t.Helper()
	cert, key := certificate(t)
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	locked, err := ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"ca.pem": cert, "cert.pem": cert, "cert.key": key,
		"ssh.key": string(pem.EncodeToMemory(block)), "locked.key": string(pem.EncodeToMemory(locked)),
		"known_hosts": "# a comment\n\n" + knownhosts.Line([]string{"10.0.0.3"}, s.PublicKey()) + "\n",
	}
}

func certificate(t testing.TB) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bootd"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
}

// TestSwarm reads a swarm that says nothing, and two that say everything.
func TestSwarm(t *testing.T) {
	c, err := config.LoadFiles(map[string]string{"bootd.yaml": "swarm: {}", "profiles/p.yaml": "name: p\nswarm: {}"})
	if err != nil {
		t.Fatal(err)
	}
	origin := func(line, column int) boot.Origin {
		return boot.Origin{File: "bootd.yaml", Line: line, Column: column}
	}
	want := []config.Swarm{{
		Name: "default", Host: "unix:///var/run/docker.sock", Availability: "active",
		Grace: 5 * time.Minute, DrainTimeout: time.Minute, Origin: origin(1, 8),
	}}
	compare(t, want, c.Swarms)
	if s, ok := c.SwarmOf(c.Catalog.Profiles["p"].Swarm); !ok || s.Name != "default" {
		t.Errorf("the only swarm is %+v, %v", s, ok)
	}

	files := secrets(t)
	maps.Copy(files, map[string]string{"bootd.yaml": `swarms:
  - name: east
    host: tcp://10.1.0.2:2376
    tls: {ca: ca.pem, cert: cert.pem, key: cert.key, server_name: m1.example.com}
    advertise: 10.1.0.2
    availability: drain
    managers: 3
    grace: 10m
    drain_timeout: 90s
    tokens: {rotate: after_joins}
    strangers: remove
    networks:
      b: {subnet: [10.21.0.0/24, 10.20.0.0/24], gateway: 10.20.0.9, ip_range: 10.21.0.128/25, encrypted: true,
        attachable: true, internal: true, mtu: 1400, options: {foo: bar}, labels: {a: 1}}
      a:
    nodes:
      m1: {labels: {rack: r1}, availability: drain}
      m2: {}
  - name: west
    host: ssh://core@10.1.0.3:2222
    tokens: {rotate: 24h}
  - name: north
    host: ssh://core@10.1.0.4/run/docker.sock
    tokens: {rotate: never}
    ssh: {key: ssh.key, known_hosts: known_hosts}
`, "profiles/p.yaml": "name: p\nswarm: {swarm: west}"})
	if c, err = config.LoadFiles(files); err != nil {
		t.Fatal(err)
	}
	p := netip.MustParsePrefix
	want = []config.Swarm{
		{
			Name: "east", Host: "tcp://10.1.0.2:2376",
			TLS:       &config.TLS{CA: "/config/ca.pem", Cert: "/config/cert.pem", Key: "/config/cert.key", ServerName: "m1.example.com"},
			Advertise: "10.1.0.2", Availability: "drain", Managers: 3, Grace: 10 * time.Minute, DrainTimeout: 90 * time.Second,
			Rotation: config.Rotation{AfterJoins: true}, RemoveStrangers: true,
			Networks: []config.Overlay{
				{
					Name:      "b",
					Subnets:   []config.Subnet{{Prefix: p("10.21.0.0/24"), Range: p("10.21.0.128/25")}, {Prefix: p("10.20.0.0/24"), Gateway: netip.MustParseAddr("10.20.0.9")}},
					Encrypted: true, Attachable: true, Internal: true, MTU: 1400,
					Options: map[string]string{"foo": "bar"}, Labels: map[string]string{"a": "1"}, Origin: origin(13, 7),
				},
				{Name: "a", Origin: origin(15, 7)},
			},
			Nodes: map[string]config.Node{
				"m1": {Labels: map[string]string{"rack": "r1"}, Availability: "drain", Origin: origin(17, 7)},
				"m2": {Origin: origin(18, 7)},
			},
			Origin: origin(2, 5),
		},
		{
			Name: "west", Host: "ssh://core@10.1.0.3:2222", SSH: &config.SSH{KnownHosts: "/config/known_hosts"}, Availability: "active",
			Grace: 5 * time.Minute, DrainTimeout: time.Minute, Rotation: config.Rotation{Age: 24 * time.Hour}, Origin: origin(19, 5),
		},
		{
			Name: "north", Host: "ssh://core@10.1.0.4/run/docker.sock", SSH: &config.SSH{Key: "/config/ssh.key", KnownHosts: "/config/known_hosts"},
			Availability: "active", Grace: 5 * time.Minute, DrainTimeout: time.Minute, Origin: origin(22, 5),
		},
	}
	compare(t, want, c.Swarms)
	if s, ok := c.SwarmOf(c.Catalog.Profiles["p"].Swarm); !ok || s.Name != "west" {
		t.Errorf("the chosen swarm is %+v, %v", s, ok)
	}
	for _, m := range []*boot.Member{nil, {}, {Swarm: "south"}} {
		if s, ok := c.SwarmOf(m); ok {
			t.Errorf("%+v is in swarm %q", m, s.Name)
		}
	}
}

func compare(t *testing.T, want, got []config.Swarm) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

// TestSwarmEqual: only what is declared counts, not where.
func TestSwarmEqual(t *testing.T) {
	load := func(text string) config.Swarm {
		c, err := config.LoadFiles(map[string]string{"bootd.yaml": text})
		if err != nil {
			t.Fatal(err)
		}
		return c.Swarms[0]
	}
	a := load("swarm: {networks: {a: {subnet: 10.20.0.0/24}}, nodes: {m: {labels: {x: y}}}}")
	b := load("# moved\nswarm:\n  networks:\n    a: {subnet: 10.20.0.0/24}\n  nodes:\n    m: {labels: {x: y}}\n")
	if !a.Equal(b) || a.Networks[0].Origin == b.Networks[0].Origin || a.Origin.File == "" {
		t.Errorf("%+v and %+v", a, b)
	}
	for _, text := range []string{
		"swarm: {networks: {a: {subnet: 10.21.0.0/24}}, nodes: {m: {labels: {x: y}}}}",
		"swarm: {networks: {a: {subnet: 10.20.0.0/24}}, nodes: {m: {labels: {x: z}}}}",
		"swarm: {networks: {a: {subnet: 10.20.0.0/24}}, nodes: {m: {labels: {x: y}}}, grace: 1m}",
	} {
		if a.Equal(load(text)) {
			t.Errorf("equal to %s", text)
		}
	}
}

// TestSecretFiles is about files on a real file system that the configuration
// names, inside and outside of its directory.
func TestSecretFiles(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range secrets(t) {
		write(filepath.Join(dir, name), text)
		write(filepath.Join(outside, name), text)
	}
	_, foreign := certificate(t)
	write(filepath.Join(dir, "foreign.key"), foreign)
	write(filepath.Join(dir, "large"), strings.Repeat("x", 2<<20))
	write(filepath.Join(dir, "empty"), "")
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(outside, "ca.pem"), filepath.Join(dir, "link.pem")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ swarm, want string }{
		{"host: tcp://h:1, tls: {ca: ca.pem, cert: cert.pem, key: cert.key}", ""},
		{"host: tcp://h:1, tls: {ca: OUT/ca.pem, cert: OUT/cert.pem, key: ../" + filepath.Base(outside) + "/cert.key}", ""},
		{"host: tcp://h:1, tls: {ca: link.pem}", ""},
		{"host: ssh://u@h, ssh: {key: ssh.key, known_hosts: OUT/known_hosts}", ""},
		{"host: tcp://h:1, tls: {cert: cert.pem, key: foreign.key}", "the key DIR/foreign.key and the certificate DIR/cert.pem cannot be used: tls: private key does not match public key"},
		{"host: tcp://h:1, tls: {cert: cert.pem, key: cert.pem}", "cannot be used"},
		{"host: tcp://h:1, tls: {cert: OUT/none, key: cert.key}", "cert: cannot read OUT/none: no such file or directory"},
		{"host: tcp://h:1, tls: {ca: pipe}", "ca: cannot read DIR/pipe: it is not a file"},
		{"host: tcp://h:1, tls: {ca: /dev/zero}", "ca: cannot read /dev/zero: it is not a file"},
		{"host: tcp://h:1, tls: {ca: large}", "ca: cannot read DIR/large: it is larger than 1 MiB"},
		{"host: tcp://h:1, tls: {ca: empty}", "DIR/empty holds no certificate"},
		{"host: ssh://u@h, ssh: {key: locked.key}", "the key DIR/locked.key needs a passphrase"},
		{"host: ssh://u@h, ssh: {known_hosts: ssh.key}", "line 1 of DIR/ssh.key is no server's key"},
		{"host: ssh://u@h, ssh: {known_hosts: empty}", ""},
	} {
		write(filepath.Join(dir, "bootd.yaml"), "swarm: {"+strings.ReplaceAll(tt.swarm, "OUT", outside)+"}\n")
		_, err := config.Load(dir)
		var mistakes config.Mistakes
		if tt.want == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.swarm, err)
			}
			continue
		}
		want := strings.NewReplacer("DIR", dir, "OUT", outside).Replace(tt.want)
		if !errors.As(err, &mistakes) || len(mistakes) != 1 || !strings.Contains(mistakes[0].Message, want) {
			t.Errorf("%s: got %v, want %s", tt.swarm, err, want)
		}
	}
}
