package swarm

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestJudge(t *testing.T) {
	for _, tt := range []struct {
		info Info
		make bool
		text string // empty: go on
	}{
		{Info{State: Inactive}, true, ""},
		{Info{State: Member, Manager: true}, false, ""},
		{Info{State: Member}, false, "docker node promote"},
		{Info{State: Pending}, false, "still starting"},
		{Info{State: Locked}, false, "docker swarm unlock"},
		{Info{State: Error, Error: "certificates have expired"}, false, "certificates have expired"},
		{Info{}, false, "not known here"},
	} {
		makeSwarm, text := judge(tt.info, "unix:///x")
		if makeSwarm != tt.make || (text == "") != (tt.text == "") || !strings.Contains(text, tt.text) {
			t.Errorf("%+v: %t, %q; want %t, %q", tt.info, makeSwarm, text, tt.make, tt.text)
		}
	}
}

func TestExplain(t *testing.T) {
	for _, tt := range []struct{ host, err, want string }{
		{"unix:///x", "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?", "systemctl start docker"},
		{"unix:///x", "dial unix /x: connect: permission denied", "group that owns"},
		{"tcp://10.0.0.1:2375", "dial tcp 10.0.0.1:2375: connect: connection refused", "does it listen there"},
		{"unix:///x", "context deadline exceeded", "is it running"},
		{"unix:///x", "could not choose an IP address to advertise since this system has multiple addresses", "set swarm.advertise"},
		{"unix:///x", "something new", "does not answer as it should: something new"},
	} {
		if got := explain(errors.New(tt.err), tt.host); !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q in it", tt.err, got, tt.want)
		}
	}
	if got := explain(classify(errors.New("The swarm does not have a leader.")), "unix:///x"); !strings.Contains(got, "--force-new-cluster") {
		t.Errorf("no leader: %q", got)
	}
}

func TestFixed(t *testing.T) {
	pool := []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16")}
	have := Info{Addr: "10.0.0.1:2377", DataPathPort: 4789, AddressPools: pool}
	for _, tt := range []struct {
		want Init
		keys []string
	}{
		{Init{}, nil},
		{Init{Advertise: "10.0.0.1", DataPathPort: 4789, AddressPools: pool}, nil},
		{Init{Advertise: "eth1"}, nil},
		{Init{Advertise: "10.0.0.2", DataPathPort: 5000, AddressPools: []netip.Prefix{netip.MustParsePrefix("10.30.0.0/16")}},
			[]string{"swarm.advertise is 10.0.0.2", "swarm.data_path_port is 5000", "swarm.address_pools is [10.30.0.0/16]"}},
	} {
		got := fixed(tt.want, have)
		if len(got) != len(tt.keys) {
			t.Errorf("%+v: %q", tt.want, got)
			continue
		}
		for i, k := range tt.keys {
			if !strings.HasPrefix(got[i], k) {
				t.Errorf("%q does not begin with %q", got[i], k)
			}
		}
	}
}
