package esx

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"strings"
)

// fingerprint is how a certificate is known: the SHA-256 of it, as people
// compare it.
func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return "SHA256:" + colons(sum[:])
}

func colons(b []byte) string {
	var s strings.Builder
	for i, x := range b {
		if i > 0 {
			s.WriteByte(':')
		}
		fmt.Fprintf(&s, "%02X", x)
	}
	return s.String()
}

// parsePin reads a fingerprint: 20 bytes of SHA-1, as vSphere shows it, or 32 of
// SHA-256, in hexadecimal digits with or without colons, after "SHA1:",
// "SHA256:" or nothing.
func parsePin(s string) ([]byte, error) {
	digits := strings.TrimSpace(s)
	want := 0
	for prefix, n := range map[string]int{"SHA1:": sha1.Size, "SHA-1:": sha1.Size, "SHA256:": sha256.Size, "SHA-256:": sha256.Size} {
		if len(digits) >= len(prefix) && strings.EqualFold(digits[:len(prefix)], prefix) {
			digits, want = digits[len(prefix):], n
			break
		}
	}
	b, err := hex.DecodeString(strings.ReplaceAll(digits, ":", ""))
	if err != nil || len(b) != sha1.Size && len(b) != sha256.Size || want != 0 && len(b) != want {
		return nil, fmt.Errorf("%q is no fingerprint: it has 20 bytes (SHA-1) or 32 (SHA-256), in hexadecimal digits", s)
	}
	return b, nil
}

// An untrusted error says that the host has another certificate than the one
// that is known, or that none is known yet.
type untrusted struct {
	shown string // its fingerprint
	known bool   // a fingerprint was given
}

func (e *untrusted) Error() string {
	if e.known {
		return "it has the certificate " + e.shown + ", which is not the one that was accepted"
	}
	return "its certificate " + e.shown + " has not been accepted yet"
}

// pinned accepts only the certificate with a fingerprint; without one, none. Who
// has signed it does not matter: ESXi's are signed by the host itself.
func pinned(pin []byte) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // VerifyConnection does it
		VerifyConnection: func(s tls.ConnectionState) error {
			c := s.PeerCertificates[0]
			one, two := sha1.Sum(c.Raw), sha256.Sum256(c.Raw)
			if p := string(pin); p != "" && (p == string(one[:]) || p == string(two[:])) {
				return nil
			}
			return &untrusted{fingerprint(c), len(pin) > 0}
		},
	}
}
