package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"bootd/internal/api"
)

// TestFloodIsTold: operators see that somebody makes up hardware addresses, and
// where.
func TestFloodIsTold(t *testing.T) {
	port, scraped := freePort(t), freePort(t)
	dir := t.TempDir()
	write(t, dir, map[string]string{"bootd.yaml": fmt.Sprintf(`
networks:
  - {interface: bootd-test0, name: rack, subnet: 127.0.1.0/24, server: 127.0.1.1, range: 127.0.1.100-127.0.1.107}
state_dir: state
http: {port: %[1]d}
tftp: {port: %[1]d}
loaders: loaders
api: {socket: bootd.sock}
metrics: {listen: "127.0.1.1:%[2]d"}
`, port, scraped)})
	w := startWired(t, dir)
	for i := range 20 {
		p, err := dhcpv4.NewDiscovery([]byte{2, 0, 0, 0, 0, byte(i)})
		if err != nil {
			t.Fatal(err)
		}
		select {
		case w.cable.in <- p.ToBytes():
		case <-time.After(time.Minute):
			t.Fatal("nobody receives")
		}
	}
	var s api.Status
	eventuallyTrue(t, func() bool {
		var err error
		s, err = w.operator.Status(t.Context())
		return err == nil && len(s.Networks[0].Floods) == 1 && s.Networks[0].Floods[0].Dropped == 14
	})
	if f := s.Networks[0].Floods[0]; f.Held != 6 || f.Relay.IsValid() || f.Port != "" {
		t.Errorf("flood %+v", f)
	}
	var out bytes.Buffer
	(&app{out: &out}).status(s, nil, nil, time.Now())
	want := regexp.MustCompile(`(?m)^  - new machines from its own wire ask for addresses and do not take them, since \d{4}-.*: 14 request\(s\) not answered, 6 address\(es\) held; `)
	if !want.MatchString(out.String()) {
		t.Errorf("status:\n%s", &out)
	}
	r, err := http.Get(fmt.Sprintf("http://127.0.1.1:%d/metrics", scraped))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil || !strings.Contains(string(text), "\nbootd_dhcp_unanswered_total 14\n") {
		t.Errorf("metrics: %v\n%s", err, text)
	}
}
