package dhcp_test

import (
	"testing"

	"bootd/boot"
)

// An address that is reserved by serial number is given once the machine has
// told it, which it does to iPXE, not to DHCP: so from the second boot on, when
// it is remembered.
func TestReservationBySerial(t *testing.T) {
	p := policy(t)
	c, err := boot.NewCatalog(boot.Catalog{
		Networks: p.Catalog().Networks,
		Profiles: map[string]*boot.Profile{"worker": {Name: "worker"}},
		Machines: []*boot.Machine{{Name: "blade7", Match: boot.Selector{Serial: "S7"}, Profile: "worker", IP: addr("10.0.0.77")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Catalog = func() *boot.Catalog { return c }
	if got := reply(t, p, request(discover, mac(7))).YourIPAddr.String(); got != "10.0.0.100" {
		t.Errorf("a machine that is not known yet gets %s", got)
	}
	p.Remembered = func(boot.MAC) boot.Inventory { return boot.Inventory{Serial: "S7"} }
	if got := reply(t, p, request(discover, mac(7))).YourIPAddr.String(); got != "10.0.0.77" {
		t.Errorf("the machine with serial number S7 gets %s, want 10.0.0.77", got)
	}
}
