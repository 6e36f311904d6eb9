package assets

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bootd/boot"
)

func TestParseBootCfg(t *testing.T) {
	const most = "kernel=b.b00\nmodules=a.gz\n"
	tests := []struct {
		name, text string
		want       bootCfg
		err        string
	}{
		{name: "spaces, case, comments, a foreign line end",
			text: "# c\r\n TITLE =  Loading   it \r\nKernel = /dir/b.b00\r\nmodules= /a.gz  ---  b.v00 opt=1 x --- \r\nunknown=1\r\n",
			want: bootCfg{title: "Loading it", kernel: "dir/b.b00", modules: []cfgModule{{"a.gz", ""}, {"b.v00", "opt=1 x"}}}},
		{name: "the last line holds", text: most + "timeout=5\ntimeout=0\nerrtimeout=-1\ntimeout=\n",
			want: bootCfg{kernel: "b.b00", modules: []cfgModule{{"a.gz", ""}},
				settings: []boot.ESXiSetting{{Key: "timeout", Value: "0"}, {Key: "errtimeout", Value: "-1"}}}},
		{name: "options of a CD", text: most + "kernelopt=cdromBoot runweasel ks=cdrom:/KS.CFG BOOTIF=01-x netDevice=vmnic0 allowLegacyCPU=true\n",
			want: bootCfg{kernel: "b.b00", kernelopt: "runweasel allowLegacyCPU=true", modules: []cfgModule{{"a.gz", ""}}}},
		{name: "no equals sign", text: most + "\nkernel b.b00\n", err: `line 4: "kernel b.b00" has no '='`},
		{name: "no number", text: "timeout=soon\n" + most, err: `line 1: timeout is "soon", not a number`},
		{name: "climbing", text: "kernel=../../etc/passwd\n", err: "line 1: "},
		{name: "a URL", text: "kernel=http://x/b.b00\n", err: "line 1: "},
		{name: "twice", text: "kernel=b\nmodules=a.gz --- x/A.GZ\n", err: "line 2: module x/A.GZ is there twice"},
		{name: "binary", text: "kernel=b\nmodules=a\x00b\n", err: "line 2: "},
		{name: "no modules", text: "kernel=b.b00\nmodules=\n", err: "no line modules= in 2 lines"},
		{name: "nothing", text: "", err: "no line kernel="},
		{name: "tables", text: "acpitables=dsdt.aml\n" + most, err: "line 1: it replaces ACPI tables"},
		{name: "huge", text: strings.Repeat("#", maxBootCfg+1), err: "more than can be"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseBootCfg([]byte(tt.text))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got, cmp.AllowUnexported(bootCfg{}, cfgModule{})); d != "" {
				t.Error(d)
			}
		})
	}
}

// FuzzParseBootCfg: what is taken has plain relative paths, each name once, and
// no value that would become two lines.
func FuzzParseBootCfg(f *testing.F) {
	f.Add([]byte("title=x\nkernel=/b.b00\nkernelopt=runweasel\nmodules=/a.gz --- /b.v00 o=1\ntimeout=5\nbuild=8.0.3-1\n"))
	f.Add([]byte("KERNEL = b\r\nmodules=---a---\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parseBootCfg(text)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, m := range append([]cfgModule{{path: c.kernel}}, c.modules...) {
			if strings.HasPrefix(m.path, "/") || strings.Contains(m.path, "..") || strings.ContainsAny(m.path, " \\:\n") {
				t.Errorf("path %q", m.path)
			}
			if !filePattern.MatchString(m.path[strings.LastIndexByte(m.path, '/')+1:]) {
				t.Errorf("name of %q", m.path)
			}
		}
		for _, m := range c.modules {
			if seen[m.path] {
				t.Errorf("%q twice", m.path)
			}
			seen[m.path] = true
		}
		for _, s := range []string{c.title, c.kernelopt, c.build, c.prefix} {
			if strings.ContainsAny(s, "\n\r\x00") {
				t.Errorf("value %q", s)
			}
		}
	})
}

// FuzzReadISO changes a real image in a few places. Whatever comes out lies
// within the file, in bounded number; nothing panics.
func FuzzReadISO(f *testing.F) {
	base := smallISO()
	f.Add(uint32(16*isoSector+156), []byte{34}, uint32(18*isoSector), []byte{0})
	f.Add(uint32(16*isoSector+158), []byte{0xff, 0xff, 0xff, 0xff}, uint32(80), []byte{1})
	f.Add(uint32(18*isoSector+68), []byte{46, 0, 18, 0, 0, 0}, uint32(18*isoSector+68+25), []byte{2})
	f.Fuzz(func(t *testing.T, at1 uint32, b1 []byte, at2 uint32, b2 []byte) {
		iso := bytes.Clone(base)
		for _, c := range []struct {
			at uint32
			b  []byte
		}{{at1, b1}, {at2, b2}} {
			copy(iso[int(c.at)%len(iso):], c.b)
		}
		v, err := readISO(bytes.NewReader(iso), int64(len(iso)))
		if err != nil {
			return
		}
		if len(v.files) > 2*isoEntries || len(v.seen) > isoDirs {
			t.Errorf("%d files, %d directories", len(v.files), len(v.seen))
		}
		for name, file := range v.files {
			if file.off < 0 || file.size < 0 || file.size > 0 && file.off+file.size > int64(len(iso)) {
				t.Errorf("%q: %+v", name, file)
			}
			if _, err := v.text(file, int64(len(iso))); err != nil {
				t.Errorf("%q cannot be read: %v", name, err)
			}
		}
	})
}

// smallISO is a volume of 20 sectors with one directory and two files.
func smallISO() []byte {
	iso := make([]byte, 20*isoSector)
	record := func(at, block, size int, flags byte, name string) int {
		n := 33 + len(name)
		n += n & 1
		b := iso[at : at+n]
		b[0], b[2], b[10], b[11], b[25], b[32] = byte(n), byte(block), byte(size), byte(size>>8), flags, byte(len(name))
		copy(b[33:], name)
		return at + n
	}
	d := iso[16*isoSector:]
	copy(d, "\x01CD001\x01")
	d[80], d[129] = 20, 8
	record(16*isoSector+156, 18, isoSector, isoIsDir, "\x00")
	copy(iso[17*isoSector:], "\xffCD001\x01")
	at := record(18*isoSector, 18, isoSector, isoIsDir, "\x00")
	at = record(at, 18, isoSector, isoIsDir, "\x01")
	at = record(at, 19, 100, 0, "BOOT.CFG;1")
	record(at, 19, 2000, 0, "B.B00;1")
	return iso
}

func TestReadISOLoops(t *testing.T) {
	iso := smallISO()
	v, err := readISO(bytes.NewReader(iso), int64(len(iso)))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"BOOT.CFG", "B.B00"}, v.names); d != "" {
		t.Error(d)
	}
	// A directory that is in itself is read once.
	at := 18*isoSector + 68
	iso[at+2], iso[at+25] = 18, isoIsDir
	if v, err = readISO(bytes.NewReader(iso), int64(len(iso))); err != nil || len(v.seen) != 1 {
		t.Errorf("%d directories, %v", len(v.seen), err)
	}
}

// TestReadISOMultiExtent reads a file whose records name two runs of bytes, as
// those above 4 GB do.
func TestReadISOMultiExtent(t *testing.T) {
	iso := smallISO()
	at := 18*isoSector + 68
	copy(iso[at:], make([]byte, 200))
	put := func(block int, size int, flags byte) {
		copy(iso[at:], []byte{40, 0, byte(block), 0, 0, 0, 0, 0, 0, 0, byte(size), byte(size >> 8)})
		iso[at+25], iso[at+32] = flags, 6
		copy(iso[at+33:], "BIG.;1")
		at += 40
	}
	put(18, isoSector, isoMore)
	put(19, 5, 0)
	v, err := readISO(bytes.NewReader(iso), int64(len(iso)))
	if err != nil {
		t.Fatal(err)
	}
	if f, ok := v.find("/big"); !ok || f.size != isoSector+5 || f.off != 18*isoSector {
		t.Errorf("%+v %v", f, ok)
	}
}
