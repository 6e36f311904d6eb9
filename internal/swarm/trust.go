package swarm

import (
	"cmp"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// trust decides whether a server is the right one.
type trust struct {
	addr, file string
	err        error // why it is not
}

// known reads the file. One that is not there knows nobody.
func (t *trust) known() (ssh.HostKeyCallback, error) {
	files := []string{t.file}
	if _, err := os.Stat(t.file); t.file == "" || errors.Is(err, fs.ErrNotExist) {
		files = nil
	}
	f, err := knownhosts.New(files...)
	if err != nil {
		return nil, noAccess("cannot read the keys of SSH servers: %s", printable(err.Error(), 300))
	}
	return f, nil
}

// check implements [ssh.HostKeyCallback].
func (t *trust) check(host string, remote net.Addr, key ssh.PublicKey) error {
	known, err := t.known()
	if err != nil {
		t.err = err
		return err
	}
	err = known(host, remote, key)
	var unknown *knownhosts.KeyError
	var revoked *knownhosts.RevokedError
	file := cmp.Or(t.file, "a file, and name it as ssh.known_hosts")
	line := knownhosts.Line([]string{host}, key)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &unknown) && len(unknown.Want) == 0:
		err = noAccess("the SSH server at %s is not known: if its key's fingerprint is %s (ssh-keygen -l -f /etc/ssh/ssh_host_*_key.pub there), add this line to %s: %s",
			t.addr, ssh.FingerprintSHA256(key), file, line)
	case errors.As(err, &unknown):
		w := unknown.Want[0]
		err = noAccess("the SSH server at %s has another key than %s says in line %d: somebody may be between, or it was installed anew; "+
			"if its fingerprint is %s, replace that line by: %s", t.addr, w.Filename, w.Line, ssh.FingerprintSHA256(key), line)
	case errors.As(err, &revoked):
		err = noAccess("the key of the SSH server at %s is revoked in %s, line %d", t.addr, revoked.Revoked.Filename, revoked.Revoked.Line)
	default:
		err = noAccess("the SSH server at %s is not trusted: %s", t.addr, printable(err.Error(), 300))
	}
	t.err = err
	return err
}

// algorithms puts the kinds of keys that are known of the server first, so that
// it does not show another one of its keys.
func (t *trust) algorithms() ([]string, error) {
	known, err := t.known()
	if err != nil {
		return nil, err
	}
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cannot make a key: %w", err)
	}
	nobodys, err := ssh.NewPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("cannot make a key: %w", err)
	}
	var first []string
	var unknown *knownhosts.KeyError
	if errors.As(known(t.addr, &net.TCPAddr{IP: net.IPv4zero}, nobodys), &unknown) {
		for _, w := range unknown.Want {
			switch kind := w.Key.Type(); kind {
			case ssh.KeyAlgoRSA:
				first = append(first, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
			default:
				first = append(first, kind)
			}
		}
	}
	for _, a := range ssh.SupportedAlgorithms().HostKeys {
		if !slices.Contains(first, a) {
			first = append(first, a)
		}
	}
	return first, nil
}
