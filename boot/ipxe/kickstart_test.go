package ipxe_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"bootd/boot"
)

// TestESXiReportsByPython runs the programs of a ks.cfg against the real server,
// over a real connection. ESXi brings Python since its first version.
func TestESXiReportsByPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed")
	}
	w, i := newESXiWorld(t)
	local := netip.MustParseAddr("127.0.0.1")
	w.network = &boot.Network{Name: "lo", Mode: boot.Authoritative, Subnet: netip.MustParsePrefix("127.0.0.0/8")}
	w.leases = map[netip.Addr]boot.MAC{local: node1}
	srv := httptest.NewUnstartedServer(w.handler)
	srv.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, http.LocalAddrContextKey, c.LocalAddr())
	}
	srv.Start()
	defer srv.Close()
	fetch := func(path string) string {
		resp, err := http.Get(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var b strings.Builder
		if err := resp.Write(&b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	w.powerOn(node1, local)
	script := fetch(strings.Replace(ask, "platform=pcbios&buildarch=i386", "platform=efi&buildarch=x86_64", 1))
	own := regexp.MustCompile(`/esxi/[\w-]+/`).FindString(script)
	ran := 0
	for _, s := range sections(fetch(own + "ks.cfg")) {
		if !strings.Contains(s.head, "--interpreter=python") {
			continue
		}
		program := filepath.Join(t.TempDir(), "report.py")
		if err := os.WriteFile(program, []byte(s.text), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(python, program).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s\n%s", s.head, err, out, s.text)
		}
		ran++
	}
	if s := w.boots.stages(node1); ran != 2 || !slices.Contains(s, boot.Installed) || !slices.Contains(s, boot.Up) || i.State(node1).Boot == "" {
		t.Errorf("%d programs, recorded %v, %+v", ran, s, i.State(node1))
	}
}
