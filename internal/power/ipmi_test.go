package power_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"bootd/boot"
	"bootd/internal/power"
)

// chassis is the machine behind OpenIPMI's BMC: a process that lives while the
// machine is on. What is ordered is noted.
const chassis = `#!/bin/sh
cd %s
on() { [ -s pid ] && kill -0 "$(cat pid)" 2>/dev/null; }
start() { sleep 600 </dev/null >/dev/null 2>&1 & echo $! >pid; }
stop() { on && kill "$(cat pid)"; rm -f pid; }
op=$1; shift
case $op in
check) exit 0 ;;
get)
	while [ $# -gt 0 ]; do
		case $1 in
		power) on && echo power:1 || echo power:0 ;;
		boot) echo "boot:$(cat boot 2>/dev/null || echo default)" ;;
		*) exit 1 ;;
		esac
		shift
	done ;;
*)
	while [ $# -gt 1 ]; do
		echo "$1 $2" >>orders
		case "$1 $2" in
		"power 1") on || start ;;
		"power 0") stop ;;
		"reset "*) stop; start ;;
		"shutdown "*) stop ;;
		"boot "*) echo "$2" >boot ;;
		esac
		shift 2
	done ;;
esac
exit 0
`

// A simulator is OpenIPMI's ipmi_sim, a whole BMC with IPMI over LAN.
type simulator struct{ dir, addr string }

// startBMC starts one with the user admin.
func startBMC(t *testing.T) simulator {
	t.Helper()
	for _, p := range []string{"ipmi_sim", "ipmitool"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed (apt install openipmi ipmitool)", p)
		}
	}
	free, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.LocalAddr().(*net.UDPAddr).Port
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"chassis": fmt.Sprintf(chassis, dir),
		"lan.conf": fmt.Sprintf(`name "node1"
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 %d
    priv_limit admin
    allowed_auths_callback md5
    allowed_auths_user md5
    allowed_auths_operator md5
    allowed_auths_admin md5
    guid a123456789abcdefa123456789abcdef
  endlan
  chassis_control "%s/chassis"
  user 1 false "" "" user 10 md5
  user 2 true "admin" "%s" admin 10 md5
`, port, dir, secret),
		"node1.emu": "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\nmc_enable 0x20\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.Command("ipmi_sim", "-n", "-c", dir+"/lan.conf", "-f", dir+"/node1.emu", "-s", dir+"/state")
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := os.Mkdir(dir+"/state", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) // with the machine, which is in its group
		_ = c.Wait()
	})
	return simulator{dir, fmt.Sprintf("127.0.0.1:%d", port)}
}

// target is the machine, after the BMC has come up.
func (s simulator) target(t *testing.T) power.Target {
	t.Helper()
	target := power.Target{Machine: "node1", BMC: boot.BMC{Kind: boot.IPMI, Addr: s.addr, User: "admin", PasswordFile: passwordFile(t, secret)}}
	deadline := time.Now().Add(20 * time.Second)
	for {
		_, err := quick().Status(t.Context(), target)
		if err == nil {
			return target
		}
		var e *power.Error
		if time.Now().After(deadline) || !errors.As(err, &e) || e.Reason != power.Refused && e.Reason != power.NoAnswer {
			t.Fatal(err)
		}
	}
}

// pid is the process of the machine; 0: it is off.
func (s simulator) pid() int {
	b, err := os.ReadFile(s.dir + "/pid")
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	if n > 0 && syscall.Kill(n, 0) != nil {
		return 0
	}
	return n
}

func (s simulator) read(name string) string {
	b, _ := os.ReadFile(filepath.Join(s.dir, name))
	return strings.TrimSpace(string(b))
}

// TestIPMI switches a process through OpenIPMI's BMC.
func TestIPMI(t *testing.T) {
	bmc := startBMC(t)
	target := bmc.target(t)
	before := 0
	for _, tt := range []struct {
		name    string
		order   power.Order
		want    power.Outcome
		on, new bool // afterwards; whether it is another process than before
		boot    string
	}{
		{name: "on", order: power.Order{Action: power.On}, want: power.Outcome{Was: power.IsOff, Now: power.IsOn, Changed: true}, on: true, new: true},
		{name: "on again", order: power.Order{Action: power.On}, want: power.Outcome{Was: power.IsOn, Now: power.IsOn}, on: true},
		{name: "cycle from the network", order: power.Order{Action: power.Cycle, Boot: power.PXE},
			want: power.Outcome{Was: power.IsOn, Now: power.IsOn, Changed: true, Text: "boots next from pxe"}, on: true, new: true, boot: "pxe"},
		{name: "off", order: power.Order{Action: power.Off}, want: power.Outcome{Was: power.IsOn, Now: power.IsOff, Changed: true}, boot: "pxe"},
		{name: "off again", order: power.Order{Action: power.Off}, want: power.Outcome{Was: power.IsOff, Now: power.IsOff}, boot: "pxe"},
		{name: "cycle of what is off, from its disk for ever", order: power.Order{Action: power.Cycle, Boot: power.Disk, Persistent: true},
			want: power.Outcome{Was: power.IsOff, Now: power.IsOn, Changed: true, Text: "boots from disk from now on"}, on: true, new: true, boot: "default"},
		{name: "setup", order: power.Order{Action: power.On, Boot: power.BIOS},
			want: power.Outcome{Was: power.IsOn, Now: power.IsOn, Text: "boots next from bios; it is on already, so that takes a cycle"}, on: true, boot: "bios"},
		{name: "shutdown", order: power.Order{Action: power.Shutdown}, want: power.Outcome{Was: power.IsOn, Now: power.IsOn, Changed: true}, boot: "bios"},
	} {
		got, err := quick().Do(t.Context(), target, tt.order)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreFields(power.Outcome{}, "At")); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
		if got.At.IsZero() == got.Changed {
			t.Errorf("%s: ordered at %s", tt.name, got.At)
		}
		pid := bmc.pid()
		// A shutdown takes its time; all else is as it was ordered.
		for end := time.Now().Add(5 * time.Second); tt.order.Action == power.Shutdown && pid > 0 && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			pid = bmc.pid()
		}
		if (pid > 0) != tt.on || pid > 0 && (pid != before) != tt.new {
			t.Errorf("%s: the machine is process %d, was %d\n%s", tt.name, pid, before, bmc.read("orders"))
		}
		if boot := bmc.read("boot"); boot != tt.boot {
			t.Errorf("%s: boots from %q, want %q", tt.name, boot, tt.boot)
		}
		before = pid
	}
}

func TestIPMIErrors(t *testing.T) {
	bmc := startBMC(t)
	good := bmc.target(t)
	for _, tt := range []struct {
		name   string
		change func(*power.Target)
		order  power.Order
		reason power.Reason
		want   string
	}{
		{"wrong password", func(t2 *power.Target) { t2.BMC.PasswordFile = passwordFile(t, "wrong") }, power.Order{Action: power.On}, power.Login,
			"is there, but lets user admin make no session; correct user and password file (many BMCs have one password for the web and another for IPMI), and allow the user IPMI over LAN as administrator; a BMC that takes old ciphers only needs cipher_suite: 3"},
		{"no such user", func(t2 *power.Target) { t2.BMC.User = "nobody" }, power.Order{Action: power.On}, power.Login,
			"is there, but lets user nobody make no session; correct user"},
		{"HTTP", func(*power.Target) {}, power.Order{Action: power.On, Boot: power.HTTP}, power.Unsupported,
			"cannot be told to boot by HTTP: IPMI has no word for that; use redfish: if the BMC speaks it, or --boot pxe"},
		{"long password", func(t2 *power.Target) { t2.BMC.PasswordFile = passwordFile(t, secret+secret) }, power.Order{Action: power.On}, power.Setup,
			"has 22 bytes, and IPMI takes 20; set a shorter one"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			target := good
			tt.change(&target)
			began := time.Now()
			_, err := quick().Do(t.Context(), target, tt.order)
			var e *power.Error
			if !errors.As(err, &e) || e.Reason != tt.reason || !strings.Contains(err.Error(), tt.want) ||
				!strings.HasPrefix(err.Error(), "cannot switch on node1: BMC "+bmc.addr+" (ipmi) ") {
				t.Errorf("got %v\nwant %s; cause: %v", err, tt.want, errors.Unwrap(err))
			}
			if strings.Contains(fmt.Sprintf("%+v %+v", err, errors.Unwrap(err)), secret) {
				t.Errorf("the password is shown: %+v", err)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("took %s", took)
			}
		})
	}
}

// TestIPMIReach is about BMCs that are not there; it needs none.
func TestIPMIReach(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	other, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	go func() {
		b := make([]byte, 100)
		for {
			if _, from, err := other.ReadFrom(b); err != nil {
				return
			} else if _, err := other.WriteTo([]byte("what?"), from); err != nil {
				return
			}
		}
	}()
	gone, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := gone.LocalAddr().String()
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	port := func(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }
	for _, tt := range []struct {
		name, addr string
		reason     power.Reason
		want       string
	}{
		{"nothing listens", refused, power.Refused, "refuses the connection; is the service switched on in the BMC, and is it at UDP port " + port(refused) + "?"},
		{"no answer", silent.LocalAddr().String(), power.NoAnswer, "does not answer; is the address right, does the BMC have power, and does no firewall hold back UDP port " + port(silent.LocalAddr().String()) + "?"},
		{"something else", other.LocalAddr().String(), power.Other, "answers, but not with IPMI; is the address right, and is it the BMC's own?"},
		{"no name", "bmc.invalid:623", power.DNS, "is not found: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			target := power.Target{Machine: "node1", BMC: boot.BMC{Kind: boot.IPMI, Addr: tt.addr, User: "admin", PasswordFile: passwordFile(t, secret)}}
			_, err := quick().Status(t.Context(), target)
			var e *power.Error
			want := "cannot ask for the power of node1: BMC " + tt.addr + " (ipmi) " + tt.want
			if !errors.As(err, &e) || e.Reason != tt.reason || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("got %v\nwant %s", err, want)
			}
		})
	}
}

// answering is a socket that answers to IPMI's first question, as any BMC does.
func answering(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	go func() {
		b := make([]byte, 100)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(b[:n], from)
		}
	}()
	return c.LocalAddr().String()
}

// TestIPMITool: what ipmitool says about BMCs that OpenIPMI does not play, and
// what it is told.
func TestIPMITool(t *testing.T) {
	for _, tt := range []struct {
		name, says string
		reason     power.Reason
		want       string
	}{
		{"no user", "RAKP 2 message indicates an error : unauthorized name\nError: Unable to establish IPMI v2 / RMCP+ session", power.Login,
			"knows no user admin for IPMI over LAN; correct user, or let it log in by LAN in the BMC's settings"},
		{"no password", "RAKP 2 HMAC is invalid\nError: Unable to establish IPMI v2 / RMCP+ session", power.Login,
			"does not take the password of its user admin; correct the password file; many BMCs have one password for the web and another for IPMI"},
		{"may not", "Set Session Privilege Level to ADMINISTRATOR failed: Privilege level exceeds limit", power.Denied,
			"does not let its user admin be administrator; give the user the privilege ADMINISTRATOR for the LAN channel"},
		{"may not do that", "Set Chassis Power Control to Up/On failed: Insufficient privilege level", power.Denied,
			"does not let its user do that; give the user the privilege OPERATOR or more for the LAN channel"},
		{"full", "Error in open session response message : insufficient resources for session", power.NoAnswer,
			"has no session free; close others, or try again in a minute"},
		{"old", "Error in open session response message : no matching cipher suite", power.Unsupported,
			"takes none of the cipher suites 17 and 3; allow one of them in the BMC; with 3 only, cipher_suite: 3 saves a try"},
		{"cannot", "Set Chassis Power Control to Up/On failed: Invalid command", power.Unsupported,
			"cannot do that: Set Chassis Power Control to Up/On failed: Invalid command"},
		{"anything else", "Segmentation\x1b[0m violation", power.Other, "failed: Segmentation [0m violation"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tool := filepath.Join(t.TempDir(), "ipmitool")
			script := fmt.Sprintf("#!/bin/sh\n/usr/bin/env >>%[1]s.env\necho \"$@\" >>%[1]s.args\n/usr/bin/printf '%%b\\n' '%[2]s' >&2\nexit 1\n", tool, tt.says)
			if err := os.WriteFile(tool, []byte(script), 0o700); err != nil {
				t.Fatal(err)
			}
			addr := answering(t)
			target := power.Target{Machine: "node1", BMC: boot.BMC{Kind: boot.IPMI, Addr: addr, User: "admin", PasswordFile: passwordFile(t, secret)}}
			_, err := power.New(power.Config{IPMITool: tool}).Do(t.Context(), target, power.Order{Action: power.On})
			var e *power.Error
			want := "cannot switch on node1: BMC " + addr + " (ipmi) " + tt.want
			if !errors.As(err, &e) || e.Reason != tt.reason || err.Error() != want {
				t.Errorf("%s\n got %v\nwant %s", e.Reason, err, want)
			}
			args, _ := os.ReadFile(tool + ".args")
			env, _ := os.ReadFile(tool + ".env")
			if strings.Contains(string(args), secret) || !strings.Contains(string(env), "IPMITOOL_PASSWORD="+secret) {
				t.Errorf("the password belongs into the environment: %s", args)
			}
			if got := strings.Count(string(args), "\n"); got != 1 && tt.name != "old" || tt.name == "old" && got != 2 {
				t.Errorf("ipmitool ran %d times:\n%s", got, args)
			}
		})
	}
	missing := power.Target{Machine: "node1", BMC: boot.BMC{Kind: boot.IPMI, Addr: answering(t), User: "admin", PasswordFile: passwordFile(t, secret)}}
	_, err := power.New(power.Config{IPMITool: "/nonexistent/ipmitool"}).Status(t.Context(), missing)
	var e *power.Error
	if !errors.As(err, &e) || e.Reason != power.Program || !strings.Contains(err.Error(), "apt install ipmitool") {
		t.Errorf("without ipmitool: %v", err)
	}
}
