package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"
	"pgregory.net/rapid"

	"bootd/boot"
	"bootd/internal/api"
)

func TestYAML(t *testing.T) {
	var out bytes.Buffer
	a := &app{out: &out}
	if err := a.choose("yaml"); err != nil {
		t.Fatal(err)
	}
	v := map[string]any{
		"name": "node1", "mac": "52:54:00:00:00:01", "yes": true, "none": nil, "count": 12, "big": 12345678901234, "part": 0.5,
		"looks": []string{"true", "12", "0x10", "null", "", "- a", "a: b", "on", "1:30", "two\nlines"}, "empty": []int{}, "no": map[string]int{},
	}
	if err := a.json(v); err != nil {
		t.Fatal(err)
	}
	const want = `big: 12345678901234
count: 12
empty: []
looks:
  - "true"
  - "12"
  - "0x10"
  - "null"
  - ""
  - '- a'
  - 'a: b'
  - "on"
  - "1:30"
  - |-
    two
    lines
mac: "52:54:00:00:00:01"
name: node1
"no": {}
none: null
part: 0.5
"yes": true
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
	out.Reset()
	if err := errors.Join(a.jsonLine("a"), a.jsonLine([]int{1})); err != nil || out.String() != "---\na\n---\n- 1\n" {
		t.Errorf("a stream is %q, %v", &out, err)
	}
}

// TestYAMLIsJSON: what is written as YAML reads as what it is as JSON.
func TestYAMLIsJSON(t *testing.T) {
	odd := rapid.SampledFrom([]string{"two\nlines", "two\n\nlines\n", "\ttab\n", "a\u0085b", "\ufeffx", "x: |\n", "null", "True", ".inf", ".NaN", "12345678901234567890", "? a", "!x", "&a", "*a", "`", "\u00a0x", "", "~", "<<", "=", "on", "0o7", "0b1", "_1", "1e3", "1:30", "52:54:00:00:00:01", "2001-01-01", "\u007f\u2028",
		"\U0001f600", "- a", "a: b", "#", " x ", "\r\n x\n", "|", "%", "@", "\t", "---", "..."})
	text := rapid.OneOf(rapid.String(), odd)
	scalar := rapid.OneOf(rapid.Just[any](nil), rapid.Bool().AsAny(), rapid.Int32().AsAny(), rapid.Float32().AsAny(), text.AsAny())
	flat := rapid.OneOf(scalar, rapid.SliceOfN(scalar, 0, 4).AsAny(), rapid.MapOfN(text, scalar, 0, 4).AsAny())
	value := rapid.OneOf(flat, rapid.SliceOfN(flat, 0, 4).AsAny(), rapid.MapOfN(text, flat, 0, 4).AsAny())
	rapid.Check(t, func(t *rapid.T) {
		v := value.Draw(t, "value")
		var out bytes.Buffer
		a := &app{out: &out, yaml: true}
		if err := a.json(v); err != nil {
			t.Fatal(err)
		}
		plain, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var want, got any
		if err := errors.Join(json.Unmarshal(plain, &want), yaml.Unmarshal(out.Bytes(), &got)); err != nil {
			t.Fatalf("%v\n%s", err, &out)
		}
		if !reflect.DeepEqual(numbers(want), numbers(got)) {
			t.Errorf("%s\nis\n%s", plain, &out)
		}
	})
}

// numbers makes all numbers of one type, so that they can be compared.
func numbers(v any) any {
	switch v := v.(type) {
	case int:
		return float64(v)
	case int64:
		return float64(v)
	case uint64:
		return float64(v)
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = numbers(v[k])
		}
	}
	return v
}

func TestWide(t *testing.T) {
	for _, c := range []struct{ output, want string }{
		{"table", "NODE   STATE\nnode1  -\n"},
		{"wide", "NODE   STATE  ENGINE\nnode1  -      28.5.2\n"},
	} {
		var out bytes.Buffer
		a := &app{out: &out}
		err := a.choose(c.output)
		err = errors.Join(err, a.wideTable(2, []string{"NODE", "STATE", "ENGINE"}, [][]string{{"node1", "", "28.5.2"}}))
		if err != nil || out.String() != c.want {
			t.Errorf("%s: %v\n%s", c.output, err, &out)
		}
	}
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		a := &app{out: &out}
		ctx, cancel := context.WithTimeout(t.Context(), 5500*time.Millisecond)
		defer cancel()
		c := &cobra.Command{Use: "list"}
		c.SetContext(ctx)
		shows := []string{"one", "one", "two", "", "two"}
		looked := 0
		err := a.watch(c, nil, func(*cobra.Command, []string) error {
			show := shows[min(looked, len(shows)-1)]
			looked++
			if show == "" {
				return errors.New("the server is away")
			}
			_, err := fmt.Fprintln(a.out, show)
			return err
		})
		if want := "one\n\ntwo\n\nbootd: the server is away\n\ntwo\n"; err != nil || out.String() != want {
			t.Errorf("%v\n%s", err, &out)
		}
		if looked != 6 || a.out != io.Writer(&out) {
			t.Errorf("it looked %d times in 5.5 s, and writes to %T", looked, a.out)
		}
		// What does not work at first is not tried again.
		if err := a.watch(c, nil, func(*cobra.Command, []string) error { return errors.New("no") }); err != nil {
			t.Errorf("after its end: %v", err)
		}
		c.SetContext(t.Context())
		if err := a.watch(c, nil, func(*cobra.Command, []string) error { return errors.New("no") }); err == nil {
			t.Error("it goes on")
		}
	})
	for _, c := range []struct {
		screen, first bool
		want          string
	}{{true, true, "\x1b[H\x1b[2Jx"}, {true, false, "\x1b[H\x1b[2Jx"}, {false, true, "x"}, {false, false, "\nx"}} {
		var out bytes.Buffer
		if err := repaint(&out, "x", c.screen, c.first); err != nil || out.String() != c.want {
			t.Errorf("%+v: %q, %v", c, &out, err)
		}
	}
}

func TestStatus(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) time.Time { return now.Add(-d) }
	s := api.Status{
		Version: "v1", PID: 812, Started: at(3 * time.Hour), Config: "/etc/bootd", Profiles: 2, Machines: 6,
		Networks: []api.Network{
			{Name: "rack", Interface: "eth1", Mode: boot.Authoritative, Subnet: netip.MustParsePrefix("10.0.0.0/24"),
				Others: []api.OtherServer{{Addr: netip.MustParseAddr("10.0.0.9"), Offers: netip.MustParseAddr("10.0.0.77")}}},
			{Name: "hall", Interface: "eth2", Mode: boot.Proxy, Subnet: netip.MustParsePrefix("10.2.0.0/24")},
		},
		Images: []api.Image{{Name: "lab", Version: "1"}, {Name: "new"}},
		Swarms: []api.Swarm{{Name: "default", Phase: "ready", Host: "unix:///var/run/docker.sock", Notices: []string{"network a is not as declared"}}},
	}
	machines := []api.Machine{
		{Name: "a", Stage: boot.Ready}, {Name: "b", Stage: boot.RootFS, Since: at(time.Minute), Waits: "Ignition, for a minute"},
		{Name: "c", Stage: boot.Ready}, {Name: "d"}, {Name: "e"}, {Name: "f"}, {Name: "g", Stage: boot.Offered, Since: at(time.Second), Waits: "a request"},
	}
	leases := []api.Lease{{Network: "rack", State: "bound"}, {Network: "rack", State: "released"}, {Network: "hall", State: "bound"}}
	var out bytes.Buffer
	(&app{out: &out}).status(s, machines, leases, now)
	const want = `bootd v1, process 812, up 3h00m, configuration /etc/bootd
2 profile(s), 6 machine entry(s)
network rack: 10.0.0.0/24 on eth1, authoritative, 1 address(es) leased
  - another DHCP server, 10.0.0.9 (00:00:00:00:00:00), gives addresses, such as 10.0.0.77: stop it, or leave the addresses to it (mode: proxy)
network hall: 10.2.0.0/24 on eth2, proxy
machines: 2 ready, 3 never seen, 1 offered, 1 rootfs
  - g, offered 1.0s ago: a request
  - b, rootfs 1m00s ago: Ignition, for a minute
image lab: 1
image new: missing; see ` + "`bootd asset fetch --help`" + `
swarm default on unix:///var/run/docker.sock: ready
  - network a is not as declared
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}
