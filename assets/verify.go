package assets

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// fedoraKeys are the places where Fedora, and others for its sake, install
// Fedora's package keys, which also sign Fedora CoreOS. Keys of other vendors lie
// beside them, so the name decides.
var fedoraKeys = []string{
	"/etc/pki/rpm-gpg/RPM-GPG-KEY-fedora*",
	"/usr/share/distribution-gpg-keys/fedora/RPM-GPG-KEY-fedora*",
}

// errUnknownKey is wrapped when a signature was made by a key that nobody put in
// a place where keys are looked for.
var errUnknownKey = errors.New("no key file has that key")

// A mismatch is a file that is not what was promised or signed.
type mismatch struct{ error }

func (m mismatch) Unwrap() error { return m.error }

// A publicKey is one key and the file it was in.
type publicKey struct {
	entity *openpgp.Entity
	file   string
}

// A keyring holds the keys that may sign.
type keyring struct {
	keys   []publicKey
	broken []string // files that could not be read, and why
	help   string   // where to put a key that is missing, and where to get it
}

// loadKeys reads the key files in the store's key directories and those that
// the patterns match.
func (s *Store) loadKeys(patterns []string, help string) keyring {
	k := keyring{help: help}
	if len(s.KeyDirs) > 0 {
		k.help = strings.TrimSuffix("put its public key, as a file named *.asc, into "+s.KeyDirs[0]+"; "+help, "; ")
	}
	for _, dir := range s.KeyDirs {
		for _, ext := range []string{"*.asc", "*.gpg", "*.pub"} {
			k.add(filepath.Join(globEscape(dir), ext))
		}
	}
	for _, p := range patterns {
		k.add(p)
	}
	return k
}

func globEscape(s string) string {
	return regexp.MustCompile(`[*?\[\\]`).ReplaceAllString(s, `\$0`)
}

// add reads the key files that match pattern. The same file by several names,
// as Fedora has for each processor, is read once.
func (k *keyring) add(pattern string) {
	paths, err := filepath.Glob(pattern)
	if err != nil {
		k.broken = append(k.broken, err.Error())
		return
	}
	var seen []string
	for _, path := range paths {
		real, err := filepath.EvalSymlinks(path)
		if err == nil && slices.Contains(seen, real) {
			continue
		}
		seen = append(seen, real)
		list, err := readKeys(path)
		if err != nil {
			k.broken = append(k.broken, path+": "+err.Error())
			continue
		}
		for _, e := range list {
			k.keys = append(k.keys, publicKey{e, path})
		}
	}
}

func readKeys(path string) (openpgp.EntityList, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if bytes.Contains(text, []byte("-----BEGIN PGP")) {
		return openpgp.ReadArmoredKeyRing(bytes.NewReader(text))
	}
	return openpgp.ReadKeyRing(bytes.NewReader(text))
}

// A signature is a detached OpenPGP signature, in binary.
type signature struct {
	data    []byte
	issuers []uint64 // of each signature packet
}

// parseSignature reads a detached signature, armored or not.
func parseSignature(data []byte) (signature, error) {
	var sig signature
	if bytes.Contains(data, []byte("-----BEGIN PGP")) {
		block, err := armor.Decode(bytes.NewReader(data))
		if err != nil {
			return sig, fmt.Errorf("it is not an OpenPGP signature: %w", err)
		}
		if data, err = io.ReadAll(block.Body); err != nil {
			return sig, fmt.Errorf("it is not an OpenPGP signature: %w", err)
		}
	}
	sig.data = data
	for r := packet.NewReader(bytes.NewReader(data)); ; {
		p, err := r.Next()
		if err == io.EOF {
			break
		}
		s, ok := p.(*packet.Signature)
		if err != nil || !ok || s.IssuerKeyId == nil {
			return sig, fmt.Errorf("it is not an OpenPGP signature that names its key (%v)", err)
		}
		sig.issuers = append(sig.issuers, *s.IssuerKeyId)
	}
	if len(sig.issuers) == 0 {
		return sig, errors.New("it is empty")
	}
	return sig, nil
}

// find returns the keys that may have made sig and are valid at now. It is asked
// before a file is fetched, so that a missing key costs nothing.
func (k keyring) find(sig signature, now time.Time) (openpgp.EntityList, error) {
	var valid openpgp.EntityList
	var expired []string
	for _, id := range sig.issuers {
		for _, key := range k.keys {
			for _, pk := range (openpgp.EntityList{key.entity}).KeysByIdUsage(id, packet.KeyFlagSign) {
				if expiredAt(pk, now) {
					expired = append(expired, key.file)
				} else {
					valid = append(valid, key.entity)
				}
			}
		}
	}
	ids := make([]string, len(sig.issuers))
	for i, id := range sig.issuers {
		ids[i] = keyID(id)
	}
	by := strings.Join(ids, ", ")
	switch {
	case len(valid) > 0:
		return valid, nil
	case len(expired) > 0:
		return nil, fmt.Errorf("signed by key %s, which has expired; replace %s by a newer copy of the key", by, strings.Join(expired, ", "))
	case len(k.broken) > 0:
		return nil, fmt.Errorf("signed by key %s, and %w; %s (not readable: %s)", by, errUnknownKey, k.help, strings.Join(k.broken, "; "))
	}
	return nil, fmt.Errorf("signed by key %s, and %w; %s", by, errUnknownKey, k.help)
}

// expiredAt reports whether a key, or the primary key above it, is expired.
func expiredAt(k openpgp.Key, now time.Time) bool {
	primary, _ := k.Entity.PrimarySelfSignature()
	return primary == nil || k.Entity.PrimaryKey.KeyExpired(primary, now) || k.PublicKey.KeyExpired(k.SelfSignature, now)
}

func keyID(id uint64) string { return fmt.Sprintf("%016X", id) }

// A proof says how a file was found to be good.
type proof struct {
	digest string // SHA-256
	size   int64
	keyID  string // empty: no signature was checked
	signer string
}

// promises is what is known of a file before it is here.
type promises struct {
	sha256 string             // empty: not known
	sha512 string             // empty: not known
	sig    *signature         // nil: none
	keys   openpgp.EntityList // that may have made sig
}

// check reads the file at path once and compares it with all that was promised.
func check(path string, want promises) (proof, error) {
	f, err := os.Open(path)
	if err != nil {
		return proof{}, err
	}
	defer f.Close()
	h256 := sha256.New()
	var h512 hash.Hash
	r := io.TeeReader(f, h256)
	if want.sha512 != "" {
		h512 = sha512.New()
		r = io.TeeReader(r, h512)
	}
	var p proof
	var sigErr error
	if want.sig != nil {
		p.keyID, p.signer, sigErr = checkSignature(r, *want.sig, want.keys)
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return p, fmt.Errorf("cannot read %s: %w", path, err)
	}
	st, err := f.Stat()
	if err != nil {
		return p, err
	}
	p.size = st.Size()
	p.digest = hex.EncodeToString(h256.Sum(nil))
	if want.sha256 != "" && p.digest != want.sha256 {
		return p, mismatch{fmt.Errorf("its SHA-256 digest is %s, and should be %s", p.digest, want.sha256)}
	}
	if h512 != nil && hex.EncodeToString(h512.Sum(nil)) != want.sha512 {
		return p, mismatch{errors.New("its SHA-512 digest is not the one that the server lists")}
	}
	return p, sigErr
}

// checkSignature checks what r holds.
func checkSignature(r io.Reader, sig signature, keys openpgp.EntityList) (id, signer string, err error) {
	made, entity, err := openpgp.VerifyDetachedSignature(keys, r, bytes.NewReader(sig.data), nil)
	switch {
	case err == nil:
	case errors.Is(err, pgperrors.ErrKeyExpired), errors.Is(err, pgperrors.ErrKeyRevoked), errors.Is(err, pgperrors.ErrSignatureExpired):
		return "", "", fmt.Errorf("its signature no longer counts: %w", err)
	default:
		return "", "", mismatch{fmt.Errorf("its signature is not good: %w", err)}
	}
	if ident := entity.PrimaryIdentity(); ident != nil {
		signer = ident.Name
	}
	return keyID(*made.IssuerKeyId), signer, nil
}

// sha512In finds the SHA-512 sum of a file in a list as Flatcar's .DIGESTS:
// digests and names, with comments that tell the kind. It is empty when there is
// none.
func sha512In(list []byte, name string) string {
	for line := range bytes.Lines(list) {
		f := strings.Fields(string(line))
		if len(f) != 2 || filepath.Base(strings.TrimPrefix(f[1], "*")) != name {
			continue
		}
		if b, err := hex.DecodeString(f[0]); err == nil && len(b) == sha512.Size {
			return strings.ToLower(f[0])
		}
	}
	return ""
}

// localSignature reads the signature beside a local file. It returns nil when
// its key is not known: what the operator imports needs none.
func localSignature(path string, ring keyring) (*signature, openpgp.EntityList, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	sig, err := parseSignature(data)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot use %s: %w", path, err)
	}
	keys, err := ring.find(sig, time.Now())
	if errors.Is(err, errUnknownKey) {
		return nil, nil, nil
	}
	return &sig, keys, err
}
