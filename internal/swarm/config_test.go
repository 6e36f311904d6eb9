package swarm

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	const no = time.Duration(0)
	for _, tt := range []struct {
		info   Info
		kept   string
		denies time.Duration
		make   bool
		phase  Phase
		text   string
	}{
		{Info{State: Inactive}, "", no, true, Waiting, ""},
		{Info{State: Inactive}, "", time.Hour, true, Waiting, ""},
		{Info{State: Inactive}, "A", no, false, Waiting, "stopping or starting"},
		{Info{State: Inactive}, "A", denial, false, Lost, "bootd swarm replace"},
		{Info{State: Member, Manager: true}, "", no, false, Ready, ""},
		{Info{State: Member, Manager: true, Swarm: "A"}, "", no, false, Ready, ""},
		{Info{State: Member, Manager: true, Swarm: "A"}, "A", no, false, Ready, ""},
		{Info{State: Member, Manager: true, Swarm: "B"}, "A", no, false, Lost, "manages swarm B, and not A"},
		{Info{State: Member, Manager: true}, "A", no, false, Ready, ""}, // it does not tell yet
		{Info{State: Member}, "", no, false, Waiting, "docker node promote"},
		{Info{State: Member}, "A", no, false, Waiting, "docker node promote"},
		{Info{State: Pending}, "A", no, false, Waiting, "still starting"},
		{Info{State: Locked}, "", no, false, Waiting, "docker swarm unlock"},
		{Info{State: Error, Error: "certificates have expired"}, "", no, false, Waiting, "certificates have expired"},
		{Info{}, "", no, false, Waiting, "not known here"},
	} {
		v := judge(tt.info, "unix:///x", tt.kept, tt.denies)
		if v.makeSwarm != tt.make || v.phase != tt.phase || (v.text == "") != (tt.text == "") || !strings.Contains(v.text, tt.text) {
			t.Errorf("%+v, kept %q: %+v; want %+v", tt.info, tt.kept, v, tt)
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
