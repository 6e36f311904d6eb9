package ipxe

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"bootd/boot"
)

// askedScript answers /ipxe and /grub: a loader tells which machine it runs on.
func (h *Handler) askedScript(q request) answer {
	inv, err := parseInventory(q.URL.RawQuery)
	if err != nil {
		return text(http.StatusBadRequest, plain(err.Error()))
	}
	if q.head {
		return answer{status: http.StatusOK, kind: typeText}
	}
	q.run = parseRun(q.URL.RawQuery)
	return h.machineScript(q, inv)
}

// machineScript finds out what the machine boots that asks, and issues the ticket
// for this boot. inv is what it tells of itself.
func (h *Handler) machineScript(q request, inv boot.Inventory) answer {
	inv.Addr = q.addr
	inv = h.Boots.Inventory(inv.MAC).Merge(inv)
	a, err := h.assignNext(q, inv)
	why := h.stranger(q, a.Network, inv)
	if why == "" {
		why = h.wrongLoader(q, a)
	}
	if why != "" {
		return h.refuseScript(q, inv.MAC, why)
	}
	if err != nil {
		return h.wait(q, inv, "bootd cannot decide what this machine boots: "+err.Error())
	}
	if a.Profile == nil {
		return h.unknown(q, inv)
	}
	h.assigned(a)
	if a.Profile.Image == "" {
		return h.localDisk(q, a)
	}
	cpu := cpuOf(inv)
	img, ok := h.Image(a.Profile.Image, cpu)
	if !ok {
		return h.wait(q, inv, fmt.Sprintf("%s: profile %s boots image %s, which bootd does not have for %s.",
			a.Name, a.Profile.Name, a.Profile.Image, cpu), "Get it with: "+remedy(a.Profile.Image, cpu))
	}
	if img.Family == boot.ESXi {
		if q.to != (ipxeDialect{}) {
			return h.wait(q, inv, fmt.Sprintf("%s: image %s is installed by iPXE only, and this is %s.", a.Name, img.Name, q.to.client()))
		}
		return h.esxiScript(q, a, img)
	}
	return h.bootScript(q, a, img)
}

// assignNext decides what the machine boots for which a script is asked. The
// boot that it belongs to may begin only when that is recorded.
func (h *Handler) assignNext(q request, inv boot.Inventory) (boot.Assignment, error) {
	if h.AssignNext == nil {
		return h.Assign(inv)
	}
	tl, ok := h.Boots.Current(inv.MAC)
	id := tl.ID
	if ok && tl.Begins(boot.Event{Time: time.Now(), Stage: boot.Script, Client: q.to.client(), Run: q.run}) {
		id = ""
	}
	return h.AssignNext(inv, id)
}

// remedy is the command that gets an image for a processor.
func remedy(image, cpu string) string {
	switch {
	case strings.HasPrefix(image, string(boot.ESXi)+"/"):
		return "bootd asset import " + image + " FILE.iso"
	case cpu != "x86_64":
		return "bootd asset fetch " + image + " --cpu " + cpu
	}
	return "bootd asset fetch " + image
}

// assigned tells what a machine gets.
func (h *Handler) assigned(a boot.Assignment) {
	if h.Assigned != nil && a.Profile != nil {
		h.Assigned(a)
	}
}

// bootScript notes that the machine boots, and then tells it what: the ticket
// names the boot.
func (h *Handler) bootScript(q request, a boot.Assignment, img boot.Image) answer {
	p := Params{Base: q.base, Name: a.Name, MAC: a.Inventory.MAC, Image: img, Profile: a.Profile}
	if _, err := q.to.script(p); err != nil {
		h.Log.Warn("machine cannot boot", "mac", p.MAC, "machine", a.Name, "err", err)
		return h.wait(q, a.Inventory, err.Error())
	}
	now := time.Now()
	tl, err := h.Boots.Commit(q.Context(), boot.Event{
		Time: now, MAC: p.MAC, Stage: boot.Script, Client: q.to.client(), Addr: q.addr, Run: q.run, Inventory: a.Inventory,
		Text: "profile " + a.Profile.Name + ", image " + img.Name + " " + img.Version,
	})
	if err != nil {
		h.Log.Error("script withheld: the boot cannot be recorded", "mac", p.MAC, "machine", a.Name, "err", err)
		return script200(q.to.wait(q.base, "bootd cannot record this boot; its log says why."))
	}
	p.Ticket = h.Tickets.Boot(tl.ID, p.MAC, ticketFrom(a.Network, q.addr), now.Add(h.TicketLife))
	body, err := q.to.script(p)
	if err != nil { // too long by the ticket
		h.Log.Warn("machine cannot boot", "mac", p.MAC, "machine", a.Name, "err", err)
		return h.wait(q, a.Inventory, err.Error())
	}
	return script200(body)
}

func (h *Handler) localDisk(q request, a boot.Assignment) answer {
	if _, err := h.Boots.Commit(q.Context(), boot.Event{
		Time: time.Now(), MAC: a.Inventory.MAC, Stage: boot.Script, Client: q.to.client(), Addr: q.addr, Run: q.run,
		Inventory: a.Inventory, Text: "profile " + a.Profile.Name + ", local disk",
	}); err != nil {
		h.Log.Error("script withheld: the boot cannot be recorded", "mac", a.Inventory.MAC, "machine", a.Name, "err", err)
		return script200(q.to.wait(q.base, "bootd cannot record this boot; its log says why."))
	}
	return script200(q.to.localDisk(a.Name, a.Profile.Name, a.Inventory.Arch.EFI()))
}

// unknown tells a machine that nobody has written an entry for it.
func (h *Handler) unknown(q request, inv boot.Inventory) answer {
	lines := []string{
		"bootd at " + q.base + " has no profile for this machine. It waits for an entry in machines/*.yaml:",
		"- {name: node1, mac: '" + inv.MAC.String() + "', profile: worker}",
	}
	for _, f := range []struct{ name, value string }{
		{"UUID", inv.UUID}, {"serial", inv.Serial}, {"manufacturer", inv.Manufacturer},
		{"product", inv.Product}, {"asset", inv.Asset},
	} {
		if f.value != "" {
			lines = append(lines, f.name+": "+f.value)
		}
	}
	h.Boots.Record(boot.Event{
		Time: time.Now(), MAC: inv.MAC, Stage: boot.Waiting, Client: q.to.client(), Addr: q.addr, Run: q.run,
		Inventory: inv, Text: "no entry in machines/*.yaml matches this machine, and there is no profile for unknown ones",
	})
	if q.to == (extlinuxDialect{}) {
		// U-Boot does not ask again, and goes on with other names: what the operator
		// has for machines without an entry is among those.
		return answer{status: http.StatusNotFound}
	}
	return script200(q.to.wait(q.base, lines...))
}

// wait tells a machine why it cannot boot now, and the timeline the same.
func (h *Handler) wait(q request, inv boot.Inventory, lines ...string) answer {
	h.Boots.Record(boot.Event{
		Time: time.Now(), MAC: inv.MAC, Stage: boot.Waiting, Client: q.to.client(), Addr: q.addr, Run: q.run,
		Inventory: inv, Text: lines[0],
	})
	return script200(q.to.wait(q.base, lines...))
}

// stranger says why who asks cannot be the loader of the machine that it names;
// empty if it can. A MAC is only a claim; the lease is not, and neither is what
// has been heard of the machine since. Where somebody else gives the addresses,
// nothing better is known.
func (h *Handler) stranger(q request, n *boot.Network, inv boot.Inventory) string {
	switch {
	case h.Holder == nil:
		return ""
	case n == nil: // from none of the networks: routed here, and no machine that boots
		return "its address is in none of bootd's networks"
	case leased(n):
	case h.Leased != nil && h.Leased(inv.MAC):
		return "it has an address from bootd on another network"
	default:
		return ""
	}
	if mac, ok := h.Holder(inv.Addr); !ok || mac != inv.MAC {
		return "its address is not leased to it"
	}
	if tl, ok := h.Boots.Current(inv.MAC); !ok || !tl.Loading(q.to.client()) {
		return "its loader has not asked for an address since it was switched on"
	}
	return ""
}

// wrongLoader says why a machine would not have come here by GRUB. That asks from
// the address that firmware had, so there is less to know it by than iPXE, and where
// nobody wants GRUB it is somebody else, or has to begin with what is wanted now.
func (h *Handler) wrongLoader(q request, a boot.Assignment) string {
	if h.Holder == nil || q.to.client() != boot.GRUB || a.Profile == nil || a.Profile.Loader == boot.GRUBLoader {
		return ""
	}
	if n := a.Network; n == nil || !leased(n) {
		return ""
	}
	return "its profile " + a.Profile.Name + " does not say loader: " + boot.GRUBLoader
}

// refuseScript sends away who cannot be the machine. If it is the machine after
// all, because the record of its lease was lost when bootd was killed, then it
// asks for its address again, and is recognized.
func (h *Handler) refuseScript(q request, mac boot.MAC, why string) answer {
	if h.refused.news(q.addr, time.Now()) {
		// Nothing else that the request says is noted: it may be another machine's.
		h.Boots.Record(boot.Event{
			Time: time.Now(), MAC: mac, Stage: boot.Refused, Client: q.to.client(),
			Text: fmt.Sprintf("script asked for from %s: %s", q.addr, why),
		})
		h.Log.Warn("script refused", "mac", mac, "addr", q.addr, "err", why)
	}
	return script200(q.to.reacquire(q.base, "bootd gives no script to "+mac.String()+" at "+q.addr.String()+": "+why+"."))
}

// inventory is what is known of a machine that asks from addr.
func (h *Handler) inventory(mac boot.MAC, addr netip.Addr) boot.Inventory {
	return h.Boots.Inventory(mac).Merge(boot.Inventory{MAC: mac, Addr: addr})
}

// leased reports whether bootd gives the addresses of a network.
func leased(n *boot.Network) bool { return n.Mode == boot.Authoritative || n.Mode == "" }

// ticketFrom says from where a ticket may be shown: the machine's address alone,
// if that is bootd's to give. Another DHCP server may give the system another
// address than iPXE had, because the two name themselves differently.
func ticketFrom(n *boot.Network, addr netip.Addr) netip.Prefix {
	if n != nil && !leased(n) && n.Subnet.Contains(addr) {
		return n.Subnet
	}
	return netip.PrefixFrom(addr, addr.BitLen())
}

// cpuOf names the machine's processor as images do.
func cpuOf(inv boot.Inventory) string {
	if inv.CPU != "" {
		return inv.CPU
	}
	if inv.ArchKnown {
		return inv.Arch.CPU()
	}
	return "x86_64"
}
