package lab_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// BenchmarkTFTPPeers counts the megabytes per second that so many clients get at
// once, each of whom fetches a loader again and again in blocks of 1,468 bytes: one
// after the other, or in windows of 16 (RFC 7440), which not every server has; over a
// cable with and without a delay of a millisecond.
func BenchmarkTFTPPeers(b *testing.B) {
	for _, delay := range []time.Duration{0, time.Millisecond} {
		for _, window := range []int{0, 16} {
			for _, clients := range []int{1, 32, 200} {
				for _, name := range []string{"bootd", "dnsmasq", "in.tftpd"} {
					b.Run(fmt.Sprintf("delay=%s/window=%d/clients=%d/server=%s", delay, window, clients, name), func(b *testing.B) {
						tftpRace(b, name, clients, tftpGet{name: "loader.efi", window: window, delay: delay})
					})
				}
			}
		}
	}
}

// tftpLoader is as large as the largest builds of iPXE.
const tftpLoader = 1 << 20

// startTFTP runs a server with the loader.
func (r room) startTFTP(b *testing.B, name string) (stop func()) {
	b.Helper()
	if _, err := exec.LookPath(name); err != nil && name != "bootd" {
		b.Skipf("%s is not installed", name)
	}
	root := filepath.Join(r.dir, "tftp")
	put(b, filepath.Join(root, "loader.efi"), strings.Repeat("x", tftpLoader))
	switch name {
	case "dnsmasq":
		return r.start(b, nil, "dnsmasq", "-k", "-C", "/dev/null", "--port=0", "--interface=eth1", "--bind-interfaces", "--user=root",
			"--enable-tftp", "--tftp-root="+root, "--tftp-max=1000", "--pid-file="+filepath.Join(r.dir, "pid"), "--log-facility=-")
	case "in.tftpd":
		return r.start(b, nil, "in.tftpd", "--foreground", "--user", "root", "--address", roomServer+":69", "--secure", root)
	}
	return r.bootd(b, r.dir, "tftp: {root: tftp}\n")
}

// slow has all packets on the way to the clients take longer. It reports false where
// the kernel cannot do that.
func (r room) slow(delay time.Duration) bool {
	return exec.Command("ip", "netns", "exec", r.servers, "tc", "qdisc", "add", "dev", "eth1", "root", "netem", "delay", delay.String(), "limit", "100000").Run() == nil
}

// tftpRace measures one server.
func tftpRace(b *testing.B, name string, clients int, get tftpGet) {
	r := newRoom(b)
	defer r.startTFTP(b, name)()
	if get.delay > 0 && r.slow(get.delay) {
		get.delay = 0 // the cable's now
	}
	cards := make([]tftpGet, clients)
	for i := range cards { // each is another machine
		addr := fmt.Sprintf("10.0.253.%d", i+1)
		if out, err := exec.Command("ip", "-n", r.clients, "addr", "add", addr+"/16", "dev", "eth1").CombinedOutput(); err != nil {
			b.Fatalf("cannot add an address: %v: %s", err, out)
		}
		cards[i] = get
		cards[i].again = time.Second
		r.inside(b, func() (err error) {
			cards[i].conn, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(addr)})
			return err
		})
		defer cards[i].conn.Close()
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if n, err := cards[0].run(10 * time.Second); err == nil && n == tftpLoader {
			break
		} else if time.Now().After(end) {
			b.Fatalf("it does not serve: %d bytes, %v", n, err)
		}
	}
	const long = 2 * time.Second
	got, failed := make([]int, clients), make([]error, clients)
	cost := r.observe(b)
	b.ResetTimer()
	begun := time.Now()
	var wg sync.WaitGroup
	for i, c := range cards {
		wg.Go(func() {
			for time.Since(begun) < long && failed[i] == nil {
				n, err := c.run(30 * time.Second)
				if err == nil && n != tftpLoader {
					err = fmt.Errorf("%d of %d bytes", n, tftpLoader)
				}
				got[i], failed[i] = got[i]+n, err
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	cpu, memory := cost()
	total, missing := 0, 0
	for i := range cards {
		if total += got[i]; failed[i] != nil {
			if missing++; missing == 1 {
				b.Logf("client %d: %v", i, failed[i])
			}
		}
	}
	b.ReportMetric(0, "ns/op") // means nothing here
	b.ReportMetric(float64(total)/1e6/b.Elapsed().Seconds(), "MB/s")
	b.ReportMetric(float64(missing), "failed")
	if name != "in.tftpd" { // whose processes end with each file, and take their times with them
		b.ReportMetric(cpu.Seconds()*1e3/(float64(total)/1e6), "cpu-ms/MB")
	}
	b.ReportMetric(float64(memory)/(1<<20), "MiB")
}

// A tftpGet fetches a file in blocks of 1,468 bytes, as firmware does.
type tftpGet struct {
	conn   *net.UDPConn
	name   string
	window int           // blocks that are answered together; 0: it does not ask for that
	delay  time.Duration // that each of its packets has on its way
	again  time.Duration // how long it waits for an answer
}

// run fetches the file, and returns its size.
func (g tftpGet) run(limit time.Duration) (size int, err error) {
	const block = 1468
	end := time.Now().Add(limit)
	to := &net.UDPAddr{IP: net.ParseIP(roomServer), Port: 69}
	packet := []byte("\x00\x01" + g.name + "\x00octet\x00blksize\x00" + strconv.Itoa(block) + "\x00")
	if g.window > 0 {
		packet = append(packet, "windowsize\x00"+strconv.Itoa(g.window)+"\x00"...)
	}
	window := 1                 // as agreed
	got, last := uint16(0), 0   // the last block in order, and the length of it
	have, nagged := 0, false    // blocks of this window; whether one was out of order
	in := make([]byte, 4+block) // one that is longer is cut off, and fails the check of its size
	send := func() error {
		have, nagged = 0, false
		time.Sleep(g.delay)
		_, err := g.conn.WriteToUDP(packet, to)
		return err
	}
	if err := send(); err != nil {
		return 0, err
	}
	for asking := true; ; {
		if err := g.conn.SetReadDeadline(time.Now().Add(g.again)); err != nil {
			return size, err
		}
		n, from, err := g.conn.ReadFromUDP(in)
		if time.Now().After(end) {
			return size, fmt.Errorf("not within %s", limit)
		}
		if err != nil { // silence: ask again
			if err := send(); err != nil {
				return size, err
			}
			continue
		}
		if n < 4 || !asking && from.Port != to.Port {
			continue // of the transfer before
		}
		switch number := binary.BigEndian.Uint16(in[2:]); {
		case in[1] == 5:
			return size, fmt.Errorf("refused: %s", bytes.TrimRight(in[4:n], "\x00"))
		case in[1] == 6 && asking:
			asking, to, packet = false, from, []byte{0, 4, 0, 0}
			window = max(1, option(in[2:n], "windowsize"))
			err = send()
		case in[1] == 3 && number == got+1 && !asking:
			got, last = number, n-4
			size += last
			have++
			packet = []byte{0, 4, in[2], in[3]}
			if last < block {
				return size, send() // which needs no answer
			}
			if have >= window {
				err = send()
			}
		case in[1] == 3 && !nagged && !asking && window > 1:
			if err = send(); err == nil {
				nagged = true // one answer for all that are out of order
			}
		}
		if err != nil {
			return size, err
		}
	}
}

// option reads a number from the options of a packet (RFC 2347); 0: it is not there.
func option(p []byte, name string) int {
	l := strings.Split(strings.ToLower(string(p)), "\x00")
	for i := 0; i+1 < len(l); i += 2 {
		if l[i] == name {
			n, _ := strconv.Atoi(l[i+1])
			return n
		}
	}
	return 0
}
