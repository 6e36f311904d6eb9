package photon

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"bootd/internal/photon/wire"
)

// lifetime of a certificate that is made here. People accept its fingerprint by
// hand, on every machine they work from: it must not change every year.
const lifetime = 10 * 365 * 24 * time.Hour

// Certificate is the one kept in the file at path, which only its owner may read;
// one is made for the names (host names and IP addresses) where there is none, or
// where it has expired. Fresh says that it was made now.
func Certificate(path string, names []string, now time.Time) (cert tls.Certificate, fresh bool, err error) {
	text, err := os.ReadFile(path)
	if err == nil {
		if cert, err = tls.X509KeyPair(text, text); err != nil {
			return cert, false, fmt.Errorf("cannot use the certificate in %s: %w; remove the file to have another one made", path, err)
		}
		if now.Before(cert.Leaf.NotAfter) {
			return cert, false, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return cert, false, fmt.Errorf("cannot read the controller's certificate: %w", err)
	}
	text, err = makeCertificate(names, now)
	if err == nil {
		err = keep(path, text)
	}
	if err == nil {
		cert, err = tls.X509KeyPair(text, text)
	}
	if err != nil {
		return cert, false, fmt.Errorf("cannot make the controller's certificate: %w", err)
	}
	return cert, true, nil
}

// makeCertificate returns a certificate that vouches for itself, and its key.
func makeCertificate(names []string, now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	c := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{Organization: []string{"bootd"}, CommonName: "bootd controller"},
		NotBefore:    now.Add(-time.Hour), // clocks differ
		NotAfter:     now.Add(lifetime),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		// Clients are told to trust it as it is, and some trust only authorities. It is
		// one for its own names alone: who steals its key cannot pass for others.
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		PermittedDNSDomainsCritical: true,
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
			c.PermittedIPRanges = append(c.PermittedIPRanges, alone(ip))
		} else if n != "" {
			c.DNSNames = append(c.DNSNames, n)
		}
	}
	c.PermittedDNSDomains = c.DNSNames
	// Without a permitted one, all would be.
	if len(c.DNSNames) == 0 {
		c.ExcludedDNSDomains = []string{""}
	}
	if len(c.IPAddresses) == 0 {
		c.ExcludedIPRanges = []*net.IPNet{{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, {IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})...), nil
}

// alone is the range of one address.
func alone(ip net.IP) *net.IPNet {
	if v4 := ip.To4(); v4 != nil {
		return &net.IPNet{IP: v4, Mask: net.CIDRMask(32, 32)}
	}
	return &net.IPNet{IP: ip, Mask: net.CIDRMask(128, 128)}
}

// keep writes a secret so that after a crash there is all of it or nothing.
func keep(path string, text []byte) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".certificate-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil // the name is there; only a crash now could lose it, and then another is made
	}
	_ = dir.Sync()
	_ = dir.Close()
	return nil
}

// Describe is a certificate as people compare it with what their tools show.
func Describe(c *x509.Certificate) wire.Certificate {
	sha256sum, sha1sum, md5sum := sha256.Sum256(c.Raw), sha1.Sum(c.Raw), md5.Sum(c.Raw)
	out := wire.Certificate{
		SHA256: colons(sha256sum[:]), SHA1: colons(sha1sum[:]), MD5: colons(md5sum[:]), NotAfter: c.NotAfter.UnixMilli(),
		Names: append([]string{}, c.DNSNames...), PEM: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})),
	}
	for _, ip := range c.IPAddresses {
		out.Names = append(out.Names, ip.String())
	}
	return out
}

// colons writes a digest as openssl and browsers do.
func colons(sum []byte) string {
	parts := make([]string, len(sum))
	for i, b := range sum {
		parts[i] = fmt.Sprintf("%02X", b)
	}
	return strings.Join(parts, ":")
}
