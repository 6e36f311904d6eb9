package power_test

import (
	"context"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"bootd/boot"
	"bootd/internal/power"
	"bootd/internal/power/powertest"
)

const secret = "Tr0ub4dor&3"

// passwordFile writes a password as an operator should.
func passwordFile(t *testing.T, password string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bmc.password")
	if err := os.WriteFile(path, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// redfish starts a BMC and returns the machine behind it, pinned.
func redfish(t *testing.T, b *powertest.BMC) power.Target {
	t.Helper()
	b.User, b.Password = "root", secret
	s := b.Start()
	t.Cleanup(s.Close)
	return power.Target{Machine: "node1", BMC: boot.BMC{Kind: boot.Redfish, Addr: s.URL, User: "root",
		PasswordFile: passwordFile(t, secret), Fingerprint: fingerprint(s)}}
}

func fingerprint(s *httptest.Server) string {
	return fmt.Sprintf("%x", sha256.Sum256(s.Certificate().Raw))
}

func quick() *power.Switches { return power.New(power.Config{Settle: 2 * time.Second}) }

func TestRedfishOrders(t *testing.T) {
	for _, tt := range []struct {
		name  string
		bmc   *powertest.BMC
		on    bool // before
		order power.Order
		want  power.Outcome
		seen  string // the reset
		after bool
	}{
		{name: "on", order: power.Order{Action: power.On},
			want: power.Outcome{Was: power.IsOff, Now: power.IsOn, Changed: true}, seen: "[1 On]", after: true},
		{name: "on, which it is", on: true, order: power.Order{Action: power.On},
			want: power.Outcome{Was: power.IsOn, Now: power.IsOn}, seen: "[]", after: true},
		{name: "off", on: true, order: power.Order{Action: power.Off},
			want: power.Outcome{Was: power.IsOn, Now: power.IsOff, Changed: true}, seen: "[1 ForceOff]"},
		{name: "off, which it is", order: power.Order{Action: power.Off},
			want: power.Outcome{Was: power.IsOff, Now: power.IsOff}, seen: "[]"},
		{name: "shutdown", on: true, order: power.Order{Action: power.Shutdown},
			want: power.Outcome{Was: power.IsOn, Now: power.IsOn, Changed: true}, seen: "[1 GracefulShutdown]"},
		{name: "cycle", on: true, order: power.Order{Action: power.Cycle},
			want: power.Outcome{Was: power.IsOn, Now: power.IsOn, Changed: true}, seen: "[1 ForceRestart]", after: true},
		{name: "a cycle that takes its time", bmc: &powertest.BMC{Delay: 500 * time.Millisecond}, on: true, order: power.Order{Action: power.Cycle},
			want: power.Outcome{Was: power.IsOn, Now: power.IsOn, Changed: true}, seen: "[1 ForceRestart]", after: true},
		{name: "cycle of what is off", order: power.Order{Action: power.Cycle},
			want: power.Outcome{Was: power.IsOff, Now: power.IsOn, Changed: true}, seen: "[1 On]", after: true},
		{name: "slow to start", bmc: &powertest.BMC{Delay: 300 * time.Millisecond}, order: power.Order{Action: power.On},
			want: power.Outcome{Was: power.IsOff, Now: power.IsOn, Changed: true}, seen: "[1 On]", after: true},
		{name: "only a button", bmc: &powertest.BMC{Resets: []string{"PushPowerButton", "ForceOff"}}, order: power.Order{Action: power.On},
			want: power.Outcome{Was: power.IsOff, Now: power.IsOn, Changed: true}, seen: "[1 PushPowerButton]", after: true},
		{name: "no restart, but a cycle", bmc: &powertest.BMC{Resets: []string{"On", "PowerCycle"}}, on: true, order: power.Order{Action: power.Cycle},
			want: power.Outcome{Was: power.IsOn, Now: power.IsOn, Changed: true}, seen: "[1 PowerCycle]", after: true},
		{name: "without sessions", bmc: &powertest.BMC{NoSessions: true}, order: power.Order{Action: power.On},
			want: power.Outcome{Was: power.IsOff, Now: power.IsOn, Changed: true}, seen: "[1 On]", after: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.bmc == nil {
				tt.bmc = &powertest.BMC{}
			}
			target := redfish(t, tt.bmc)
			tt.bmc.Set("1", tt.on)
			got, err := quick().Do(t.Context(), target, tt.order)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreFields(power.Outcome{}, "At")); diff != "" {
				t.Error(diff)
			}
			if seen := fmt.Sprint(tt.bmc.Seen()); seen != tt.seen {
				t.Errorf("the BMC was told %s, want %s", seen, tt.seen)
			}
			if tt.order.Action != power.Shutdown && tt.bmc.On("1") != tt.after {
				t.Errorf("the machine is on: %v", !tt.after)
			}
			if n := tt.bmc.Open(); n != 0 {
				t.Errorf("%d sessions were left open", n)
			}
		})
	}
}

func TestRedfishBoot(t *testing.T) {
	for _, tt := range []struct {
		order    power.Order
		firmware power.Firmware
		want     string
	}{
		{power.Order{Boot: power.PXE}, power.UnknownFirmware, "Once Pxe Legacy"},
		{power.Order{Boot: power.PXE}, power.UEFI, "Once Pxe UEFI"},
		{power.Order{Boot: power.Disk, Persistent: true}, power.LegacyBIOS, "Continuous Hdd Legacy"},
		{power.Order{Boot: power.BIOS}, power.UnknownFirmware, "Once BiosSetup Legacy"},
		{power.Order{Boot: power.HTTP}, power.UnknownFirmware, "Once UefiHttp UEFI"},
	} {
		b := &powertest.BMC{}
		target := redfish(t, b)
		target.Firmware = tt.firmware
		tt.order.Action = power.On
		if out, err := quick().Do(t.Context(), target, tt.order); err != nil || !out.Changed {
			t.Errorf("%+v: %+v, %v", tt.order, out, err)
		}
		if got := b.Boot("1"); got != tt.want || !b.On("1") {
			t.Errorf("%+v: %s, on: %v", tt.order, got, b.On("1"))
		}
	}
	b := &powertest.BMC{}
	target := redfish(t, b)
	b.Set("1", true)
	out, err := quick().Do(t.Context(), target, power.Order{Action: power.On, Boot: power.PXE})
	if err != nil || out.Changed || !strings.Contains(out.Text, "takes a cycle") {
		t.Errorf("a machine that is on: %+v, %v", out, err)
	}
}

// TestRedfishErrors: each error names the BMC, what failed and the remedy, and
// nothing shows the password.
func TestRedfishErrors(t *testing.T) {
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := gone.Addr().String()
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "<html>printer</html>")
	}))
	defer web.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	missing := httptest.NewTLSServer(http.NotFoundHandler())
	defer missing.Close()
	busy := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	defer busy.Close()
	open := filepath.Join(t.TempDir(), "open")
	if err := os.WriteFile(open, []byte(secret), 0o644); err != nil {
		t.Fatal(err)
	}
	on := power.Order{Action: power.On}
	for _, tt := range []struct {
		name   string
		bmc    *powertest.BMC
		change func(*power.Target)
		order  power.Order
		reason power.Reason
		want   string // ADDR and PRINT stand for the BMC's own
	}{
		{name: "wrong password", change: func(t *power.Target) { t.BMC.User = "admin" }, reason: power.Login,
			want: "cannot switch on node1: BMC ADDR (redfish) does not take user admin and its password (401); correct user and password file; too many wrong tries may have locked the user for some minutes"},
		{name: "unknown certificate", change: func(t *power.Target) { t.BMC.Fingerprint = "" }, reason: power.Certificate,
			want: "cannot switch on node1: BMC ADDR (redfish) has a certificate that is not trusted (certificate signed by unknown authority), with the fingerprint PRINT; compare it with what the BMC itself shows, then add fingerprint: PRINT to power; or ca_file, or insecure: true"},
		{name: "another certificate", change: func(t *power.Target) { t.BMC.Fingerprint = strings.Repeat("0", 64) }, reason: power.Certificate,
			want: "cannot switch on node1: BMC ADDR (redfish) has another certificate than the one that is pinned: PRINT; if it was renewed, put that into fingerprint; if not, somebody may be in between"},
		{name: "refused", change: func(t *power.Target) { t.BMC.Addr = "https://" + closed }, reason: power.Refused,
			want: "cannot switch on node1: BMC https://" + closed + " (redfish) refuses the connection; is the service switched on in the BMC, and is it at TCP port " + closed[strings.LastIndexByte(closed, ':')+1:] + "?"},
		{name: "no name", change: func(t *power.Target) { t.BMC.Addr = "https://bmc.invalid" }, reason: power.DNS,
			want: "cannot switch on node1: BMC https://bmc.invalid (redfish) is not found: "},
		{name: "a web page", change: func(t *power.Target) { t.BMC.Addr, t.BMC.Fingerprint = web.URL, fingerprint(web) }, reason: power.Other,
			want: "cannot switch on node1: BMC " + web.URL + " (redfish) does not answer as Redfish does: invalid character '<' looking for beginning of value; is the address that of the BMC's web server? its firmware may need an update"},
		{name: "no Redfish", change: func(t *power.Target) { t.BMC.Addr, t.BMC.Fingerprint = missing.URL, fingerprint(missing) }, reason: power.Unsupported,
			want: "cannot switch on node1: BMC " + missing.URL + " (redfish) has no such thing (404): 404 page not found; does it speak Redfish? otherwise use ipmi:"},
		{name: "busy", change: func(t *power.Target) { t.BMC.Addr, t.BMC.Fingerprint = busy.URL, fingerprint(busy) }, reason: power.NoAnswer,
			want: "cannot switch on node1: BMC " + busy.URL + " (redfish) is busy (503); try again in a minute; it may be starting, or have too many sessions"},
		{name: "no TLS", change: func(t *power.Target) { t.BMC.Addr = "https://" + plain.Listener.Addr().String() }, reason: power.Other,
			want: "cannot switch on node1: BMC https://" + plain.Listener.Addr().String() + " (redfish) answers without TLS; is the port right? http:// and insecure: true would send the password in the clear"},
		{name: "may only look", bmc: &powertest.BMC{ReadOnly: true}, reason: power.Denied,
			want: "cannot switch on node1: BMC ADDR (redfish) does not let user root do that (403): There are insufficient privileges for the account or credentials associated with the current session to perform the requested operation; give the user the role Operator or Administrator"},
		{name: "no such reset", bmc: &powertest.BMC{Resets: []string{"ForceOff", "Nmi"}}, reason: power.Unsupported,
			want: "cannot switch on node1: BMC ADDR (redfish) cannot do that: it only offers ForceOff, Nmi; its firmware may need an update"},
		{name: "no such boot device", bmc: &powertest.BMC{Targets: []string{"Pxe"}}, order: power.Order{Action: power.On, Boot: power.HTTP}, reason: power.Unsupported,
			want: "cannot switch on node1: BMC ADDR (redfish) refuses that (400): The value 'UefiHttp' for the property BootSourceOverrideTarget is not in the list of acceptable values"},
		{name: "deaf", bmc: &powertest.BMC{Deaf: true}, reason: power.Stuck,
			want: "cannot switch on node1: BMC ADDR (redfish) took the order, but shows the machine as off after 2s; its event log may say why: power supply, chassis, a fault; ask again with `bootd machine power status`"},
		{name: "a chassis", bmc: &powertest.BMC{Systems: []string{"b", "a"}}, reason: power.Setup,
			want: "cannot switch on node1: BMC ADDR (redfish) has 2 machines: a, b; add system: ID to power"},
		{name: "another machine", change: func(t *power.Target) { t.BMC.System = "7" }, reason: power.Setup,
			want: "cannot switch on node1: BMC ADDR (redfish) has no machine \"7\", only 1; correct system under power"},
		{name: "a password for everybody", change: func(t *power.Target) { t.BMC.PasswordFile = open }, reason: power.Setup,
			want: "cannot switch on node1: BMC ADDR (redfish) cannot be logged in to: password file " + open + " can be read or changed by others (mode 0644); chmod 600 " + open + ", or 640 with the group that bootd runs as"},
		{name: "no password", change: func(t *power.Target) { t.BMC.PasswordFile = "/nonexistent/p" }, reason: power.Setup,
			want: "cannot switch on node1: BMC ADDR (redfish) cannot be logged in to: cannot read the password file /nonexistent/p: no such file or directory; write the password into it, readable by bootd only"},
		{name: "no BMC", change: func(t *power.Target) { t.BMC = boot.BMC{} }, reason: power.NoBMC,
			want: "cannot switch on node1: it is not known how; press the button; or write power: {redfish: https://ADDRESS, user: NAME, password_file: FILE}, or ipmi: or wol:, into its entry, its profile or bootd.yaml"},
		{name: "WOL cannot switch off", change: func(t *power.Target) { t.BMC = boot.BMC{Kind: boot.WOL} }, order: power.Order{Action: power.Off}, reason: power.Unsupported,
			want: "cannot switch off node1: wake-on-LAN cannot do off, it can only switch on; press the button, shut it down on its console, or configure a BMC"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.bmc == nil {
				tt.bmc = &powertest.BMC{}
			}
			target := redfish(t, tt.bmc)
			addr, print := target.BMC.Addr, target.BMC.Fingerprint
			if tt.change != nil {
				tt.change(&target)
			}
			if tt.order == (power.Order{}) {
				tt.order = on
			}
			_, err := quick().Do(t.Context(), target, tt.order)
			var e *power.Error
			if !errors.As(err, &e) {
				t.Fatalf("not an Error: %v", err)
			}
			want := strings.ReplaceAll(tt.want, "BMC ADDR ", "BMC "+addr+" ")
			want = strings.ReplaceAll(want, "PRINT", print)
			if got := err.Error(); e.Reason != tt.reason || got != want && (tt.reason != power.DNS || !strings.HasPrefix(got, want)) {
				t.Errorf("%s\n got %s\nwant %s", e.Reason, got, want)
			}
			if strings.Contains(fmt.Sprintf("%+v %+v", err, errors.Unwrap(err)), secret) {
				t.Errorf("the password is shown: %+v", err)
			}
			if n := tt.bmc.Open(); n != 0 {
				t.Errorf("%d sessions were left open", n)
			}
		})
	}
}

// TestRedfishCertificates: a CA's signature holds for the host in the
// certificate only.
func TestRedfishCertificates(t *testing.T) {
	b := &powertest.BMC{}
	target := redfish(t, b)
	target.BMC.Fingerprint = ""
	s := (&powertest.BMC{User: "root", Password: secret}).Start() // the same certificate for all
	defer s.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	target.BMC.CAFile = ca
	if now, err := quick().Status(t.Context(), target); err != nil || now != power.IsOff {
		t.Errorf("signed by the CA: %s, %v", now, err)
	}
	other := target
	other.BMC.Addr = strings.Replace(target.BMC.Addr, "127.0.0.1", "127.0.0.2", 1)
	if l, err := net.Listen("tcp", strings.TrimPrefix(other.BMC.Addr, "https://")); err == nil {
		// The same server, by an address that its certificate does not name.
		defer l.Close()
		go relay(l, strings.TrimPrefix(target.BMC.Addr, "https://"))
		_, err := quick().Status(t.Context(), other)
		var e *power.Error
		if !errors.As(err, &e) || e.Reason != power.Certificate || !strings.Contains(e.Text, "127.0.0.2") {
			t.Errorf("for another host: %v", err)
		}
	}
	target.BMC.CAFile, target.BMC.Insecure = "", new(true)
	if _, err := quick().Status(t.Context(), target); err != nil {
		t.Error(err)
	}
}

// relay passes connections on.
func relay(l net.Listener, to string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		d, err := net.Dial("tcp", to)
		if err != nil {
			_ = c.Close()
			return
		}
		go func() { _, _ = d.(*net.TCPConn).ReadFrom(c); _ = d.Close() }()
		go func() { _, _ = c.(*net.TCPConn).ReadFrom(d); _ = c.Close() }()
	}
}

// TestSlowBMC: one that never answers is given up when the caller does, and does
// not hold others; orders for one BMC wait for each other.
func TestSlowBMC(t *testing.T) {
	asked := make(chan struct{}, 10)
	slow := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done()
	}))
	defer slow.Close()
	target := redfish(t, &powertest.BMC{})
	dead := target
	dead.BMC.Addr, dead.BMC.Fingerprint = slow.URL, fingerprint(slow)
	s := quick()
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	for range 3 {
		wait.Go(func() {
			if _, err := s.Status(ctx, dead); !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled: %v", err)
			}
		})
	}
	<-asked
	if now, err := s.Status(t.Context(), target); err != nil || now != power.IsOff {
		t.Errorf("another BMC: %s, %v", now, err)
	}
	cancel()
	wait.Wait()
	if len(asked) > 0 {
		t.Errorf("a BMC had %d orders at once", len(asked)+1)
	}

	_, err := power.New(power.Config{Timeout: 200 * time.Millisecond}).Status(t.Context(), dead)
	var e *power.Error
	if !errors.As(err, &e) || e.Reason != power.NoAnswer || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("out of time: %v", err)
	}
}

// TestRedirect: the password and the session go to no other host.
func TestRedirect(t *testing.T) {
	var leaked []string
	thief := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { leaked = append(leaked, r.URL.Path) }))
	defer thief.Close()
	liar := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, thief.URL+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	defer liar.Close()
	target := redfish(t, &powertest.BMC{})
	target.BMC.Addr, target.BMC.Fingerprint = liar.URL, fingerprint(liar)
	if _, err := quick().Status(t.Context(), target); err == nil || len(leaked) > 0 {
		t.Errorf("%v, %v", err, leaked)
	}
}
