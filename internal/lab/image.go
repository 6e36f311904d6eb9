package lab

import (
	"bufio"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed all:image
var recipe embed.FS

// An ImageOptions says where a live image goes.
type ImageOptions struct {
	// Dir is the directory of the finished image and of nothing else. Beside
	// it, Dir.build, Dir.log and Dir.lock are used.
	Dir string
	// Rebuild builds even if the image is there and current.
	Rebuild bool
	// Progress is told of each step; nil tells nobody.
	Progress func(string)
}

// An Image is a built live image.
type Image struct {
	Version string            `json:"version"`
	Recipe  string            `json:"recipe"`   // digest of the recipe
	Built   time.Time         `json:"built"`    //
	Package map[string]string `json:"packages"` // versions that it depends on, as apt knew them
	Kernel  string            `json:"kernel"`   // file names
	Initrd  string            `json:"initramfs"`
	RootFS  string            `json:"rootfs"`
}

// manifest is written last, so a directory that has it has a whole image.
const manifest = "image.json"

// watched are the packages whose new versions are worth a new image.
var watched = []string{"linux-image-cloud-amd64", "linux-image-virtual", "docker.io", "ignition"}

// ReadImage describes the image in a directory.
func ReadImage(dir string) (Image, error) {
	var i Image
	b, err := os.ReadFile(filepath.Join(dir, manifest))
	if err == nil {
		err = json.Unmarshal(b, &i)
	}
	if err != nil {
		return Image{}, fmt.Errorf("cannot find a live image in %s: %w", dir, err)
	}
	return i, nil
}

// BuildImage builds the lab's live image from packages of the host's own
// distribution, which takes minutes, unless the one in the directory is what
// would be built. The directory is replaced in one step; whoever reads it sees
// either image whole. It needs root and the tools in [Requirements].
func BuildImage(ctx context.Context, o ImageOptions) (Image, error) {
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	if os.Geteuid() != 0 {
		return Image{}, errors.New("cannot build the live image: it needs root, to unpack packages")
	}
	osr, err := osRelease()
	if err != nil {
		return Image{}, err
	}
	want := Image{Recipe: recipeDigest(osr), Package: candidates(ctx)}
	want.Version = osr["VERSION_ID"] + "." + want.Recipe[:8]
	if err := os.MkdirAll(filepath.Dir(o.Dir), 0o755); err != nil {
		return Image{}, fmt.Errorf("cannot build the live image: %w", err)
	}
	unlock, err := lockFile(o.Dir + ".lock")
	if err != nil {
		return Image{}, err
	}
	defer unlock()
	if have, err := ReadImage(o.Dir); err == nil && !o.Rebuild && have.current(want) {
		return have, nil
	}
	build := o.Dir + ".build"
	unmountBelow(build)
	if err := os.RemoveAll(build); err != nil { // left by a crash
		return Image{}, fmt.Errorf("cannot build the live image: %w", err)
	}
	defer os.RemoveAll(build)
	if err := want.build(ctx, build, osr, o); err != nil {
		return Image{}, err
	}
	if err := replaceDir(filepath.Join(build, "out"), o.Dir); err != nil {
		return Image{}, fmt.Errorf("cannot put the live image in place: %w", err)
	}
	return want, nil
}

// current reports whether have is what a build would give. Where apt knows no
// versions, the recipe decides alone.
func (have Image) current(want Image) bool {
	if have.Recipe != want.Recipe {
		return false
	}
	for p, v := range want.Package {
		if have.Package[p] != v {
			return false
		}
	}
	return true
}

func (i *Image) build(ctx context.Context, dir string, osr map[string]string, o ImageOptions) error {
	for _, d := range []string{"work", "out"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return fmt.Errorf("cannot build the live image: %w", err)
		}
	}
	if err := os.CopyFS(filepath.Join(dir, "recipe"), recipe); err != nil {
		return fmt.Errorf("cannot build the live image: %w", err)
	}
	log, err := os.Create(o.Dir + ".log")
	if err != nil {
		return fmt.Errorf("cannot build the live image: %w", err)
	}
	defer log.Close()
	name := "bootd-lab-" + i.Version
	at := filepath.Join(dir, "recipe", "image")
	cmd := exec.CommandContext(ctx, "bash", filepath.Join(at, "build.sh"))
	cmd.Env = append(os.Environ(), "RECIPE="+at, "WORK="+filepath.Join(dir, "work"), "OUT="+filepath.Join(dir, "out"),
		"NAME="+name, "ID="+osr["ID"], "SUITE="+osr["VERSION_CODENAME"])
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("cannot build the live image: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot build the live image: %w", err)
	}
	steps := bufio.NewScanner(io.TeeReader(out, log))
	for steps.Scan() {
		if s, ok := strings.CutPrefix(steps.Text(), "== "); ok {
			o.Progress(s)
		}
	}
	if err := errors.Join(steps.Err(), cmd.Wait()); err != nil {
		return fmt.Errorf("cannot build the live image: %w: %s (log: %s)", err, lastLine(log.Name()), log.Name())
	}
	i.Built = time.Now().UTC()
	i.Kernel, i.Initrd, i.RootFS = name+"-live-kernel.x86_64", name+"-live-initramfs.x86_64.img", name+"-live-rootfs.x86_64.img"
	b, err := json.MarshalIndent(i, "", "  ")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "out", manifest), append(b, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("cannot describe the live image: %w", err)
	}
	return nil
}

// replaceDir puts from in the place of to, in one step.
func replaceDir(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_EXCHANGE)
	if errors.Is(err, fs.ErrNotExist) {
		return os.Rename(from, to)
	}
	return err // what was there before is removed with the build directory
}

// recipeDigest covers everything that decides the image but the packages'
// versions.
func recipeDigest(osr map[string]string) string {
	h := sha256.New()
	fmt.Fprintln(h, osr["ID"], osr["VERSION_CODENAME"])
	_ = fs.WalkDir(recipe, ".", func(p string, d fs.DirEntry, err error) error { // an embedded file system does not fail
		if err == nil && !d.IsDir() {
			b, _ := recipe.ReadFile(p)
			fmt.Fprintln(h, p, len(b))
			h.Write(b)
		}
		return nil
	})
	return hex.EncodeToString(h.Sum(nil))
}

// candidates asks apt for the versions that it would install.
func candidates(ctx context.Context) map[string]string {
	out, err := exec.CommandContext(ctx, "apt-cache", append([]string{"policy"}, watched...)...).Output()
	if err != nil {
		return nil
	}
	return parsePolicy(string(out))
}

// parsePolicy reads apt-cache policy.
func parsePolicy(out string) map[string]string {
	versions := map[string]string{}
	var name string
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, "\n")
		if !strings.HasPrefix(line, " ") {
			name = strings.TrimSuffix(line, ":")
		} else if v, ok := strings.CutPrefix(strings.TrimSpace(line), "Candidate: "); ok && v != "(none)" {
			versions[name] = v
		}
	}
	return versions
}

func osRelease() (map[string]string, error) {
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return nil, fmt.Errorf("cannot tell which distribution this is: %w", err)
	}
	m := parseOSRelease(string(b))
	if m["ID"] != "debian" && m["ID"] != "ubuntu" || m["VERSION_CODENAME"] == "" {
		return nil, fmt.Errorf("cannot build the live image on %q: it is made from Debian or Ubuntu packages", m["PRETTY_NAME"])
	}
	return m, nil
}

// parseOSRelease reads os-release(5).
func parseOSRelease(s string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(s) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(k, "#") {
			m[k] = strings.Trim(v, `"'`)
		}
	}
	return m
}
