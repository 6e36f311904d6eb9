package lab_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// BenchmarkHTTPPeers has so many clients fetch an image of 200 MB at once.
func BenchmarkHTTPPeers(b *testing.B) {
	const size = 200 << 20
	rootfs := strings.Repeat("image of a system ", size/18+1)[:size]
	kernel := make([]byte, 0x400)
	copy(kernel[0x202:], "HdrS") // as much of one as is looked at
	for _, clients := range []int{1, 16} {
		for _, name := range []string{"bootd", "nginx"} {
			b.Run(fmt.Sprintf("clients=%d/server=%s", clients, name), func(b *testing.B) {
				for _, program := range []string{name, "curl"} {
					if _, err := exec.LookPath(program); err != nil && program != "bootd" {
						b.Skipf("%s is not installed", program)
					}
				}
				r := newRoom(b)
				put(b, filepath.Join(r.dir, "image/lab-1-live-kernel.x86_64"), string(kernel))
				put(b, filepath.Join(r.dir, "image/lab-1-live-initramfs.x86_64.img"), "initramfs")
				put(b, filepath.Join(r.dir, "image/lab-1-live-rootfs.x86_64.img"), rootfs)
				var stop func()
				url := "http://" + roomServer + "/lab-1-live-rootfs.x86_64.img"
				switch name {
				case "bootd":
					put(b, filepath.Join(r.dir, "profiles/p.yaml"), "name: p\nimage: lab\n")
					stop = r.bootd(b, r.dir, "images: {lab: {path: image}}\n")
					url = fmt.Sprintf("http://%s/assets/sha256/%x/lab-1-live-rootfs.x86_64.img", roomServer, sha256.Sum256([]byte(rootfs)))
				case "nginx":
					conf := filepath.Join(r.dir, "nginx.conf")
					put(b, conf, "daemon off;\nuser root;\npid "+r.dir+"/pid;\nerror_log stderr;\nevents {}\n"+
						"http { sendfile on; access_log off; server { listen "+roomServer+":80; root "+r.dir+"/image; } }\n")
					stop = r.start(b, nil, "nginx", "-c", conf, "-p", r.dir)
				}
				defer stop()
				get := func(more ...string) error {
					args := append([]string{"netns", "exec", r.clients, "curl", "--noproxy", "*", "--silent", "--show-error", "--fail", "--output", os.DevNull, url}, more...)
					if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
						return fmt.Errorf("%w: %s", err, out)
					}
					return nil
				}
				if err := get("--retry", "30", "--retry-delay", "1", "--retry-all-errors"); err != nil {
					b.Fatal(err)
				}
				var wg sync.WaitGroup
				failed := make([]error, clients)
				b.ResetTimer()
				for i := range clients {
					wg.Go(func() { failed[i] = get() })
				}
				wg.Wait()
				b.StopTimer()
				for _, err := range failed {
					if err != nil {
						b.Error(err)
					}
				}
				b.ReportMetric(0, "ns/op") // means nothing here
				b.ReportMetric(float64(clients*size)/1e6/b.Elapsed().Seconds(), "MB/s")
			})
		}
	}
}
