package vmdk_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"bootd/internal/esx/vmdk"
)

// content is a disk with holes and grains that do and do not compress.
func content(seed uint64, size int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, size)
	for at := 0; at < size; at += 64 << 10 {
		end := min(size, at+64<<10)
		switch r.IntN(4) {
		case 0:
			for i := at; i < end; i++ {
				b[i] = byte(r.Uint32())
			}
		case 1:
			copy(b[at:end], "something short")
		}
	}
	return b
}

func stream(t interface{ Fatal(...any) }, raw []byte) []byte {
	var out bytes.Buffer
	if err := vmdk.WriteStream(&out, bytes.NewReader(raw), int64(len(raw)), "lsilogic"); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestThereAndBack writes disks of any size and reads them again, in both forms.
func TestThereAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sectors := rapid.IntRange(1, 600).Draw(t, "sectors")
		thereAndBack(t, content(rapid.Uint64().Draw(t, "seed"), 512*sectors))
	})
	// Around the end of a grain table, which is 32 MiB.
	for _, sectors := range []int{128*512 - 1, 128 * 512, 128*512 + 1} {
		raw := make([]byte, 512*sectors)
		copy(raw[20<<20:], content(1, 300<<10))
		copy(raw[len(raw)-8:], "the end.")
		thereAndBack(t, raw)
	}
}

func thereAndBack(t interface {
	Fatal(...any)
	Fatalf(string, ...any)
}, raw []byte) {
	packed := stream(t, raw)
	d, err := vmdk.Open(bytes.NewReader(packed), int64(len(packed)))
	if err != nil {
		t.Fatal(err)
	}
	if d.Capacity != int64(len(raw)) || d.Type != "streamOptimized" || d.Adapter != "lsilogic" {
		t.Fatalf("%d bytes of %s for %s", d.Capacity, d.Type, d.Adapter)
	}
	same(t, d, raw)
	s, err := d.Sparse()
	if err != nil {
		t.Fatal(err)
	}
	var sparse bytes.Buffer
	if err := s.Write(&sparse, "upload.vmdk"); err != nil {
		t.Fatal(err)
	}
	if int64(sparse.Len()) != s.Size {
		t.Fatalf("%d bytes were written, %d were announced", sparse.Len(), s.Size)
	}
	if d, err = vmdk.Open(bytes.NewReader(sparse.Bytes()), s.Size); err != nil {
		t.Fatal(err)
	}
	if d.Type != "monolithicSparse" {
		t.Fatalf("it is %s", d.Type)
	}
	same(t, d, raw)
}

func same(t interface{ Fatal(...any) }, d *vmdk.Disk, raw []byte) {
	var out bytes.Buffer
	if err := d.WriteRaw(&out); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), raw) {
		t.Fatal("the content is another")
	}
}

func TestWrongFiles(t *testing.T) {
	good := stream(t, content(7, 3<<20))
	change := func(f func([]byte) []byte) []byte { return f(bytes.Clone(good)) }
	for name, c := range map[string]struct {
		file []byte
		want string
	}{
		"empty":   {nil, "cannot read the disk: it is no VMDK"},
		"text":    {bytes.Repeat([]byte("not a disk\n"), 100), "cannot read the disk: it is no VMDK"},
		"cut off": {good[:len(good)/2], "cannot read the disk: it has no footer; was it cut off?"},
		"other type": {change(func(b []byte) []byte {
			return bytes.Replace(b, []byte("streamOptimized"), []byte("twoGbMaxExtents"), 1)
		}), `cannot read the disk: it is of type "twoGbMaxExtents"; streamOptimized and monolithicSparse can be read`},
		"delta": {change(func(b []byte) []byte {
			return bytes.Replace(b, []byte("parentCID=ffffffff"), []byte("parentCID=12345678"), 1)
		}), "cannot read the disk: it is a difference to another disk, not a whole one"},
		"huge":         {change(func(b []byte) []byte { copy(b[len(b)-1024+12:], "\xff\xff\xff\xff\xff\xff"); return b }), "cannot read the disk: its capacity of 281474976710655 sectors is not from 1 to 62 TiB"},
		"odd grains":   {change(func(b []byte) []byte { b[len(b)-1024+20] = 100; return b }), "cannot read the disk: its grains have 100 sectors"},
		"no directory": {change(func(b []byte) []byte { copy(b[len(b)-1024+56:], "\xff\xff\xff\xff"); return b }), "cannot read the disk: its grain directory is beyond its end; was it cut off?"},
	} {
		_, err := vmdk.Open(bytes.NewReader(c.file), int64(len(c.file)))
		if err == nil || err.Error() != c.want {
			t.Errorf("%s:\n got %v\nwant %s", name, err, c.want)
		}
		if (name == "empty" || name == "text") != errors.Is(err, vmdk.ErrNotVMDK) {
			t.Errorf("%s: ErrNotVMDK", name)
		}
	}
}

// TestDamageIsFound changes a byte of what is compressed.
func TestDamageIsFound(t *testing.T) {
	raw := make([]byte, 64<<10)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range raw {
		raw[i] = byte(r.IntN(16))
	}
	file := stream(t, raw)
	file[64<<10+200] ^= 0x40
	d, err := vmdk.Open(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Check(); err == nil || !strings.Contains(err.Error(), "grain 0") {
		t.Errorf("a changed byte in grain 0: %v", err)
	}
}

func TestShortInput(t *testing.T) {
	if err := vmdk.WriteStream(&bytes.Buffer{}, strings.NewReader("short"), 1<<20, ""); err == nil {
		t.Error("a disk of 1 MiB was written from 5 bytes")
	}
}

// FuzzOpen gives any bytes: they are read or refused, within bounds.
func FuzzOpen(f *testing.F) {
	small := stream(f, content(3, 200<<10))
	f.Add(small)
	d, err := vmdk.Open(bytes.NewReader(small), int64(len(small)))
	if err != nil {
		f.Fatal(err)
	}
	s, err := d.Sparse()
	if err != nil {
		f.Fatal(err)
	}
	var sparse bytes.Buffer
	if err := s.Write(&sparse, "x"); err != nil {
		f.Fatal(err)
	}
	f.Add(sparse.Bytes()[:70<<10])
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := vmdk.Open(bytes.NewReader(b), int64(len(b)))
		if err != nil || d.Capacity > 1<<20 {
			return
		}
		checked := d.Check()
		s, err := d.Sparse()
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := s.Write(&out, "x"); err == nil && int64(out.Len()) != s.Size {
			t.Fatalf("%d bytes were written, %d were announced", out.Len(), s.Size)
		} else if (err == nil) != (checked == nil) {
			t.Fatalf("reading it says %v, converting it %v", checked, err)
		}
	})
}
