package boot_test

import (
	"testing"

	"bootd/boot"
)

// TestInstalls is the whole policy of what is installed when.
func TestInstalls(t *testing.T) {
	entry := &boot.Machine{Name: "esx1"}
	for name, tt := range map[string]struct {
		state   boot.InstallState
		machine *boot.Machine
		policy  boot.InstallPolicy
		want    bool
	}{
		"first time":                   {boot.InstallState{}, entry, "", true},
		"first time, by policy":        {boot.InstallState{}, entry, boot.InstallOnce, true},
		"installed":                    {boot.InstallState{Boot: "b"}, entry, "", false},
		"only ordered":                 {boot.InstallState{}, entry, boot.InstallOrdered, false},
		"ordered":                      {boot.InstallState{Ordered: true}, entry, boot.InstallOrdered, true},
		"ordered again":                {boot.InstallState{Ordered: true, Boot: "b"}, entry, "", true},
		"nobody's":                     {boot.InstallState{}, nil, "", false},
		"nobody's, ordered":            {boot.InstallState{Ordered: true}, nil, "", true},
		"nobody's, installed":          {boot.InstallState{Boot: "b"}, nil, "", false},
		"installed, only when ordered": {boot.InstallState{Boot: "b"}, entry, boot.InstallOrdered, false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, host := range []*boot.Host{nil, {Install: tt.policy}} {
				if host == nil && tt.policy != "" {
					continue
				}
				got, why := tt.state.Installs(boot.Assignment{Machine: tt.machine, Profile: &boot.Profile{Host: host}})
				if got != tt.want || (why == "") != got {
					t.Errorf("%v %q", got, why)
				}
			}
		})
	}
}

// TestHostExtendSharesNothing changes the result and looks at what it was made of.
func TestHostExtendSharesNothing(t *testing.T) {
	under := boot.Profile{Host: &boot.Host{SSH: new(true), NTP: []string{"a"}, VLAN: 5}}
	over := boot.Profile{Host: &boot.Host{Static: new(true)}}
	got := under.Extend(over).Host
	if got.VLAN != 5 || !*got.SSH || !*got.Static || got.NTP[0] != "a" {
		t.Errorf("%+v", got)
	}
	*got.SSH, *got.Static, got.NTP[0] = false, false, "b"
	if !*under.Host.SSH || !*over.Host.Static || under.Host.NTP[0] != "a" {
		t.Errorf("%+v %+v", under.Host, over.Host)
	}
}
