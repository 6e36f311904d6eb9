package boot

import "time"

// pause is how long a machine that boots is silent at most, as long as nobody
// answers it: EDK2 tries one way after another, a minute or so each, and a
// machine that waits for an entry asks every ten seconds. A first request after
// a longer silence comes from a machine that was off in between.
const pause = 10 * time.Minute

// Begins reports whether e is the start of a new boot of the machine whose
// latest one is t; t may be nil. A boot begins with the power button, and with
// the first request of a program that does not run again later on in a boot.
// What firmware and iPXE repeat when nobody answers begins nothing, and neither
// does what names its boot.
func (t *Timeline) Begins(e Event) bool {
	switch {
	case e.Boot != "":
		return false
	case t == nil:
		// What a node reports does not begin a boot: its beginning was not seen.
		return Order(e.Stage) >= 0 && Order(e.Stage) <= Order(Ignition) || e.Stage == Waiting
	case e.Stage == Power:
		return t.poweredBefore(e.Time)
	case e.Client != Firmware && e.Client != IPXE && e.Client != GRUB:
		return false // the system renews its lease, the initramfs gets its files
	}
	switch e.Stage {
	case Offered:
		return t.offerBegins(e)
	case Loader:
		// Only its first sign where nothing of its DHCP is seen. Elsewhere it is a
		// file that is fetched later on, or one that is told of late.
		return t.reached(Script) && !t.has(Offered, Firmware) && !t.has(Offered, IPXE)
	case Script, Waiting:
		return t.scriptBegins(e)
	}
	return false
}

// scriptBegins is Begins for a loader that asks for its script.
func (t *Timeline) scriptBegins(e Event) bool {
	switch {
	case t.has(Leased, IPXE) || t.has(Leased, Firmware):
		// Who gets an address from bootd begins with asking for it. A mere
		// request by HTTP can come from the running system.
		return false
	case e.Run != "" && t.Run != "":
		return e.Run != t.Run
	}
	return t.reached(Kernel) || t.has(Leased, System) && !t.reached(Script)
}

// offerBegins is Begins for a DISCOVER of firmware or iPXE.
func (t *Timeline) offerBegins(e Event) bool {
	if t.has(Leased, System) || t.has(Leased, Initramfs) || e.Time.Sub(t.last()) > pause {
		return true
	}
	if e.Client == Firmware {
		return t.reached(Loader) || t.has(Offered, IPXE)
	}
	// iPXE asks again for an address while it waits for its script, and its
	// last script asks without one (see boot/ipxe). QEMU's cards, which begin
	// with iPXE, have no other first sign than this.
	return t.reached(Kernel) || t.reached(Script) && t.Stage() != Waiting
}

// early is how much later than the machine's first packet the press of the
// button may be noted that led to it.
const early = 2 * time.Second

// poweredBefore reports whether t was already under way when the power button
// was pressed at a time. Who pressed it may tell later than the machine does,
// and may tell it twice.
func (t *Timeline) poweredBefore(at time.Time) bool {
	for _, s := range t.Steps {
		switch {
		case s.Stage == Power && !at.After(s.First):
			return false
		case Order(s.Stage) >= Order(Script) && s.First.After(at):
			// The machine has its ticket already, which a new boot would void.
			return false
		}
	}
	return t.has(Power, "") || at.After(t.Started.Add(early))
}

// last is when the machine was last heard of.
func (t *Timeline) last() time.Time {
	last := t.Started
	for _, s := range t.Steps {
		if s.Last.After(last) {
			last = s.Last
		}
	}
	return last
}
