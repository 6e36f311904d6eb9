package doctor

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// A Clock is what the kernel knows of its clock.
type Clock struct {
	Now    time.Time
	Synced bool          // somebody keeps it right
	Error  time.Duration // at most, by who keeps it
	Built  time.Time     // when the program was built, or earlier; zero: unknown
}

// ReadClock asks the kernel (adjtimex(2)). built is a time that has certainly
// passed; zero: there is none.
func ReadClock(built time.Time) (Clock, error) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return Clock{}, fmt.Errorf("cannot ask the kernel for its clock: %w", err)
	}
	return Clock{Now: time.Now(), Synced: state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0,
		Error: time.Duration(t.Maxerror) * time.Microsecond, Built: built}, nil
}

// Finding judges the clock. Leases, tickets and certificates go by it.
func (c Clock) Finding() Finding {
	f := Finding{Check: "clock", Level: OK, Text: c.Now.UTC().Format("2006-01-02 15:04:05 UTC") + ", kept right"}
	switch {
	case c.Now.Before(c.Built):
		f.Level, f.Text = Fault, fmt.Sprintf("it is %s here, and bootd was made in %s", c.Now.UTC().Format(time.DateOnly), c.Built.UTC().Format(time.DateOnly))
		f.Remedy = "set it: timedatectl set-ntp true, or date --set"
	case !c.Synced:
		f.Level, f.Text = Warning, "nobody keeps the clock right, and certificates of image servers and of engines go by it"
		f.Remedy = "timedatectl set-ntp true, or install chrony"
	}
	return f
}
