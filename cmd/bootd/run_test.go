package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"bootd/boot"
	"bootd/boot/ipxe"
	"bootd/internal/config"
	"bootd/internal/override"
	"bootd/internal/store"
)

var silent = slog.New(slog.NewTextHandler(io.Discard, nil))

// A part is a service made of a function.
type part struct {
	name string
	run  func(context.Context) error
}

func (p part) String() string                { return p.name }
func (p part) Run(ctx context.Context) error { return p.run(ctx) }

func TestRecordEndsAfterAllThatAddToIt(t *testing.T) {
	for _, c := range []struct {
		name  string
		fails error
	}{{"interrupted", nil}, {"a part fails", errors.New("no more disk")}} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			events := make(chan string, 1)
			var recorded []string
			record := part{"record", func(ctx context.Context) error {
				<-ctx.Done()
				select {
				case e := <-events:
					recorded = append(recorded, e)
				default:
				}
				return nil
			}}
			slow := part{"slow", func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(20 * time.Millisecond) // drains its connections
				events <- "the last one"
				return nil
			}}
			other := part{"other", func(ctx context.Context) error {
				if c.fails == nil {
					cancel()
				}
				return c.fails
			}}
			err := runAll(ctx, silent, record, []service{slow, other})
			if !errors.Is(err, c.fails) {
				t.Errorf("error %v, want %v", err, c.fails)
			}
			if !slices.Equal(recorded, []string{"the last one"}) {
				t.Errorf("recorded %q", recorded)
			}
		})
	}
}

// site writes a configuration and reads it.
func site(t *testing.T, files map[string]string) *config.Config {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, files)
	cfg, err := config.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestSegments(t *testing.T) {
	free, busy := freePort(t), freePort(t)
	taken, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(busy)))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	const here = "  - {name: here, interface: lo, subnet: 127.0.0.0/8, server: 127.0.0.1, mode: 'off'}\n"
	const gone = "  - {name: gone, interface: eth77, subnet: 10.9.0.0/24, mode: 'off'}\n"
	for _, c := range []struct {
		name, networks string
		port           int
		want           string // part of the error
	}{
		{"one of two is there", here + gone, free, ""},
		{"none is there", gone, free, "network gone cannot be served"},
		{"port in use", here + gone, busy, "address already in use"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := segmentsOf(t, c.networks, c.port)
			err := s.listen()
			defer s.close()
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want %q", err, c.want)
			}
			if err != nil && len(s.open) != 0 {
				t.Errorf("%d addresses are still bound", len(s.open))
			}
		})
	}
}

// A server that fails is started again; that it failed stops nothing else.
func TestSegmentComesBack(t *testing.T) {
	s := segmentsOf(t, "  - {name: here, interface: lo, subnet: 127.0.0.0/8, server: 127.0.0.1, mode: 'off'}\n", freePort(t))
	if err := s.listen(); err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddr("127.0.0.1")
	s.open[addr].parts = append(s.open[addr].parts, part{"broken", func(context.Context) error { return errors.New("its interface is gone") }})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	eventuallyTrue(t, func() bool {
		s.reload()
		s.mu.Lock()
		defer s.mu.Unlock()
		seg := s.open[addr]
		return seg != nil && seg.cancel != nil && len(seg.parts) == 2
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func segmentsOf(t *testing.T, networks string, port int) *segments {
	t.Helper()
	state := t.TempDir()
	cfg := site(t, map[string]string{"bootd.yaml": "state_dir: " + state + "\nnetworks:\n" + networks})
	cfg.HTTPPort, cfg.TFTPPort = port, port
	return newSegments(cfg, liveOf(t, cfg), ipxe.New(ipxe.Config{Log: slog.New(slog.DiscardHandler)}), func(boot.Event) {}, silent)
}

// liveOf is what a server with a configuration goes by.
func liveOf(t *testing.T, cfg *config.Config) *live {
	t.Helper()
	images, err := openAssets(cfg)
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), store.Options{Dir: filepath.Join(cfg.StateDir, "store"), Log: silent})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	overrides, err := override.Load(t.Context(), db, silent)
	if err != nil {
		t.Fatal(err)
	}
	l, err := newLive(cfg, images, overrides, silent)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// An image for a processor that nobody thought of is looked for when the first
// machine asks for it.
func TestWishes(t *testing.T) {
	state, lab := t.TempDir(), t.TempDir()
	for _, f := range []string{"vmlinuz", "initrd.img"} {
		if err := os.WriteFile(filepath.Join(lab, f), kernelFor("x86_64"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cfg := site(t, map[string]string{
		"bootd.yaml":           "state_dir: " + state + "\nnetworks:\n  - {interface: eth0, subnet: 10.9.0.0/24}\nimages:\n  lab: {path: " + lab + ", family: linux}\n",
		"profiles/worker.yaml": "name: worker\nimage: fedora-coreos/stable\n",
		"profiles/lab.yaml":    "name: lab\nimage: lab\n",
	})
	l := liveOf(t, cfg)
	for _, name := range []string{"fedora-coreos/stable", "lab", "nobody/names-it"} {
		if _, ok := l.image(name, "aarch64"); ok {
			t.Errorf("image %s is there", name)
		}
	}
	want := []wish{{"lab", ""}, {"fedora-coreos/stable", ""}, {"fedora-coreos/stable", "aarch64"}}
	if got := l.wishes(); !slices.Equal(got, want) {
		t.Errorf("wishes %v, want %v", got, want)
	}
}
