package config_test

import (
	"context"
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"bootd/boot"
	"bootd/internal/config"
)

var update = flag.Bool("update", false, "rewrite the expected outputs")

// unpack writes an archive's files into a new directory.
func unpack(t testing.TB, a *txtar.Archive) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range a.Files {
		if f.Name == "expected" {
			continue
		}
		name := filepath.Join(dir, filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestMistakes reads each testdata/mistakes/*.txtar and compares the error with
// the file "expected" in it.
func TestMistakes(t *testing.T) {
	cases, err := filepath.Glob("testdata/mistakes/*.txtar")
	if err != nil || len(cases) == 0 {
		t.Fatal("no cases", err)
	}
	for _, name := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			dir := unpack(t, a)
			_, err = config.Load(dir)
			if err == nil {
				t.Fatal("no mistake was found")
			}
			got := strings.ReplaceAll(err.Error(), dir, "DIR") + "\n"
			for i := range a.Files {
				f := &a.Files[i]
				if f.Name != "expected" {
					continue
				}
				if *update {
					f.Data = []byte(got)
					if err := os.WriteFile(name, txtar.Format(a), 0o644); err != nil {
						t.Fatal(err)
					}
				} else if diff := cmp.Diff(string(f.Data), got); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

func TestLoad(t *testing.T) {
	a, err := txtar.ParseFile("testdata/whole.txtar")
	if err != nil {
		t.Fatal(err)
	}
	dir := unpack(t, a)
	c, err := config.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if c.StateDir != "/srv/bootd" || c.Loaders != filepath.Join(dir, "loaders") || c.HTTPPort != 8080 || c.TFTPPort != 69 {
		t.Errorf("server settings: %+v", c)
	}
	n := c.Catalog.Networks[0]
	if n.Name != "rack" || n.LeaseTime != 12*time.Hour || n.FirmwareLeaseTime != 5*time.Minute || len(n.Ranges) != 2 || n.Mode != boot.Authoritative {
		t.Errorf("network: %+v", n)
	}
	got, err := c.Catalog.Assign(boot.Inventory{MAC: boot.MAC{0x52, 0x54, 0, 0, 0, 1}, Addr: netip.MustParseAddr("10.0.0.11")})
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, v := range got.Explain() {
		text.WriteString(v.Key + " = " + v.Value + "   # " + v.Origin.String() + "\n")
	}
	want := &a.Files[len(a.Files)-1]
	if *update {
		want.Data = []byte(text.String())
		if err := os.WriteFile("testdata/whole.txtar", txtar.Format(a), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(want.Data), text.String()); diff != "" {
		t.Error(diff)
	}
	// The fragment's place lets a mistake in it be shown where it was written.
	f := got.Profile.Butane[0]
	lines := strings.Split(string(a.Files[1].Data), "\n")
	if at := lines[f.Origin.Line-1][f.Origin.Column-1:]; !strings.HasPrefix(f.Text, at+"\n") {
		t.Errorf("the fragment is placed at %s, %q, but begins %q", f.Origin, at, f.Text)
	}
}

func TestWatch(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		// As editors do: a new file, renamed over the old one.
		if err := os.WriteFile(path+"~", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+"~", path); err != nil {
			t.Fatal(err)
		}
	}
	write("bootd.yaml", "networks: []\n")
	c, err := config.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	write("bootd.yaml", "networks: []\nhttp: {port: 81}\n") // between reading and watching

	type change struct {
		c   *config.Config
		err error
	}
	changes := make(chan change, 10)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- config.Watch(ctx, c, func(c *config.Config, err error) { changes <- change{c, err} }) }()
	next := func() change {
		t.Helper()
		select {
		case c := <-changes:
			return c
		case <-time.After(10 * time.Second):
			t.Fatal("the change was not seen")
			return change{}
		}
	}
	if got := next(); got.err != nil || got.c.HTTPPort != 81 {
		t.Fatalf("a change before watching: %+v, %v", got.c, got.err)
	}
	write("profiles/a.yaml", "name: a\n") // the folder is new
	if got := next(); got.err != nil || got.c.Catalog.Profiles["a"] == nil {
		t.Fatalf("new folder: %v", got.err)
	}
	write("profiles/a.yaml", "name: a\nimagee: x\n")
	var mistakes config.Mistakes
	if got := next(); !errors.As(got.err, &mistakes) || mistakes[0].Origin.Line != 2 {
		t.Fatalf("a mistake: %v", got.err)
	}
	write("bootd.yaml", "networks: []\nhttp: {port: 81}\n") // the same bytes: no change
	write("profiles/a.yaml", "name: b\n")
	if got := next(); got.err != nil || got.c.Catalog.Profiles["b"] == nil {
		t.Fatalf("mended: %v", got.err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// FuzzLoad: whatever is in the files, there is a configuration, or at least one
// mistake, and each mistake points into a file that exists.
func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"testdata/*.txtar", "testdata/mistakes/*.txtar"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, name := range names {
			a, err := txtar.ParseFile(name)
			if err != nil {
				f.Fatal(err)
			}
			var files [3]string
			for _, x := range a.Files {
				switch filepath.ToSlash(filepath.Dir(x.Name)) {
				case "profiles":
					files[1] += string(x.Data)
				case "machines":
					files[2] += string(x.Data)
				case ".":
					if x.Name == "bootd.yaml" {
						files[0] = string(x.Data)
					}
				}
			}
			f.Add(files[0], files[1], files[2])
		}
	}
	f.Fuzz(func(t *testing.T, server, profile, machine string) {
		c, err := config.LoadFiles(map[string]string{"bootd.yaml": server, "profiles/p.yaml": profile, "machines/m.yaml": machine})
		if err == nil {
			if c == nil || c.Catalog == nil {
				t.Fatal("neither a configuration nor a mistake")
			}
			return
		}
		var mistakes config.Mistakes
		if !errors.As(err, &mistakes) || len(mistakes) == 0 {
			t.Fatalf("not mistakes: %v", err)
		}
		for _, m := range mistakes {
			text, ok := map[string]string{"bootd.yaml": server, "profiles/p.yaml": profile, "machines/m.yaml": machine}[m.Origin.File]
			if !ok || m.Origin.Line < 1 || m.Origin.Column < 1 || m.Origin.Line > strings.Count(text, "\n")+1 || m.Message == "" || strings.Contains(m.Message, "cannot be understood") {
				t.Fatalf("%+v points nowhere", m)
			}
		}
	})
}

// TestWatchReplaced: the directory may be a link that is turned over to another
// release, and may be gone for a while.
func TestWatchReplaced(t *testing.T) {
	top := t.TempDir()
	write := func(release, port string) {
		t.Helper()
		dir := filepath.Join(top, release)
		if err := os.MkdirAll(filepath.Join(dir, "profiles"), 0o755); err != nil {
			t.Fatal(err)
		}
		temp := filepath.Join(top, "temp")
		if err := os.WriteFile(temp, []byte("http: {port: "+port+"}\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(temp, filepath.Join(dir, "bootd.yaml")); err != nil {
			t.Fatal(err)
		}
	}
	turn := func(release string) { // as ln -sfn does not, but careful tools do
		t.Helper()
		next := filepath.Join(top, "next")
		if err := os.Symlink(release, next); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, filepath.Join(top, "current")); err != nil {
			t.Fatal(err)
		}
	}
	write("v1", "81")
	write("v2", "82")
	turn("v1")
	c, err := config.Load(filepath.Join(top, "current"))
	if err != nil {
		t.Fatal(err)
	}
	ports := make(chan int, 10) // 0: mistakes
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- config.Watch(ctx, c, func(c *config.Config, err error) {
			if err != nil {
				ports <- 0
				return
			}
			ports <- c.HTTPPort
		})
	}()
	expect := func(want int) {
		t.Helper()
		select {
		case got := <-ports:
			if got != want {
				t.Fatalf("port %d, want %d", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("the change to port %d was not seen", want)
		}
	}
	write("v1", "83") // a first change shows that watching has begun
	expect(83)
	turn("v2")
	expect(82)
	write("v2", "84")
	expect(84)
	write("v1", "85") // nobody's business any more
	if err := os.RemoveAll(filepath.Join(top, "v2")); err != nil {
		t.Fatal(err)
	}
	expect(0)
	write("v2", "86")
	turn("v2")
	expect(86)
	write("v2", "87")
	expect(87)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if len(ports) > 0 {
		t.Errorf("a change too many: port %d", <-ports)
	}
}

func TestWatchNothing(t *testing.T) {
	if err := config.Watch(t.Context(), &config.Config{Dir: filepath.Join(t.TempDir(), "none")}, nil); err == nil || !strings.Contains(err.Error(), "cannot watch") {
		t.Errorf("err = %v", err)
	}
}

func TestController(t *testing.T) {
	for _, c := range []struct {
		text string
		want *config.Controller
	}{
		{"networks: []", nil},
		{"controller: {}", &config.Controller{}},
		{`controller: {listen: "[::1]:0", auth: none, flavors: strict}`, &config.Controller{Listen: "[::1]:0"}},
		{`controller: {listen: "0.0.0.0:443", auth: none, names: [bootd, 10.0.0.1], flavors: old}`,
			&config.Controller{Listen: "0.0.0.0:443", Names: []string{"bootd", "10.0.0.1"}, OldFlavors: true}},
		{`controller: {clusters: {swarm: {etcd: a}, mesos: {marathon: a}}}`,
			&config.Controller{Profiles: map[string]string{"swarm/etcd": "a", "mesos/marathon": "a"}}},
	} {
		got, err := config.LoadFiles(map[string]string{"bootd.yaml": c.text, "profiles/a.yaml": "name: a"})
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if !got.Controller.Equal(c.want) {
			t.Errorf("%s: %+v, want %+v", c.text, got.Controller, c.want)
		}
	}
}
