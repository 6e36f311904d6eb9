package swarm

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// remoteSocket is where an engine listens unless ssh://user@host/path says
// otherwise.
const remoteSocket = "/var/run/docker.sock"

// A tunnel is the way to an engine through an SSH server. All connections to the
// engine share one to the server, which is made when there is need for it and
// ends with the last of them.
type tunnel struct {
	addr, user, socket string
	ssh                SSH
	turn               chan struct{} // holds one; taken while a link is made

	mu   sync.Mutex
	link *link
}

func newTunnel(u *url.URL, s SSH) *tunnel {
	return &tunnel{
		addr:   net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "22")),
		user:   u.User.Username(),
		socket: cmp.Or(strings.TrimSuffix(u.Path, "/"), remoteSocket),
		ssh:    s,
		turn:   make(chan struct{}, 1),
	}
}

// dial connects to the engine.
func (t *tunnel) dial(ctx context.Context) (net.Conn, error) {
	l, err := t.take(ctx)
	if err != nil {
		return nil, err
	}
	c, err := l.open(t)
	if err != nil {
		l.release()
		return nil, err
	}
	return c, nil
}

// take returns a link that is released by the caller.
func (t *tunnel) take(ctx context.Context) (*link, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	}
	t.mu.Lock()
	l := t.link
	t.mu.Unlock()
	if l != nil && l.hold() {
		return l, nil
	}
	client, err := t.connect(ctx)
	if err != nil {
		return nil, err
	}
	l = &link{client: client, users: 1}
	go l.keepAlive()
	t.mu.Lock()
	t.link = l
	t.mu.Unlock()
	return l, nil
}

// A link is a connection to an SSH server.
type link struct {
	client *ssh.Client

	mu      sync.Mutex
	users   int
	over    bool
	command bool // sockets are not forwarded here, but the command works
}

// hold adds a user, unless the link has ended.
func (l *link) hold() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return false
	}
	l.users++
	return true
}

func (l *link) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.users--; l.users == 0 {
		l.over = true
		_ = l.client.Close()
	}
}

// end closes the link under all its users.
func (l *link) end() {
	l.mu.Lock()
	l.over = true
	l.mu.Unlock()
	_ = l.client.Close()
}

// keepAlive ends the link when the server does not answer any more, and returns
// when the link has ended.
func (l *link) keepAlive() {
	gone := make(chan struct{})
	go func() {
		_ = l.client.Wait()
		l.end()
		close(gone)
	}()
	for {
		select {
		case <-gone:
			return
		case <-time.After(alive):
		}
		late := time.AfterFunc(alive, l.end)
		_, _, err := l.client.SendRequest("keepalive@openssh.com", true, nil)
		late.Stop()
		if err != nil {
			l.end()
		}
	}
}

// open opens a channel to the engine. Forwarding its socket needs nothing but
// the SSH server. Servers that do not forward sockets, by their configuration
// or because they cannot, run Docker's own command instead, which also says
// best what is wrong when neither works.
func (l *link) open(t *tunnel) (net.Conn, error) {
	late := time.AfterFunc(connecting, l.end) // what waits for an answer then ends
	defer late.Stop()
	l.mu.Lock()
	command := l.command
	l.mu.Unlock()
	var refused error
	if !command {
		c, err := l.client.Dial("unix", t.socket)
		if err == nil {
			return &tunnelled{Conn: c, link: l}, nil
		}
		var no *ssh.OpenChannelError
		if refused = err; !errors.As(err, &no) {
			return nil, noAccess("the SSH server at %s has hung up: %s", t.addr, printable(cause(err), 200))
		}
	}
	c, err := l.run(t, refused)
	if err != nil {
		return nil, noAccess("the SSH server at %s neither forwards %s (%s) nor runs a command (%s)",
			t.addr, t.socket, reason(refused), reason(err))
	}
	return c, nil
}

func reason(err error) string {
	if err == nil {
		return "not tried"
	}
	return printable(strings.TrimPrefix(err.Error(), "ssh: "), 200)
}

// run starts Docker's command there that connects its input and output to the
// engine.
func (l *link) run(t *tunnel, refused error) (net.Conn, error) {
	session, err := l.client.NewSession()
	if err != nil {
		return nil, err
	}
	c := &commanded{session: session, link: l, tunnel: t, refused: refused}
	session.Stderr = &c.said
	if c.in, err = session.StdinPipe(); err == nil {
		c.out, err = session.StdoutPipe()
	}
	if err == nil {
		command := "docker system dial-stdio"
		if t.socket != remoteSocket {
			command = "docker --host " + quote("unix://"+t.socket) + " system dial-stdio"
		}
		err = session.Start(command)
	}
	if err != nil {
		_ = session.Close()
		return nil, err
	}
	return c, nil
}

// quote makes one word for the shell of it.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// tunnelled is a forwarded connection.
type tunnelled struct {
	net.Conn
	link *link
	once sync.Once
}

func (c *tunnelled) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.link.release)
	return err
}

// commanded is a connection through a command.
type commanded struct {
	session *ssh.Session
	in      io.WriteCloser
	out     io.Reader
	link    *link
	tunnel  *tunnel
	refused error
	heard   atomic.Bool // something has come
	said    words
	closing sync.Once
	ending  sync.Once
	why     error // of the end, when nothing was heard
}

// Read implements [net.Conn]. If the command ends before anything came from the
// engine, what it said is the error.
func (c *commanded) Read(p []byte) (int, error) {
	n, err := c.out.Read(p)
	if n > 0 && c.heard.CompareAndSwap(false, true) {
		c.link.mu.Lock()
		c.link.command = true
		c.link.mu.Unlock()
	}
	if err == nil || c.heard.Load() {
		return n, err
	}
	return 0, c.end()
}

// end says why the command has ended.
func (c *commanded) end() error {
	c.ending.Do(func() {
		late := time.AfterFunc(time.Second, func() { _ = c.session.Close() })
		defer late.Stop()
		_ = c.session.Wait() // how it ended is told by what it said
		c.why = c.tunnel.explainCommand(c.said.String(), c.refused)
	})
	return c.why
}

func (c *commanded) Write(p []byte) (int, error) {
	n, err := c.in.Write(p)
	if err != nil && !c.heard.Load() {
		err = c.end()
	}
	return n, err
}

func (c *commanded) Close() error {
	err := c.session.Close()
	c.closing.Do(c.link.release)
	if errors.Is(err, io.EOF) {
		return nil // the command had ended
	}
	return err
}

func (c *commanded) LocalAddr() net.Addr              { return c.link.client.LocalAddr() }
func (c *commanded) RemoteAddr() net.Addr             { return c.link.client.RemoteAddr() }
func (c *commanded) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (c *commanded) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (c *commanded) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }

// words keeps the beginning of what is written to it.
type words struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf.Write(p[:min(len(p), max(0, 4096-w.buf.Len()))])
	return len(p), nil
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

// explainCommand says what helps when the command gave no connection.
func (t *tunnel) explainCommand(said string, refused error) error {
	host, _, _ := net.SplitHostPort(t.addr)
	says := func(s string) bool { return strings.Contains(strings.ToLower(said), s) }
	said = printable(said, 300)
	switch {
	case says("permission denied"):
		return noAccess("%s may not open %s on %s: add the user to the group that owns the socket there (usermod -aG docker %s)", t.user, t.socket, host, t.user)
	case says("cannot connect to the docker daemon"), says("no such file") && says(".sock"), says("connection refused"):
		return noAccess("no Docker engine at %s on %s: start it there (systemctl start docker)", t.socket, host)
	case says("not found"), says("no such file"), says("not recognized"):
		return noAccess("the SSH server at %s does not forward %s (%s), and has no docker command: is the engine installed and running there? "+
			"if so, allow it to forward (AllowStreamLocalForwarding yes in sshd_config)", t.addr, t.socket, reason(refused))
	}
	return noAccess("docker system dial-stdio on %s ended without a connection to the engine: %s", host, cmp.Or(said, "it said nothing"))
}

// connect logs in.
func (t *tunnel) connect(ctx context.Context) (*ssh.Client, error) {
	signers, done, err := t.signers(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	trust := &trust{addr: t.addr, file: t.ssh.KnownHosts}
	config := &ssh.ClientConfig{
		User: t.user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signers...)},
		HostKeyCallback: trust.check, ClientVersion: "SSH-2.0-bootd",
	}
	if config.HostKeyAlgorithms, err = trust.algorithms(); err != nil {
		return nil, err
	}
	conn, err := dialTCP(ctx, t.addr)
	if err != nil {
		return nil, err
	}
	// The handshake heeds no context.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := conn.SetDeadline(time.Now().Add(connecting)); err != nil {
		_ = conn.Close()
		return nil, noAccess("cannot connect to %s: %s", t.addr, err)
	}
	c, channels, requests, err := ssh.NewClientConn(conn, t.addr, config)
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		_ = conn.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, t.explain(err, trust, signers)
	}
	return ssh.NewClient(c, channels, requests), nil
}

// explain says what helps when there is no login.
func (t *tunnel) explain(err error, trust *trust, signers []ssh.Signer) error {
	var timeout net.Error
	switch text := err.Error(); {
	case trust.err != nil:
		return trust.err
	case strings.Contains(text, "unable to authenticate"):
		const most = 3
		var keys []string
		for _, s := range signers[:min(most, len(signers))] {
			keys = append(keys, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.PublicKey()))))
		}
		from := "any of the agent's keys"
		if t.ssh.Key != "" {
			from = "the key " + t.ssh.Key
		}
		return noAccess("the SSH server at %s does not let %s in with %s: add this line to the user's ~/.ssh/authorized_keys there: %s",
			t.addr, t.user, from, strings.Join(keys, " or "))
	case errors.As(err, &timeout) && timeout.Timeout():
		return noAccess("%s does not answer as an SSH server: is this its port?", t.addr)
	case errors.Is(err, io.EOF), strings.Contains(text, "EOF"):
		return noAccess("%s hangs up at once: is this the port of an SSH server, and does it let this machine in?", t.addr)
	default:
		return noAccess("cannot log in at %s: %s", t.addr, printable(strings.TrimPrefix(text, "ssh: handshake failed: "), 300))
	}
}

// signers returns the keys to log in with; done is called when they have been
// used.
func (t *tunnel) signers(ctx context.Context) (list []ssh.Signer, done func(), err error) {
	if t.ssh.Key != "" {
		b, err := readSecret(t.ssh.Key)
		if err != nil {
			return nil, nil, err
		}
		s, err := ssh.ParsePrivateKey(b)
		var locked *ssh.PassphraseMissingError
		switch {
		case errors.As(err, &locked):
			return nil, nil, noAccess("the key %s needs a passphrase, which nobody is there to type: make one without (ssh-keygen -N ''), or let an agent hold it", t.ssh.Key)
		case err != nil:
			return nil, nil, noAccess("%s is not a private SSH key: %s", t.ssh.Key, err)
		}
		return []ssh.Signer{s}, func() {}, nil
	}
	if t.ssh.Agent == "" {
		return nil, nil, noAccess("there is no key to log in at %s with: set ssh.key, or start bootd with an agent (SSH_AUTH_SOCK)", t.addr)
	}
	c, err := new(net.Dialer).DialContext(ctx, "unix", t.ssh.Agent)
	if err != nil {
		return nil, nil, noAccess("no SSH agent at %s: %s", t.ssh.Agent, cause(err))
	}
	if err = c.SetDeadline(time.Now().Add(connecting)); err == nil {
		list, err = agent.NewClient(c).Signers()
	}
	if err != nil || len(list) == 0 {
		_ = c.Close()
		return nil, nil, noAccess("the SSH agent at %s has no keys: add one (ssh-add)", t.ssh.Agent)
	}
	return list, func() { _ = c.Close() }, nil
}
