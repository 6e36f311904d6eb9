package assets_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
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

	"bootd/assets"
)

// stored puts a file into a store as if an image had brought it.
func stored(t testing.TB, s *assets.Store, data []byte) (digestOf string) {
	t.Helper()
	write(t, s.Dir(), "sha256/"+digest(data), data)
	return digest(data)
}

func TestServe(t *testing.T) {
	s := newStore(t, nil)
	data := content("rootfs", 10_000)
	d := stored(t, s, data)
	var mu sync.Mutex
	var last *assets.Transfer
	srv := httptest.NewServer(s.Handler(func(_ *http.Request, tr assets.Transfer) {
		mu.Lock()
		defer mu.Unlock()
		last = &tr
	}))
	defer srv.Close()

	tests := []struct {
		name, method, path string
		header             http.Header
		status             int
		body               []byte
		want               map[string]string // headers; empty: absent
		hook               *assets.Transfer
	}{
		{
			name: "whole", path: assets.Prefix + d + "/rootfs.img", status: 200, body: data,
			want: map[string]string{
				"Content-Length": "10000", "Content-Type": "application/octet-stream", "Etag": `"` + d + `"`,
				"Accept-Ranges": "bytes", "Cache-Control": "public, max-age=31536000, immutable",
				"Transfer-Encoding": "", "Last-Modified": "", "Location": "",
			},
			hook: &assets.Transfer{Name: "rootfs.img", Status: 200, Size: 10_000, Bytes: 10_000, Complete: true},
		},
		{
			name: "HEAD", method: "HEAD", path: assets.Prefix + d + "/rootfs.img", status: 200,
			want: map[string]string{"Content-Length": "10000", "Etag": `"` + d + `"`},
			hook: &assets.Transfer{Name: "rootfs.img", Status: 200, Size: 10_000, Complete: true},
		},
		{
			name: "EFI program", path: assets.Prefix + d + "/IPXE.EFI", status: 200, body: data,
			want: map[string]string{"Content-Type": "application/efi"},
			hook: &assets.Transfer{Name: "IPXE.EFI", Status: 200, Size: 10_000, Bytes: 10_000, Complete: true},
		},
		{
			name: "range", path: assets.Prefix + d + "/r", header: http.Header{"Range": {"bytes=100-199"}}, status: 206, body: data[100:200],
			want: map[string]string{"Content-Length": "100", "Content-Range": "bytes 100-199/10000"},
			hook: &assets.Transfer{Name: "r", Status: 206, Size: 10_000, Offset: 100, Bytes: 100, Complete: true},
		},
		{
			name: "resume", path: assets.Prefix + d + "/r", header: http.Header{"Range": {"bytes=9000-"}, "If-Range": {`"` + d + `"`}}, status: 206, body: data[9000:],
			want: map[string]string{"Content-Range": "bytes 9000-9999/10000"},
			hook: &assets.Transfer{Name: "r", Status: 206, Size: 10_000, Offset: 9000, Bytes: 1000, Complete: true},
		},
		{
			name: "resume of another file", path: assets.Prefix + d + "/r", header: http.Header{"Range": {"bytes=9000-"}, "If-Range": {`"x"`}}, status: 200, body: data,
			hook: &assets.Transfer{Name: "r", Status: 200, Size: 10_000, Bytes: 10_000, Complete: true},
		},
		{
			name: "range beyond the end", path: assets.Prefix + d + "/r", header: http.Header{"Range": {"bytes=10000-"}}, status: 416,
			want: map[string]string{"Content-Range": "bytes */10000"},
			hook: &assets.Transfer{Name: "r", Status: 416, Size: 10_000},
		},
		{
			name: "not changed", path: assets.Prefix + d + "/r", header: http.Header{"If-None-Match": {`"` + d + `"`}}, status: 304,
			hook: &assets.Transfer{Name: "r", Status: 304, Size: 10_000},
		},
		{
			name: "POST", method: "POST", path: assets.Prefix + d + "/r", status: 405, want: map[string]string{"Allow": "GET, HEAD"},
			hook: &assets.Transfer{Name: "r", Status: 405},
		},
		{
			name: "removed", path: assets.Prefix + digest([]byte("x")) + "/r", status: 404,
			hook: &assets.Transfer{Name: "r", Status: 404},
		},
		{name: "no name", path: assets.Prefix + d, status: 404},
		{name: "empty name", path: assets.Prefix + d + "/", status: 404},
		{name: "folder", path: assets.Prefix + d + "/a/b", status: 404},
		{name: "hidden", path: assets.Prefix + d + "/.x", status: 404},
		{name: "upper-case digest", path: assets.Prefix + strings.ToUpper(d) + "/r", status: 404},
		{name: "short digest", path: assets.Prefix + d[:63] + "/r", status: 404},
		{name: "list", path: assets.Prefix, status: 404},
		{name: "dots", path: assets.Prefix + "../lock/r", status: 404},
		{name: "escaped dots", path: assets.Prefix + "%2e%2e%2flock/r", status: 404},
		{name: "dots after the digest", path: assets.Prefix + d + "/../../lock", status: 404},
		{name: "double slash", path: "/assets//sha256/" + d + "/r", status: 404},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mu.Lock()
			last = nil
			mu.Unlock()
			resp := rawRequest(t, srv.Listener.Addr().String(), tt.method, tt.path, tt.header)
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tt.status {
				t.Fatalf("status %d, want %d", resp.StatusCode, tt.status)
			}
			if tt.status < 300 && !bytes.Equal(body, tt.body) {
				t.Errorf("body of %d bytes is not the one expected", len(body))
			}
			for k, v := range tt.want {
				if got := resp.Header.Get(k); got != v {
					t.Errorf("%s: %q, want %q", k, got, v)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if tt.hook != nil {
				tt.hook.Digest = strings.Split(tt.path, "/")[3]
			}
			if d := cmp.Diff(tt.hook, last, cmpopts.IgnoreFields(assets.Transfer{}, "Took")); d != "" {
				t.Errorf("hook (-want +got):\n%s", d)
			}
		})
	}
}

// rawRequest sends a path as it is, which net/http's client would clean, and
// returns when the server has closed the connection, after its hook has run.
func rawRequest(t *testing.T, addr, method, path string, header http.Header) *http.Response {
	t.Helper()
	if method == "" {
		method = "GET"
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var req bytes.Buffer
	fmt.Fprintf(&req, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", method, path)
	_ = header.Write(&req)
	req.WriteString("\r\n")
	if _, err := c.Write(req.Bytes()); err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(all)), &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// TestServeWhileRemoved removes an image during its transfer.
func TestServeWhileRemoved(t *testing.T) {
	s := newStore(t, nil)
	data := content("rootfs", 8<<20) // more than the sockets hold
	d := stored(t, s, data)
	srv := httptest.NewServer(s.Handler(nil))
	defer srv.Close()
	resp, err := http.Get(srv.URL + assets.Prefix + d + "/rootfs")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	head := make([]byte, 1000)
	if _, err := io.ReadFull(resp.Body, head); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Collect(); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(resp.Body)
	if err != nil || digest(append(head, rest...)) != d {
		t.Errorf("after %d bytes: %v", len(rest), err)
	}
}

// TestServedOfBrokenTransfer has a client that goes away.
func TestServedOfBrokenTransfer(t *testing.T) {
	s := newStore(t, nil)
	d := stored(t, s, content("rootfs", 64<<20))
	done := make(chan assets.Transfer, 1)
	srv := httptest.NewServer(s.Handler(func(_ *http.Request, tr assets.Transfer) { done <- tr }))
	defer srv.Close()
	c, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "GET %s%s/rootfs HTTP/1.1\r\nHost: x\r\n\r\n", assets.Prefix, d)
	if _, err := io.ReadFull(c, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	c.Close()
	tr := <-done
	if tr.Complete || tr.Bytes >= tr.Size || tr.Took <= 0 || tr.Took > time.Minute {
		t.Errorf("%+v", tr)
	}
}

// readerFrom is net/http's ResponseWriter as far as sendfile goes: it records
// what it was asked to read from.
type readerFrom struct {
	*httptest.ResponseRecorder
	from []io.Reader
}

func (w *readerFrom) ReadFrom(r io.Reader) (int64, error) {
	w.from = append(w.from, r)
	return io.Copy(struct{ io.Writer }{w.ResponseRecorder}, r)
}

// TestServeKeepsSendfile shows that the counting writer hands the file itself to
// the ResponseWriter: *net.TCPConn uses sendfile for an *os.File, alone or
// within an *io.LimitedReader, and for nothing else.
func TestServeKeepsSendfile(t *testing.T) {
	s := newStore(t, nil)
	data := content("rootfs", 1<<20)
	d := stored(t, s, data)
	for name, hook := range map[string]func(*http.Request, assets.Transfer){
		"without hook": nil,
		"with hook":    func(*http.Request, assets.Transfer) {},
	} {
		t.Run(name, func(t *testing.T) {
			w := &readerFrom{ResponseRecorder: httptest.NewRecorder()}
			s.Handler(hook).ServeHTTP(w, httptest.NewRequest("GET", assets.Prefix+d+"/rootfs", nil))
			if !bytes.Equal(w.Body.Bytes(), data) {
				t.Error("other contents")
			}
			if len(w.from) != 1 {
				t.Fatalf("ReadFrom was called %d times", len(w.from))
			}
			l, ok := w.from[0].(*io.LimitedReader)
			if !ok {
				t.Fatalf("ReadFrom got a %T", w.from[0])
			}
			if _, ok := l.R.(*os.File); !ok {
				t.Errorf("ReadFrom got a limited %T", l.R)
			}
		})
	}
}

// hidden is what a careless wrapper does: ReadFrom is lost.
type hidden struct{ http.ResponseWriter }

// BenchmarkServe shows what it costs the server to send 1 GB: the client is
// another process. On the loopback interface the rate says little.
func BenchmarkServe(b *testing.B) {
	s := newStore(b, nil)
	data := content("rootfs", 64<<20)
	d := stored(b, s, data)
	h := s.Handler(func(*http.Request, assets.Transfer) {})
	for _, bb := range []struct {
		name string
		h    http.Handler
	}{
		{"handler", h},
		{"http.ServeFile", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.ServeFile(w, r, filepath.Join(s.Dir(), "sha256", d))
		})},
		{"ReadFrom hidden", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(hidden{w}, r)
		})},
	} {
		b.Run(bb.name, func(b *testing.B) {
			srv := httptest.NewServer(bb.h)
			defer srv.Close()
			get := startClient(b, srv.URL+assets.Prefix+d+"/rootfs", len(data))
			b.SetBytes(int64(len(data)))
			start := cpuTime(b)
			for b.Loop() {
				get()
			}
			ms := float64((cpuTime(b) - start).Microseconds()) / 1000
			b.ReportMetric(ms/(float64(b.N)*float64(len(data))/1e9), "cpu-ms/GB")
		})
	}
}

// startClient starts a process that downloads url each time the returned
// function is called.
func startClient(b *testing.B, url string, size int) func() {
	b.Helper()
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(exe) // ended by the end of its input
	cmd.Env = append(os.Environ(), "BOOTD_TEST_GET="+url)
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	})
	lines := bufio.NewReader(out)
	return func() {
		fmt.Fprintln(in)
		line, err := lines.ReadString('\n')
		if err != nil || line != fmt.Sprintln(size) {
			b.Fatalf("the client says %q, %v", line, err)
		}
	}
}

// client is that process: it downloads url for each line it reads.
func client(url string) error {
	for sc := bufio.NewScanner(os.Stdin); sc.Scan(); {
		resp, err := http.Get(url)
		if err != nil {
			return err
		}
		n, err := io.Copy(io.Discard, resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil {
			return err
		}
		fmt.Println(n)
	}
	return nil
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
