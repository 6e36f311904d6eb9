package main

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"bootd/internal/api"
)

// TestNextWithoutDHCP: where bootd gives no addresses, the first that it hears
// of a boot is that its script is asked for. An order for the next boot holds for
// that boot, however often it asks, and not for the one after it.
func TestNextWithoutDHCP(t *testing.T) {
	port := freePort(t)
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"bootd.yaml": fmt.Sprintf(`
networks:
  - {interface: bootd-test0, name: rack, subnet: 127.0.1.0/24, server: 127.0.1.1, mode: off}
state_dir: state
http: {port: %[1]d}
tftp: {port: %[1]d}
loaders: loaders
api: {socket: bootd.sock}
`, port),
		"machines/rack.yaml":    "- {name: node1, mac: \"52:54:00:00:00:01\", profile: disk}\n",
		"profiles/disk.yaml":    "name: disk\n",
		"profiles/rescue.yaml":  "name: rescue\n",
		"loaders/undionly.kpxe": string(nbp()),
	})
	w := startWired(t, dir)
	m := w.machine(t)
	m.http.Transport = &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, 50)}}).DialContext}
	asks := func(run, want string) {
		t.Helper()
		script := m.get(fmt.Sprintf("http://127.0.1.1:%d/ipxe?mac=%s&run=%s&platform=pcbios&buildarch=i386&cpu=x86_64", port, m.mac, run))
		if !strings.Contains(script, "node1: profile "+want+" ") {
			t.Errorf("loader %s, which was to get profile %s, gets:\n%s", run, want, script)
		}
	}
	asks("RUN1", "disk")
	if err := w.operator.Next(t.Context(), "node1", &api.Next{Profile: "rescue"}); err != nil {
		t.Fatal(err)
	}
	asks("RUN2", "rescue")
	asks("RUN2", "rescue") // its script was lost on the way
	asks("RUN3", "disk")
	asks("RUN3", "disk")
	boots, err := w.operator.Boots(t.Context(), "node1")
	if err != nil || len(boots) != 3 {
		t.Errorf("%d boots are on record, %v", len(boots), err)
	}
}
