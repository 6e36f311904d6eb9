package lab_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A usage is what the servers in a room have taken.
type usage struct {
	cpu time.Duration
	rss int // bytes, at most
}

// usage reads what the servers have taken so far.
func (r room) usage(b *testing.B) (u usage) {
	b.Helper()
	pids, err := exec.Command("ip", "netns", "pids", r.servers).Output()
	if err != nil {
		b.Fatal(err)
	}
	for _, pid := range strings.Fields(string(pids)) {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			continue // it has ended
		}
		// The name, in brackets, may hold anything; ticks are hundredths of a
		// second on every Linux.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		for _, i := range []int{11, 12} { // utime, stime
			ticks, err := strconv.Atoi(fields[i])
			if err != nil {
				b.Fatal(err)
			}
			u.cpu += time.Duration(ticks) * 10 * time.Millisecond
		}
		status, err := os.ReadFile("/proc/" + pid + "/status")
		if err != nil {
			continue
		}
		if m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status); m != nil {
			kb, _ := strconv.Atoi(string(m[1])) // the pattern says that it is a number
			u.rss += kb << 10
		}
	}
	return u
}

// against runs a benchmark against each DHCP server that is installed.
func against(b *testing.B, f func(b *testing.B, r room)) {
	for _, name := range []string{"bootd", "kea-dhcp4", "dnsmasq"} {
		b.Run("server="+name, func(b *testing.B) {
			if _, err := exec.LookPath(name); err != nil && name != "bootd" {
				b.Skipf("%s is not installed", name)
			}
			r := newRoom(b)
			stop := dhcpPeers()[name](b, r, r.dir)
			defer stop()
			f(b, r)
			b.ReportMetric(0, "ns/op") // means nothing here
		})
	}
}

// load returns a load on a server that answers. It has given an address to one
// client that comes no more.
func (r room) load(b *testing.B, flight, clients int) *load {
	b.Helper()
	l := newLoad(b, r, flight, 1)
	l.first = clients
	if done, err := l.run(1, 30*time.Second); done < 1 {
		b.Fatalf("it does not answer: %v", err)
	}
	l.first, l.next, l.clients, l.again, l.took = 0, 0, clients, 0, l.took[:0]
	return l
}

// BenchmarkDHCPClientsPeers shows how servers fare with more and more clients:
// those that come for the first time, for ten seconds at most, and those that
// are known.
func BenchmarkDHCPClientsPeers(b *testing.B) {
	const flight = 256
	for _, clients := range []int{1_000, 10_000, 50_000} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			against(b, func(b *testing.B, r room) {
				l := r.load(b, flight, clients)
				begun := time.Now()
				fresh, err := l.run(clients, 10*time.Second)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(fresh)/time.Since(begun).Seconds(), "fresh/s")
				l.next, l.clients, l.took = 0, max(fresh, 1), l.took[:0]
				const long = 3 * time.Second
				before := r.usage(b)
				known, err := l.run(math.MaxInt, long)
				if err != nil {
					b.Fatal(err)
				}
				after := r.usage(b)
				b.ReportMetric(float64(known)/long.Seconds(), "known/s")
				b.ReportMetric(float64(l.percentile(99).Microseconds())/1000, "p99-ms")
				b.ReportMetric(float64((after.cpu-before.cpu).Microseconds())/float64(max(known, 1)), "cpu-µs")
				b.ReportMetric(float64(after.rss)/(1<<20), "MB")
			})
		})
	}
}

// BenchmarkDHCPLossPeers loses one packet in a hundred, in either direction,
// and counts who got an address in thirty seconds, and which addresses were
// given to two.
func BenchmarkDHCPLossPeers(b *testing.B) {
	const clients = 50_000
	against(b, func(b *testing.B, r room) {
		l := r.load(b, 1024, clients)
		loss := rand.New(rand.NewPCG(1, 2))
		l.lose = func() bool { return loss.IntN(100) == 0 }
		l.given = map[[4]byte]int{}
		begun := time.Now()
		done, err := l.run(clients, 30*time.Second)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(done)/time.Since(begun).Seconds(), "exchanges/s")
		b.ReportMetric(float64(done), "served")
		b.ReportMetric(float64(l.again), "repeats")
		b.ReportMetric(float64(len(l.twice)), "twice")
		if len(l.twice) > 0 {
			b.Logf("given to two: %s ...", l.twice[0])
		}
	})
}

// BenchmarkPerfdhcpPeers looks for the highest rate at which ISC's perfdhcp gets
// all but one in a hundred of its exchanges done, with 10,000 clients. It asks
// without waiting for who is slow; on two processors it cannot ask for much
// more than 20,000 a second.
func BenchmarkPerfdhcpPeers(b *testing.B) {
	if _, err := exec.LookPath("perfdhcp"); err != nil {
		b.Skip("perfdhcp is not installed (Debian: kea-admin)")
	}
	against(b, func(b *testing.B, r room) {
		r.load(b, 1, 1).close()
		good, bad := 0.0, math.Inf(1)
		for rate := 500.0; good == 0 && rate >= 10 || bad-good > good/10; {
			if lost := r.perfdhcp(b, rate); lost < 0.01 {
				good = rate
			} else {
				bad = rate
			}
			switch {
			case math.IsInf(bad, 1):
				rate *= 2
			case good == 0:
				rate /= 2
			default:
				rate = (good + bad) / 2
			}
		}
		b.ReportMetric(good, "exchanges/s")
	})
}

var perfdhcpCount = regexp.MustCompile(`(?s)Statistics for: DISCOVER-OFFER.*?sent packets: (\d+).*Statistics for: REQUEST-ACK.*?received packets: (\d+)`)

// perfdhcp begins so many exchanges per second for a while, and returns which
// part of them was lost.
func (r room) perfdhcp(b *testing.B, rate float64) (lost float64) {
	b.Helper()
	// It tells by its exit status, too, that some were lost.
	out, _ := exec.Command("ip", "netns", "exec", r.clients, "perfdhcp", "-4", "-l", roomAgent, "-r", fmt.Sprint(int(rate)),
		"-R", "10000", "-p", "3", "-W", "500000", roomServer).CombinedOutput()
	m := perfdhcpCount.FindSubmatch(out)
	if m == nil {
		b.Fatalf("perfdhcp: %s", out)
	}
	sent, _ := strconv.ParseFloat(string(m[1]), 64) // the pattern says that they are numbers
	got, _ := strconv.ParseFloat(string(m[2]), 64)
	// What it could not send in time is lost as well.
	return 1 - got/max(sent, 3*rate)
}
