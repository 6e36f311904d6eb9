package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/sys/unix"
)

// terminal reports whether w is one, and how many columns it has.
func terminal(w io.Writer) (columns int, ok bool) {
	f, ok := w.(*os.File)
	if !ok {
		return 80, false
	}
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 80, false
	}
	if ws.Col == 0 {
		return 80, true
	}
	return int(ws.Col), true
}

// A downloads shows transfers as bars on a terminal, and as a line at the
// beginning and end of each elsewhere. It is an assets.Progress.
type downloads struct {
	out  io.Writer
	bars *mpb.Progress // nil: no terminal

	mu   sync.Mutex
	open map[string]*mpb.Bar
}

func newDownloads(out io.Writer) *downloads {
	d := &downloads{out: out, open: map[string]*mpb.Bar{}}
	if columns, ok := terminal(out); ok {
		d.bars = mpb.New(mpb.WithOutput(out), mpb.WithWidth(max(20, columns/3)), mpb.WithRefreshRate(150*time.Millisecond))
	}
	return d
}

func (d *downloads) Start(name string, n int64) {
	if d.bars == nil {
		fmt.Fprintf(d.out, "%s: %s\n", name, wanted(n))
		return
	}
	bar := d.bars.AddBar(max(n, 0),
		mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR)),
		mpb.AppendDecorators(
			decor.CountersKibiByte("% .1f / % .1f", decor.WCSyncSpace),
			decor.Percentage(decor.WCSyncSpace),
			decor.OnComplete(decor.AverageETA(decor.ET_STYLE_GO, decor.WCSyncSpace), " verified"),
		))
	d.mu.Lock()
	defer d.mu.Unlock()
	if old := d.open[name]; old != nil {
		old.Abort(true)
	}
	d.open[name] = bar
}

func wanted(n int64) string {
	if n < 0 {
		return "fetching, size unknown"
	}
	return "fetching " + size(n)
}

func (d *downloads) Add(name string, n int64) {
	if bar := d.bar(name); bar != nil {
		bar.IncrInt64(n)
	}
}

func (d *downloads) bar(name string) *mpb.Bar {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open[name]
}

func (d *downloads) Retry(name string, err error, wait time.Duration) {
	text := fmt.Sprintf("%s: %v; next try in %s\n", name, err, short(wait))
	if d.bars == nil {
		fmt.Fprint(d.out, text)
		return
	}
	fmt.Fprint(d.bars, text)
}

func (d *downloads) Done(name string) {
	bar := d.bar(name)
	if bar == nil {
		fmt.Fprintf(d.out, "%s: verified\n", name)
		return
	}
	bar.SetTotal(-1, true)
}

// close leaves the bars of what did not finish where they are and gives the
// terminal back.
func (d *downloads) close() {
	if d.bars == nil {
		return
	}
	d.mu.Lock()
	for _, bar := range d.open {
		if !bar.Completed() {
			bar.Abort(false)
		}
	}
	d.mu.Unlock()
	d.bars.Wait()
}

// An upload shows how far a file is sent: as a bar on a terminal, not at all
// elsewhere.
type upload struct {
	bars *mpb.Progress // nil: no terminal
	bar  *mpb.Bar
}

func newUpload(out io.Writer, name string, n int64) *upload {
	columns, ok := terminal(out)
	if !ok {
		return &upload{}
	}
	u := &upload{bars: mpb.New(mpb.WithOutput(out), mpb.WithWidth(max(20, columns/3)), mpb.WithRefreshRate(150*time.Millisecond))}
	u.bar = u.bars.AddBar(n,
		mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR)),
		mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f", decor.WCSyncSpace), decor.Percentage(decor.WCSyncSpace)))
	return u
}

// reader counts what is read from r.
func (u *upload) reader(r io.Reader) io.Reader {
	if u.bar == nil {
		return r
	}
	return u.bar.ProxyReader(r)
}

// close leaves the bar where it is, and gives the terminal back.
func (u *upload) close() {
	if u.bar == nil {
		return
	}
	if !u.bar.Completed() {
		u.bar.Abort(false)
	}
	u.bars.Wait()
}
