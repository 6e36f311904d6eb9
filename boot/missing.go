package boot

import "time"

// A Missing step is what a boot waits for.
type Missing struct {
	Next     Stage
	Since    time.Time     // since when: the last step that was new
	Patience time.Duration // how long it may take without anything being wrong
	Reason   string        // what is likely wrong if it takes longer, and what helps
	Late     bool          // it has taken longer
}

// Missing says what should happen next in a boot that is not done. It reports
// false when it is done, or when nothing is expected of it.
func (t Timeline) Missing(now time.Time) (Missing, bool) {
	if t.Done() || len(t.Steps) == 0 {
		return Missing{}, false
	}
	m := t.missing()
	if m.Next == "" || Order(t.Expect) >= 0 && Order(m.Next) > Order(t.Expect) {
		return Missing{}, false
	}
	for _, s := range t.Steps {
		if (Order(s.Stage) >= 0 || s.Stage == Waiting) && s.First.After(m.Since) {
			m.Since = s.First
		}
	}
	// What was said to the machine is better than any guess.
	for _, s := range t.Steps {
		switch {
		case s.Text == "" || s.Last.Before(m.Since):
		case s.Stage == Failed, s.Stage == Refused, s.Stage == Waiting:
			m.Reason = string(s.Stage) + ": " + s.Text
		}
	}
	m.Late = now.Sub(m.Since) > m.Patience
	return m, true
}

// missing is what follows the furthest stage.
func (t *Timeline) missing() Missing {
	switch stage := t.Stage(); stage {
	case Power:
		return Missing{Next: Offered, Patience: time.Minute,
			Reason: "nothing has been heard of it: enable network boot in its firmware, before its disks; check its cable and that it is on a network that bootd serves"}
	case Waiting:
		return Missing{Next: Script, Reason: "it has nothing to boot: write an entry for it in machines/*.yaml"}
	case Offered:
		return t.afterOffer()
	case Leased:
		return t.afterLease()
	case Loader:
		return t.afterLoader()
	case Initrd:
		return t.afterInitrd()
	case Ignition:
		if !t.has(Ignition, Initramfs) && !t.hasStage(RootFS) { // as one more initrd
			return t.afterInitrd()
		}
		return afterStage[stage]
	default:
		return afterStage[stage]
	}
}

// afterStage is what follows the stages after which one thing only is expected.
var afterStage = map[Stage]Missing{
	Script: {Next: Kernel, Patience: 30 * time.Second,
		Reason: "it has its script but not its kernel: its console shows what iPXE says to that"},
	Kernel: {Next: Initrd, Patience: time.Minute,
		Reason: "it has its kernel but not its initramfs: its console shows what iPXE says to that; too little memory shows here too"},
	RootFS: {Next: Ignition, Patience: time.Minute,
		Reason: "it has its root file system but asked for no Ignition config: its console shows where the initramfs stands"},
	Ignition: {Next: Up, Patience: 3 * time.Minute,
		Reason: "it has its Ignition config but does not report: either Ignition failed, which its console shows, or the system does not reach bootd by HTTP"},
	Kickstart: {Next: Installed, Patience: 20 * time.Minute,
		Reason: "its installer has its ks.cfg but does not report: its console shows why; a disk that holds a datastore is not overwritten unless that was ordered (bootd machine reinstall) or the profile says so"},
	Installed: {Next: Up, Patience: 10 * time.Minute,
		Reason: "its system is on the disk, but did not report from there: does it boot from the disk that it was installed on, and reach bootd by HTTP? Its console shows where it stands"},
	Up: {Next: Engine, Patience: 2 * time.Minute,
		Reason: "its system is up, but Docker does not answer there: is it in the image and enabled? See `journalctl -u docker` on the node"},
	Engine: {Next: Joined, Patience: time.Minute,
		Reason: "Docker answers but has not joined: the node must reach TCP port 2377 of a manager; see `journalctl -u bootd-swarm` on the node"},
	Joined: {Next: Ready, Patience: time.Minute,
		Reason: "it has joined, but the swarm does not show it as ready: nodes must reach each other on TCP and UDP port 7946; see `docker node ls` and `bootd status`"},
}

func (t *Timeline) afterOffer() Missing {
	// A proxy offers a boot file; the address is for somebody else to give.
	if !t.Addr.IsValid() {
		if t.has(Offered, IPXE) {
			return Missing{Next: Script, Patience: 30 * time.Second,
				Reason: "it was told where its script is but did not fetch it: does the other DHCP server give it an address, and is HTTP to bootd open (TCP)?"}
		}
		return Missing{Next: Loader, Patience: 30 * time.Second,
			Reason: "it was told of its loader but did not fetch it: does the other DHCP server give it an address, and is TFTP to bootd open (UDP port 69)?"}
	}
	return Missing{Next: Leased, Patience: 30 * time.Second,
		Reason: "it did not take the address: another DHCP server answered too and was chosen, or the offer does not reach it (a switch port that begins to forward late, a relay without a way back)"}
}

func (t *Timeline) afterLease() Missing {
	switch {
	case t.has(Leased, IPXE):
		return Missing{Next: Script, Patience: 30 * time.Second,
			Reason: "iPXE has an address but did not fetch its script: is HTTP to bootd open (TCP)?"}
	case t.has(Leased, Firmware) && t.Arch.UBoot():
		return Missing{Next: Script, Patience: time.Minute,
			Reason: "U-Boot has an address but asked for no pxelinux.cfg: is `pxe` among its commands and its boot_targets, and TFTP to bootd open (UDP port 69, and the high port of the answer)?"}
	case t.has(Leased, Firmware) && t.Arch.CPU() == "":
		return Missing{Next: Loader,
			Reason: "there is no loader for its firmware (" + t.Arch.String() + ")"}
	case t.has(Leased, Firmware) && t.Arch.HTTP():
		return Missing{Next: Loader, Patience: time.Minute,
			Reason: "it has an address but did not fetch its loader: much firmware refuses plain http://, so let it boot by PXE instead; is HTTP to bootd open (TCP)?"}
	case t.has(Leased, Firmware):
		return Missing{Next: Loader, Patience: time.Minute,
			Reason: "it has an address but did not fetch its loader: is TFTP to bootd open (UDP port 69, and the high port of the answer), and is there a loader for " + t.Arch.String() + "?"}
	}
	return Missing{Next: Script, Patience: time.Minute,
		Reason: "only its system asked for an address: it has booted from something else; put network boot before its disks"}
}

func (t *Timeline) afterLoader() Missing {
	switch {
	case t.has(Leased, IPXE):
		return Missing{Next: Script, Patience: 30 * time.Second,
			Reason: "iPXE has an address but did not fetch its script: is HTTP to bootd open (TCP)?"}
	case t.has(Offered, IPXE) && t.Addr.IsValid():
		return Missing{Next: Script, Patience: 30 * time.Second,
			Reason: "iPXE was offered an address but did not take it: does the offer reach it, or was another DHCP server chosen?"}
	case t.Arch.EFI():
		return Missing{Next: Script, Patience: 20 * time.Second,
			Reason: "its loader was fetched, but does not ask for an address: the driver does not fit its network card, so try loader: ipxe (or loader: snponly, if that is set); with Secure Boot on, firmware does not start iPXE at all, so say loader: grub and install what that needs (bootd check tells)"}
	}
	return Missing{Next: Script, Patience: 20 * time.Second,
		Reason: "its loader was fetched, but does not ask for an address: the driver in the card's ROM does not work with iPXE; update the card's firmware, or let the machine boot by UEFI"}
}

func (t *Timeline) afterInitrd() Missing {
	if t.has(Leased, Initramfs) || t.has(Leased, System) {
		return Missing{Next: RootFS, Patience: time.Minute,
			Reason: "its kernel runs and has an address, but fetched neither root file system nor Ignition config: its console shows why; less than 2 GiB of memory is too little for Fedora CoreOS"}
	}
	return Missing{Next: RootFS, Patience: time.Minute,
		Reason: "its kernel was started but does not ask for an address: the initramfs has no driver for its network card, or the machine has too little memory (2 GiB for Fedora CoreOS); its console shows which"}
}
