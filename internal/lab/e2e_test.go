//go:build e2e

package lab_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cavaliergopher/cpio"

	"bootd/internal/lab"
)

// patience is how long a test waits for one thing. Only a failure takes that
// long: how fast a host emulates its machines must not decide.
const patience = 8 * time.Minute

// image builds the live image, or finds it built.
func image(t *testing.T) lab.Image {
	t.Helper()
	if missing := lab.Missing(true); len(missing) > 0 {
		t.Fatalf("missing packages: apt-get install %s", strings.Join(missing, " "))
	}
	i, err := lab.BuildImage(t.Context(), lab.ImageOptions{Dir: lab.ImageDir, Progress: func(s string) { t.Log("image:", s) }})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// open creates a lab with these machines, or the demo's if there are none; it
// is removed at the end.
func open(t *testing.T, name, labYAML string, o lab.Options) lab.Lab {
	t.Helper()
	l, err := lab.New(name)
	if err != nil {
		t.Fatal(err)
	}
	if labYAML != "" {
		o.Config = t.TempDir()
		if err := os.WriteFile(filepath.Join(o.Config, lab.ConfigFile), []byte(labYAML), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			show(t, l)
		}
		if err := l.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	o.Progress = func(s string) { t.Log("lab:", s) }
	if err := l.Up(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	return l
}

// show prints the ends of all the lab's logs and consoles.
func show(t *testing.T, l lab.Lab) {
	for _, pattern := range []string{"*.log", "*.console"} {
		files, _ := filepath.Glob(filepath.Join(l.RunDir(), pattern))
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Log(err)
				continue
			}
			t.Logf("--- %s\n%s", f, b[max(0, len(b)-6000):])
		}
	}
}

// docker runs the Docker client against the lab's manager.
func docker(t *testing.T, l lab.Lab, args ...string) string {
	t.Helper()
	out, err := exec.Command("docker", append([]string{"-H", l.Engine()}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// watch powers a machine on and returns its markers up to the named one.
func watch(t *testing.T, l lab.Lab, machine, until string) []lab.Marker {
	t.Helper()
	if _, err := l.Power(t.Context(), machine, lab.On); err != nil {
		t.Fatal(err)
	}
	markers, err := follow(t, l, machine, until, nil)
	if err != nil {
		t.Fatal(err)
	}
	return markers
}

// handover is how long a machine may be silent that has its kernel and its
// initramfs. The kernel speaks within seconds.
const handover = 2 * time.Minute

// follow returns a machine's markers up to the named one. Each is told of it.
//
// Once in a while an emulated machine hangs between its firmware and its kernel,
// with all that it was served. It is switched off and on then, once, as an
// operator would.
func follow(t *testing.T, l lab.Lab, machine, until string, each func(lab.Marker)) ([]lab.Marker, error) {
	markers, err := followOnce(t, l, machine, until, each)
	if n := len(markers); err == nil || n == 0 || markers[n-1].Name != "initrd" || t.Context().Err() != nil {
		return markers, err
	}
	t.Logf("%s hangs between its firmware and its kernel (%v); it is switched off and on", machine, err)
	if _, err := l.Power(t.Context(), machine, lab.Cycle); err != nil {
		return markers, err
	}
	return followOnce(t, l, machine, until, each)
}

func followOnce(t *testing.T, l lab.Lab, machine, until string, each func(lab.Marker)) ([]lab.Marker, error) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	silence := time.AfterFunc(patience, cancel)
	defer silence.Stop()
	var markers []lab.Marker
	err := l.Watch(ctx, machine, func(m lab.Marker) bool {
		if silence.Reset(patience); m.Name == "initrd" {
			silence.Reset(handover)
		}
		markers = append(markers, m)
		t.Logf("%s %6.1fs %-16s %s", machine, m.Since.Seconds(), m.Name, m.Text)
		if each != nil {
			each(m)
		}
		return m.Name != until && m.Name != lab.FATAL
	})
	if err != nil {
		return markers, fmt.Errorf("%s: %w", machine, err)
	}
	if last := markers[len(markers)-1]; last.Name == lab.FATAL {
		return markers, fmt.Errorf("%s: %s", machine, last.Text)
	}
	return markers, nil
}

// boot powers a machine on and follows it until the manager shows it ready,
// which is the last of the markers that it returns.
func boot(t *testing.T, l lab.Lab, machine string) []lab.Marker {
	t.Helper()
	markers := watch(t, l, machine, "joined")
	joined := time.Now()
	wait(t, patience, machine+" is ready", func() bool {
		return strings.Contains(docker(t, l, "node", "ls", "--format", "{{.Hostname}} {{.Status}}"), machine+" Ready")
	})
	since := markers[len(markers)-1].Since + time.Since(joined)
	return append(markers, lab.Marker{Name: "ready", Since: since})
}

// table prints boots side by side: when each stage was reached, in seconds
// since power-on.
func table(t *testing.T, names []string, boots map[string][]lab.Marker) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "%-18s", "seconds to")
	for _, n := range names {
		fmt.Fprintf(&b, "%14s", n)
	}
	for _, stage := range append(lab.Stages(), "ready") {
		fmt.Fprintf(&b, "\n%-18s", stage)
		for _, n := range names {
			cell := "-"
			for _, m := range boots[n] {
				if m.Name == stage {
					cell = fmt.Sprintf("%.1f", m.Since.Seconds())
				}
			}
			fmt.Fprintf(&b, "%14s", cell)
		}
	}
	t.Log("\n" + b.String())
}

// A baseline is what people set up by hand before bootd: dnsmasq for DHCP and
// TFTP, nginx for the rest, with a script and one Ignition config per machine
// written beforehand.
type baseline struct {
	lab   lab.Lab
	dir   string
	addr  netip.Addr
	image lab.Image
}

// Without the advertisements of a router iPXE waits for one, for 15 seconds:
// the old guides do not have this line, but the comparison shall be with the
// best that can be done.
const dnsmasqConf = `port=0
interface=br0
bind-interfaces
user=root
dhcp-authoritative
dhcp-range={{addr}},static,255.255.255.0,1h
dhcp-leasefile={{dir}}/leases
log-dhcp
enable-tftp
tftp-root={{dir}}/tftp
enable-ra
dhcp-range=fd77::,ra-only
ra-param=br0,0,0
dhcp-match=set:ipxe,175
dhcp-match=set:efi64,option:client-arch,7
dhcp-match=set:efi64,option:client-arch,9
dhcp-vendorclass=set:http,HTTPClient
dhcp-option-force=tag:http,60,HTTPClient
dhcp-option=tag:ipxe,encap:175,176,1b
dhcp-boot=tag:http,http://{{addr}}/snponly.efi
dhcp-boot=tag:ipxe,http://{{addr}}/boot.ipxe
dhcp-boot=tag:!ipxe,tag:!http,tag:efi64,snponly.efi
dhcp-boot=tag:!ipxe,tag:!http,tag:!efi64,undionly.kpxe
`

const nginxConf = `daemon off;
user root;
worker_processes 1;
pid {{dir}}/nginx.pid;
error_log {{dir}}/nginx.error;
events { worker_connections 256; }
http {
  sendfile on;
  tcp_nodelay on;
  types { application/efi efi; }
  access_log {{dir}}/nginx.access;
  client_body_temp_path {{dir}}/t1; proxy_temp_path {{dir}}/t2; fastcgi_temp_path {{dir}}/t3;
  uwsgi_temp_path {{dir}}/t4; scgi_temp_path {{dir}}/t5;
  server { listen {{addr}}:80; root {{dir}}/www; }
}
`

// BIOS machines fetch their Ignition config; UEFI machines get it as an initrd.
const bootScript = `#!ipxe
set args {{args}} BOOTIF=01-${net0/mac:hexhyp} ignition.firstboot ignition.platform.id=metal coreos.live.rootfs_url=http://{{addr}}/{{rootfs}}
iseq ${platform} efi && goto efi ||
kernel http://{{addr}}/{{kernel}} initrd=main ${args} ignition.config.url=http://{{addr}}/${net0/mac:hexhyp}.ign
initrd --name main http://{{addr}}/{{initrd}}
boot
:efi
kernel http://{{addr}}/{{kernel}} initrd=main initrd=config ${args}
initrd --name main http://{{addr}}/{{initrd}}
initrd --name config http://{{addr}}/${net0/mac:hexhyp}.cpio
boot
`

// kernelArgs are those of the demo's profile base.
const kernelArgs = "console=ttyS0,115200n8 quiet systemd.show_status=0 net.ifnames=0 mitigations=off nopti nokaslr psi=0 " +
	"tsc=reliable clocksource=tsc no_timer_check clearcpuid=erms,rep_good,fsrm apparmor=0"

func startBaseline(t *testing.T, l lab.Lab, c lab.Config, i lab.Image) *baseline {
	t.Helper()
	b := &baseline{l, t.TempDir(), c.Network.Addr(), i}
	if out, err := exec.Command("ip", "-n", l.Netns(), "addr", "add", "fd77::1/64", "dev", lab.Bridge, "nodad").CombinedOutput(); err != nil {
		t.Fatalf("ip: %v: %s", err, out)
	}
	for _, d := range []string{"tftp", "www"} {
		if err := os.Mkdir(filepath.Join(b.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b.link(t, "/usr/lib/ipxe/snponly.efi", "www/snponly.efi")
	for _, f := range []string{"snponly.efi", "undionly.kpxe"} {
		b.link(t, "/usr/lib/ipxe/"+f, "tftp/"+f)
	}
	for _, f := range []string{i.Kernel, i.Initrd, i.RootFS} {
		b.link(t, filepath.Join(lab.ImageDir, f), "www/"+f)
	}
	b.write(t, "dnsmasq.conf", dnsmasqConf)
	b.write(t, "nginx.conf", nginxConf)
	b.write(t, "www/boot.ipxe", bootScript)
	docker(t, l, "swarm", "init", "--advertise-addr", b.addr.String())
	token := docker(t, l, "swarm", "join-token", "-q", "worker")
	hosts, err := os.OpenFile(filepath.Join(b.dir, "dnsmasq.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	addr := b.addr.As4()
	for n, m := range c.Machines {
		addr[3] = byte(11 + n)
		fmt.Fprintf(hosts, "dhcp-host=%s,%s\n", m.MAC, netip.AddrFrom4(addr))
		b.ignition(t, m, token)
	}
	if err := hosts.Close(); err != nil {
		t.Fatal(err)
	}
	b.start(t, "dnsmasq", func() bool { return b.holds("dnsmasq.pid") }, "dnsmasq", "-k", "-C", b.dir+"/dnsmasq.conf", "--pid-file="+b.dir+"/dnsmasq.pid", "--log-facility="+b.lab.RunDir()+"/dnsmasq.dhcp.log")
	b.start(t, "nginx", func() bool { return b.holds("nginx.pid") }, "nginx", "-c", b.dir+"/nginx.conf", "-p", b.dir)
	return b
}

func (b *baseline) start(t *testing.T, name string, ready func() bool, argv ...string) {
	t.Helper()
	err := b.lab.Start(t.Context(), filepath.Join(b.lab.RunDir(), name+".log"), func(context.Context) bool { return ready() }, argv...)
	if err != nil {
		t.Fatal(err)
	}
}

func (b *baseline) holds(file string) bool {
	s, err := os.ReadFile(filepath.Join(b.dir, file))
	return err == nil && len(bytes.TrimSpace(s)) > 0
}

func (b *baseline) link(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Symlink(from, filepath.Join(b.dir, to)); err != nil {
		t.Fatal(err)
	}
}

func (b *baseline) write(t *testing.T, name, text string) {
	t.Helper()
	text = strings.NewReplacer("{{addr}}", b.addr.String(), "{{dir}}", b.dir, "{{args}}", kernelArgs,
		"{{kernel}}", b.image.Kernel, "{{initrd}}", b.image.Initrd, "{{rootfs}}", b.image.RootFS).Replace(text)
	if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

const joinUnit = `[Unit]
Description=Docker Swarm membership
Requires=docker.service
After=docker.service network-online.target
Wants=network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'until docker swarm join --token %s %s:2377; do sleep 2; done'
ExecStop=/usr/bin/docker swarm leave
TimeoutStopSec=30

[Install]
WantedBy=multi-user.target
`

func (b *baseline) ignition(t *testing.T, m lab.Machine, token string) {
	t.Helper()
	key, err := os.ReadFile(b.lab.Key() + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	type object = map[string]any
	text, err := json.Marshal(object{
		"ignition": object{"version": "3.3.0"},
		"passwd":   object{"users": []object{{"name": "core", "sshAuthorizedKeys": []string{strings.TrimSpace(string(key))}}}},
		"storage": object{"files": []object{
			{"path": "/etc/hostname", "mode": 0o644, "overwrite": true, "contents": object{"source": "data:," + url.PathEscape(m.Name+"\n")}},
		}},
		"systemd": object{"units": []object{
			{"name": "docker.service", "enabled": true},
			{"name": "join.service", "enabled": true, "contents": fmt.Sprintf(joinUnit, token, b.addr)},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	w := cpio.NewWriter(&archive)
	err = errors.Join(w.WriteHeader(&cpio.Header{Name: "config.ign", Mode: cpio.TypeReg | 0o600, Size: int64(len(text))}), second(w.Write(text)), w.Close())
	if err != nil {
		t.Fatal(err)
	}
	for ext, b2 := range map[string][]byte{".ign": text, ".cpio": archive.Bytes()} {
		if err := os.WriteFile(filepath.Join(b.dir, "www", m.MAC.Hyphens()+ext), b2, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func second(_ int, err error) error { return err }

const threeMachines = `
machines:
  - {name: bios, mac: 52:54:00:77:00:11, firmware: bios}
  - {name: uefi, mac: 52:54:00:77:00:12, firmware: uefi}
  - {name: http, mac: 52:54:00:77:00:13, firmware: uefi-http}
`

// TestBaseline boots a BIOS and a UEFI machine, one after the other, from
// servers set up by hand: what the image and the machines can do by
// themselves, and the measure for bootd. It also shows that a machine leaves
// the swarm when its power button is pressed, and that a UEFI machine gets as
// far as iPXE by HTTP boot.
func TestBaseline(t *testing.T) {
	i := image(t)
	l := open(t, "baseline", threeMachines, lab.Options{Engine: true})
	c, err := lab.ParseConfig([]byte(threeMachines))
	if err != nil {
		t.Fatal(err)
	}
	startBaseline(t, l, c, i)
	boots := map[string][]lab.Marker{}
	for _, name := range []string{"bios", "uefi"} {
		boots[name] = boot(t, l, name)
		out := ssh(t, l, name, "docker info --format '{{.Swarm.LocalNodeState}}'; hostname; sudo systemctl is-system-running; systemd-analyze; systemd-analyze blame | head -12; free -m")
		if !strings.HasPrefix(out, "active\n"+name+"\nrunning\n") {
			t.Errorf("the machine says\n%s", out)
		}
		t.Logf("\n%s", out)
		press(t, l, name)
	}
	table(t, []string{"bios", "uefi"}, boots)
	for _, name := range []string{"bios", "uefi"} {
		state := func() string { return docker(t, l, "node", "inspect", name, "--format", "{{.Status.State}}") }
		wait(t, patience, "node "+name+" is down", func() bool { return state() == "down" })
	}
	markers := watch(t, l, "http", "script")
	if last := markers[len(markers)-1]; last.Name != "script" {
		t.Errorf("HTTP boot came to %q: %s", last.Name, last.Text)
	}
}

// ssh runs a command on a machine.
func ssh(t *testing.T, l lab.Lab, machine, command string) string {
	t.Helper()
	argv, err := l.SSH(machine, command)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(argv[0], argv[1:]...).Output()
	if err != nil {
		t.Fatalf("ssh %s %s: %v\n%s", machine, command, err, out)
	}
	return string(out)
}

// press pushes a machine's power button and waits until it is off.
func press(t *testing.T, l lab.Lab, machine string) {
	t.Helper()
	from, err := l.Power(t.Context(), machine, lab.Press)
	if err != nil {
		t.Fatal(err)
	}
	// A node waits at most a minute and a quarter for its tasks to move.
	wait(t, patience, machine+" is off", func() bool { return !status(t, l, machine).On })
	t.Logf("%s shut itself down in %.1f s", machine, time.Since(from).Seconds())
}

func status(t *testing.T, l lab.Lab, machine string) lab.Status {
	t.Helper()
	list, err := l.Status()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		if s.Name == machine {
			return s
		}
	}
	t.Fatalf("the lab has no machine %s", machine)
	return lab.Status{}
}

// wait polls what cannot be waited for otherwise: machines are real here.
func wait(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			waited.add(fmt.Sprintf("%s: after %v it is not so that %s", t.Name(), limit, what))
			t.Fatalf("after %v it is not so that %s", limit, what)
		}
	}
}

// waited is what was waited for in vain: it is said again at the very end, below
// the consoles of all machines.
var waited failures

type failures struct {
	mu    sync.Mutex
	lines []string
}

func (f *failures) add(line string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lines = append(f.lines, line)
}

func TestMain(m *testing.M) {
	code := m.Run()
	for _, line := range waited.lines {
		fmt.Println(line)
	}
	os.Exit(code)
}

func lines(s string) []string { return strings.FieldsFunc(s, func(r rune) bool { return r == '\n' }) }
