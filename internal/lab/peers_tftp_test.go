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

// BenchmarkTFTPPeers counts the megabytes per second that so many clients get
// at once, each of whom fetches a loader in blocks of 1,468 bytes, one after the
// other, over a cable with and without a delay of a millisecond.
func BenchmarkTFTPPeers(b *testing.B) {
	const size = 1 << 20
	for _, delay := range []string{"", "1ms"} {
		for _, clients := range []int{1, 32, 200} {
			for _, name := range []string{"bootd", "dnsmasq", "in.tftpd"} {
				b.Run(fmt.Sprintf("delay=%s/clients=%d/server=%s", delay, clients, name), func(b *testing.B) {
					if _, err := exec.LookPath(name); err != nil && name != "bootd" {
						b.Skipf("%s is not installed", name)
					}
					r := newRoom(b)
					root := filepath.Join(r.dir, "tftp")
					put(b, filepath.Join(root, "loader.efi"), strings.Repeat("x", size))
					var stop func()
					switch name {
					case "bootd":
						stop = r.bootd(b, r.dir, "tftp: {root: tftp}\n")
					case "dnsmasq":
						stop = r.start(b, nil, "dnsmasq", "-k", "-C", "/dev/null", "--port=0", "--interface=eth1", "--bind-interfaces", "--user=root",
							"--enable-tftp", "--tftp-root="+root, "--tftp-max=1000", "--pid-file="+filepath.Join(r.dir, "pid"), "--log-facility=-")
					case "in.tftpd":
						stop = r.start(b, nil, "in.tftpd", "--foreground", "--user", "root", "--address", roomServer+":69", "--secure", root)
					}
					defer stop()
					if delay != "" {
						if out, err := exec.Command("ip", "netns", "exec", r.servers, "tc", "qdisc", "add", "dev", "eth1", "root", "netem", "delay", delay).CombinedOutput(); err != nil {
							b.Skipf("packets cannot be delayed here: %v: %s", err, out)
						}
					}
					cards := make([]*net.UDPConn, clients)
					for i := range cards { // each is another machine
						addr := fmt.Sprintf("10.0.253.%d", i+1)
						if out, err := exec.Command("ip", "-n", r.clients, "addr", "add", addr+"/16", "dev", "eth1").CombinedOutput(); err != nil {
							b.Fatalf("cannot add an address: %v: %s", err, out)
						}
						r.inside(b, func() (err error) {
							cards[i], err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(addr)})
							return err
						})
					}
					for end := time.Now().Add(30 * time.Second); ; {
						if n, err := tftpGet(cards[0], time.Second); err == nil && n == size {
							break
						} else if time.Now().After(end) {
							b.Fatalf("it does not serve: %d bytes, %v", n, err)
						}
					}
					var wg sync.WaitGroup
					failed := make([]error, clients)
					b.ResetTimer()
					for i, c := range cards {
						wg.Go(func() {
							if n, err := tftpGet(c, time.Minute); err != nil || n != size {
								failed[i] = fmt.Errorf("%d bytes: %w", n, err)
							}
							c.Close()
						})
					}
					wg.Wait()
					b.StopTimer()
					missing := 0
					for _, err := range failed {
						if err != nil {
							missing++
						}
					}
					b.ReportMetric(0, "ns/op") // means nothing here
					b.ReportMetric(float64((clients-missing)*size)/1e6/b.Elapsed().Seconds(), "MB/s")
					b.ReportMetric(float64(missing), "failed")
				})
			}
		}
	}
}

// tftpGet fetches the loader as firmware does.
func tftpGet(c *net.UDPConn, limit time.Duration) (size int, err error) {
	const block = 1468
	end := time.Now().Add(limit)
	to := &net.UDPAddr{IP: net.ParseIP(roomServer), Port: 69}
	packet := []byte("\x00\x01loader.efi\x00octet\x00blksize\x00" + strconv.Itoa(block) + "\x00")
	in := make([]byte, 2048)
	next := uint16(1)
	for {
		if _, err := c.WriteToUDP(packet, to); err != nil {
			return size, err
		}
		for again := false; !again; {
			if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
				return size, err
			}
			n, from, err := c.ReadFromUDP(in)
			switch {
			case time.Now().After(end):
				return size, fmt.Errorf("not within %s", limit)
			case err != nil:
				again = true // silence: ask again
			case n < 4:
			case in[1] == 5:
				return size, fmt.Errorf("refused: %s", bytes.TrimRight(in[4:n], "\x00"))
			case in[1] == 6 && next == 1:
				to, packet, again = from, []byte{0, 4, 0, 0}, true
			case in[1] == 3 && binary.BigEndian.Uint16(in[2:]) == next:
				size += n - 4
				to, packet, again = from, []byte{0, 4, in[2], in[3]}, true
				next++
				if n-4 < block {
					_, err := c.WriteToUDP(packet, to)
					return size, err
				}
			}
		}
	}
}
