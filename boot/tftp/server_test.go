package tftp_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	client "github.com/pin/tftp/v3"

	"bootd/boot"
	"bootd/boot/tftp"
)

var update = flag.Bool("update", false, "write golden files")

// dirFiles serves the files of a directory as loaders.
type dirFiles string

func (d dirFiles) Open(name string) (*os.File, error) {
	if !fs.ValidPath(name) {
		return nil, fs.ErrNotExist
	}
	return os.Open(filepath.Join(string(d), filepath.FromSlash(name)))
}

// A bench is a server on loopback, with what it did.
type bench struct {
	addr   netip.AddrPort
	events chan boot.Event
	log    *lines
	stop   func() // ends the server and waits for it
}

// lines keeps what was logged above Debug.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func start(t testing.TB, loaders, overlay string) *bench {
	t.Helper()
	return startWith(t, loaders, overlay, nil)
}

func startWith(t testing.TB, loaders, overlay string, others tftp.Asker) *bench {
	t.Helper()
	b := &bench{events: make(chan boot.Event, 100), log: &lines{}}
	s, err := tftp.Listen(netip.MustParseAddrPort("127.0.0.1:0"), tftp.Config{
		Loaders: dirFiles(loaders), Overlay: overlay, Others: others,
		BaseURL: func(a netip.Addr) string { return "http://" + a.String() },
		Record:  func(e boot.Event) { b.events <- e },
		Log:     slog.New(slog.NewTextHandler(b.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	b.addr = s.Addr()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(b.stop)
	return b
}

// get fetches a file as a client that asks for large blocks and the size.
func (b *bench) get(t testing.TB, name string) (string, error) {
	t.Helper()
	c, err := client.NewClient(b.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	c.SetBlockSize(1468)
	c.RequestTSize(true)
	r, err := c.Receive(name, "octet")
	if err != nil {
		return "", err
	}
	var buf bytes.Buffer
	if _, err := r.WriteTo(&buf); err != nil {
		return "", err
	}
	if size, ok := r.(client.IncomingTransfer).Size(); ok && size != int64(buf.Len()) {
		t.Errorf("%q was announced with %d bytes and has %d", name, size, buf.Len())
	}
	return buf.String(), nil
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestWhatIsThere fetches by every spelling that firmware uses, and by every
// trick that leads out of the served directories.
func TestWhatIsThere(t *testing.T) {
	dir := t.TempDir()
	loaders, overlay := filepath.Join(dir, "loaders"), filepath.Join(dir, "tftpboot")
	write(t, filepath.Join(dir, "secret"), "secret")
	write(t, filepath.Join(loaders, "undionly.kpxe"), "undionly")
	write(t, filepath.Join(loaders, "ipxe.efi"), "ipxe")
	write(t, filepath.Join(loaders, "arm64/snponly.efi"), "arm")
	write(t, filepath.Join(overlay, "ipxe.efi"), "the operator's ipxe")
	write(t, filepath.Join(overlay, "pxelinux.cfg/default"), "menu")
	write(t, filepath.Join(overlay, "custom/autoexec.ipxe"), "the operator's autoexec")
	for link, target := range map[string]string{
		"inside": "pxelinux.cfg", "dir": "..", "file": "../secret", "absolute": filepath.Join(dir, "secret"),
		"hops": "dir/secret", "loop": "loop", "dangling": "nothing",
	} {
		if err := os.Symlink(target, filepath.Join(overlay, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(overlay, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	b := start(t, loaders, overlay)

	const none = ""
	for name, want := range map[string]string{
		"undionly.kpxe":        "undionly",
		"/undionly.kpxe":       "undionly",
		"//undionly.kpxe":      "undionly",
		`\undionly.kpxe`:       "undionly",
		"./undionly.kpxe":      "undionly",
		"undionly.kpxe\xff":    "undionly",
		"arm64/snponly.efi":    "arm",
		`arm64\snponly.efi`:    "arm",
		`\\arm64\\snponly.efi`: "arm",

		"ipxe.efi":                  "the operator's ipxe", // the overlay wins
		"pxelinux.cfg/default":      "menu",
		`pxelinux.cfg\default`:      "menu",
		"a/../pxelinux.cfg/default": "menu",
		"inside/default":            "menu",
		"custom/autoexec.ipxe":      "the operator's autoexec",

		"../secret":                  none,
		"/../secret":                 none,
		`..\secret`:                  none,
		"a/../../secret":             none,
		"....//secret":               none,
		"%2e%2e/secret":              none,
		"..%2fsecret":                none,
		"dir/secret":                 none,
		"file":                       none,
		"absolute":                   none,
		"hops":                       none,
		"loop":                       none,
		"dangling":                   none,
		"fifo":                       none,
		"pxelinux.cfg":               none, // a directory
		"ipxe.efi/x":                 none,
		"undionly.kpxe/":             "undionly",
		filepath.Join(dir, "secret"): none,
		"secret":                     none,
		"/etc/passwd":                none,
		"../../../../etc/passwd":     none,
		"/proc/self/environ":         none,
		"..":                         none,
		"/":                          none,
		" undionly.kpxe":             none,
		"und\nionly.kpxe":            none,
		strings.Repeat("../", 100) + "etc/passwd": none,
		strings.Repeat("x", 300):                  none,
		strings.Repeat("a/", 200):                 none,
		"UNDIONLY.KPXE":                           none,
	} {
		got, err := b.get(t, name)
		switch {
		case want == none && err == nil:
			t.Errorf("%q gave %q", name, got)
		case want != none && (err != nil || got != want):
			t.Errorf("%q gave %q, %v; want %q", name, got, err, want)
		}
	}
}

func TestAutoexec(t *testing.T) {
	b := start(t, t.TempDir(), "")
	golden := filepath.Join("testdata", "autoexec.ipxe")
	for _, name := range []string{"autoexec.ipxe", "/autoexec.ipxe", "arm64/autoexec.ipxe", `a\b\autoexec.ipxe`} {
		got, err := b.get(t, name)
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			write(t, golden, got)
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), got); d != "" {
			t.Errorf("%s:\n%s", name, d)
		}
	}
	b.stop()
	if len(b.events) > 0 {
		t.Errorf("a made-up script counts as a loader: %v", <-b.events)
	}
}

// TestSizes is about the block that ends a transfer: a file of whole blocks is
// followed by an empty one.
func TestSizes(t *testing.T) {
	dir := t.TempDir()
	b := start(t, dir, "")
	for _, n := range []int{0, 1, 511, 512, 513, 1467, 1468, 1469, 14680, 1 << 20} {
		want := strings.Repeat("x", n)
		name := fmt.Sprintf("f%d", n)
		write(t, filepath.Join(dir, name), want)
		got, err := b.get(t, name)
		if err != nil || got != want {
			t.Errorf("%d bytes: got %d, %v", n, len(got), err)
		}
		e := <-b.events
		if e.Took <= 0 || e.Time.IsZero() {
			t.Errorf("the event has no time: %+v", e)
		}
		wantEvent := boot.Event{
			Stage: boot.Loader, Client: boot.Firmware, Addr: netip.MustParseAddr("127.0.0.1"),
			Text: name + " by TFTP", Bytes: int64(n),
		}
		if d := cmp.Diff(wantEvent, e, cmpopts.IgnoreFields(boot.Event{}, "Time", "Took"), cmpopts.EquateComparable(netip.Addr{})); d != "" {
			t.Error(d)
		}
	}
}

// TestSizeProbe does what EDK2 does before it fetches: it asks for the size and
// breaks off with error 8.
func TestSizeProbe(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "snponly.efi"), strings.Repeat("x", 5000))
	b := start(t, dir, "")
	conn := dial(t)
	send(t, conn, b.addr, "\x00\x01snponly.efi\x00octet\x00tsize\x000\x00blksize\x001468\x00windowsize\x004\x00")
	got, from := receive(t, conn)
	options := map[string]string{}
	f := strings.Split(strings.TrimSuffix(got[2:], "\x00"), "\x00")
	for i := 0; i+1 < len(f); i += 2 {
		options[f[i]] = f[i+1]
	}
	if d := cmp.Diff(map[string]string{"tsize": "5000", "blksize": "1468", "windowsize": "4"}, options); got[:2] != "\x00\x06" || d != "" {
		t.Fatalf("answered %q: %s", got, d)
	}
	send(t, conn, from, "\x00\x05\x00\x08User aborted the transfer\x00")
	if text, err := b.get(t, "snponly.efi"); err != nil || len(text) != 5000 {
		t.Errorf("after the probe: %d bytes, %v", len(text), err)
	}
	<-b.events
	b.stop()
	if n := len(b.events); n != 0 {
		t.Errorf("%d events more than for the transfer", n)
	}
	if got := b.log.String(); got != "" {
		t.Errorf("logged above Debug: %s", got)
	}
}

func TestRefusals(t *testing.T) {
	b := start(t, t.TempDir(), "")
	conn := dial(t)
	// A packet that is to be ignored, then one that is answered: the answer is
	// to the second.
	for _, ignored := range []string{"", "\x00", "\x00\x01", "\x00\x03\x00\x01data", "\x00\x01" + strings.Repeat("a", 600) + "\x00octet\x00"} {
		send(t, conn, b.addr, ignored)
		send(t, conn, b.addr, "\x00\x02file\x00octet\x00")
		if got, _ := receive(t, conn); got != "\x00\x05\x00\x02this server is read-only\x00" {
			t.Errorf("after %.20q: answered %q", ignored, got)
		}
	}
	send(t, conn, b.addr, "\x00\x01nothing\x00octet\x00")
	if got, _ := receive(t, conn); got != "\x00\x05\x00\x01file not found: nothing\x00" {
		t.Errorf("a missing file is answered with %q", got)
	}
}

func TestListenTellsWhatIsWrong(t *testing.T) {
	c := tftp.Config{Loaders: dirFiles(t.TempDir()), Log: slog.New(slog.DiscardHandler)}
	b := start(t, t.TempDir(), "")
	if _, err := tftp.Listen(b.addr, c); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a port in use: %v", err)
	}
	c.Overlay = filepath.Join(t.TempDir(), "nothing")
	if _, err := tftp.Listen(netip.MustParseAddrPort("127.0.0.1:0"), c); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), c.Overlay) {
		t.Errorf("a missing overlay: %v", err)
	}
}

func TestStopBeforeAndAfterStart(t *testing.T) {
	s, err := tftp.Listen(netip.MustParseAddrPort("127.0.0.1:0"), tftp.Config{Loaders: dirFiles(t.TempDir()), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Errorf("Run: %v", err)
	}
	if _, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(s.Addr())); err != nil {
		t.Errorf("the port is still bound: %v", err)
	}
}

// TestClients has other implementations fetch.
func TestClients(t *testing.T) {
	dir := t.TempDir()
	want := strings.Repeat("0123456789", 20000)
	write(t, filepath.Join(dir, "ipxe.efi"), want)
	b := start(t, dir, "")
	host, port := b.addr.Addr().String(), fmt.Sprint(b.addr.Port())
	for _, c := range []struct {
		program string
		args    []string
	}{
		{"curl", []string{"-sS", "--max-time", "20", "-o", "OUT", "tftp://" + b.addr.String() + "/ipxe.efi"}},
		{"curl", []string{"--tftp-blksize", "1468", "-sS", "--max-time", "20", "-o", "OUT", "tftp://" + b.addr.String() + "/ipxe.efi"}},
		{"curl", []string{"--tftp-blksize", "8192", "-sS", "--max-time", "20", "-o", "OUT", "tftp://" + b.addr.String() + "/ipxe.efi"}},
		{"curl", []string{"--tftp-no-options", "-sS", "--max-time", "20", "-o", "OUT", "tftp://" + b.addr.String() + "/ipxe.efi"}},
		{"busybox", []string{"tftp", "-g", "-r", "ipxe.efi", "-l", "OUT", host, port}},
		{"busybox", []string{"tftp", "-g", "-b", "1468", "-r", "ipxe.efi", "-l", "OUT", host, port}},
		{"atftp", []string{"--get", "-r", "ipxe.efi", "-l", "OUT", host, port}},
		{"atftp", []string{"--get", "-r", "ipxe.efi", "-l", "OUT", "--option", "blksize 1468", "--option", "windowsize 8", host, port}},
		{"atftp", []string{"--get", "-r", "ipxe.efi", "-l", "OUT", "--option", "timeout 3", "--option", "tsize 0", host, port}},
		{"tftp", []string{"-m", "octet", host, port, "-c", "get", "ipxe.efi", "OUT"}},
	} {
		t.Run(strings.Join(append([]string{c.program}, c.args...), " "), func(t *testing.T) {
			program, err := exec.LookPath(c.program)
			if err != nil {
				t.Skipf("%s is not installed", c.program)
			}
			out := filepath.Join(t.TempDir(), "out")
			for i := range c.args {
				if c.args[i] == "OUT" {
					c.args[i] = out
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			said, err := exec.CommandContext(ctx, program, c.args...).CombinedOutput()
			got, _ := os.ReadFile(out)
			if err != nil || string(got) != want {
				t.Errorf("%d bytes, %v\n%s", len(got), err, said)
			}
		})
	}
}

func dial(t testing.TB) *net.UDPConn {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func send(t testing.TB, conn *net.UDPConn, to netip.AddrPort, packet string) {
	t.Helper()
	if _, err := conn.WriteToUDPAddrPort([]byte(packet), to); err != nil {
		t.Fatal(err)
	}
}

func receive(t testing.TB, conn *net.UDPConn) (string, netip.AddrPort) {
	t.Helper()
	var buf [2048]byte
	n, from, err := conn.ReadFromUDPAddrPort(buf[:])
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n]), from
}

func BenchmarkTransfer(b *testing.B) {
	dir := b.TempDir()
	write(b, filepath.Join(dir, "ipxe.efi"), strings.Repeat("x", 1<<20))
	s := start(b, dir, "")
	go func() {
		for range s.events {
		}
	}()
	b.SetBytes(1 << 20)
	for b.Loop() {
		if _, err := s.get(b, "ipxe.efi"); err != nil {
			b.Fatal(err)
		}
	}
}
