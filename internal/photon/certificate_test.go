package photon_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"bootd/internal/photon"
	"bootd/internal/photon/wire"
)

// TestCertificateConstrained: who trusts the certificate trusts its names, and
// nothing else that is signed with its key.
func TestCertificateConstrained(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, names := range [][]string{{"bootd.example.org", "10.0.0.1", "::1"}, {"bootd.example.org"}, {"10.0.0.1"}} {
		ca, _, err := photon.Certificate(filepath.Join(t.TempDir(), "controller.pem"), names, now)
		if err != nil {
			t.Fatal(err)
		}
		trusted := x509.NewCertPool()
		trusted.AddCert(ca.Leaf)
		verify := func(c *x509.Certificate, host string) error {
			_, err := c.Verify(x509.VerifyOptions{Roots: trusted, DNSName: host, CurrentTime: now})
			return err
		}
		for _, n := range names {
			if err := verify(ca.Leaf, n); err != nil {
				t.Errorf("%v: %s: %v", names, n, err)
			}
		}
		for _, host := range []string{"bank.example.org", "10.0.0.2", "::2"} {
			if verify(forged(t, ca, host, now), host) == nil {
				t.Errorf("%v: %s can be forged", names, host)
			}
		}
		if !ca.Leaf.MaxPathLenZero || ca.Leaf.MaxPathLen != 0 {
			t.Errorf("%v: it may make authorities", names)
		}
	}
}

// forged is a certificate that is signed with the key of another.
func forged(t *testing.T, ca tls.Certificate, host string, now time.Time) *x509.Certificate {
	t.Helper()
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now, NotAfter: now.Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if ip := net.ParseIP(host); ip != nil {
		c.IPAddresses = []net.IP{ip}
	} else {
		c.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, ca.Leaf, ca.Leaf.PublicKey, ca.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestCertificateCurl: programs that verify in another way take it too.
func TestCertificateCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("curl is not installed")
	}
	s := start(t)
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, []byte(into[wire.Endpoint](s.get("/endpoint"), 200).Certificate.PEM), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, curl, "-q", "--noproxy", "*", "-sS", "-f", "--cacert", path, s.base+"/available").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
