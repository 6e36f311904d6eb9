package ignition_test

import (
	"encoding/json"
	"strings"
	"testing"

	"bootd/boot"
	"bootd/ignition"

	"github.com/google/go-cmp/cmp"
)

func TestHostnames(t *testing.T) {
	tmpl, err := prepare(boot.FedoraCoreOS)
	if err != nil {
		t.Fatal(err)
	}
	for name, ok := range map[string]bool{
		"node1": true, "blade-07": true, "a": true, "1": true, "Node.example.com": true,
		strings.Repeat("a", 63): true, strings.Repeat("a", 62) + ".b": true, strings.Repeat("a", 63) + ".b": false,
		"": false, ".": false, "a.": false, ".a": false, "a..b": false, "-a": false, "a-": false, "a.-b": false, "a b": false,
		"a_b": false, "ä": false, "a\n": false, "a\x00": false, strings.Repeat("a", 64): false, "a/b": false,
	} {
		_, err := tmpl.Render(ignition.Node{Hostname: name})
		if (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "cannot render node ") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestWhatANodeGets looks at the parts of a node's config, by what bootd knows
// of the node.
func TestWhatANodeGets(t *testing.T) {
	join := &ignition.Join{Addr: "10.0.0.1:2377", Token: `SWMTKN-1-"x`}
	for name, tt := range map[string]struct {
		node  ignition.Node
		units []string
		files []string
	}{
		"a name":             {ignition.Node{Hostname: "n"}, nil, []string{"/etc/hostname 0644"}},
		"a name and reports": {ignition.Node{Hostname: "n", ReportURL: "http://h/r"}, []string{"bootd-report.service"}, []string{"/etc/hostname 0644", "/etc/bootd/report-url 0600", "/etc/bootd/report.sh 0755"}},
		"a swarm": {ignition.Node{Hostname: "n", Join: join}, []string{"bootd-swarm.service", "docker.service"},
			[]string{"/etc/hostname 0644", "/etc/bootd/report-url 0600", "/etc/bootd/report.sh 0755", "/etc/bootd/swarm-join.json 0600", "/etc/bootd/swarm.sh 0755"}},
		"all": {worker, []string{"bootd-report.service", "bootd-swarm.service", "docker.service"},
			[]string{"/etc/hostname 0644", "/etc/bootd/report-url 0600", "/etc/bootd/report.sh 0755", "/etc/bootd/swarm-join.json 0600", "/etc/bootd/swarm.sh 0755"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := render(t, &boot.Profile{}, boot.Flatcar, tt.node)
			var units, files []string
			for _, u := range c.Systemd.Units {
				if !*u.Enabled {
					t.Errorf("%s is not enabled", u.Name)
				}
				if u.Contents != nil && strings.Contains(*u.Contents, "SWMTKN-1-") {
					t.Errorf("%s shows the token to everybody", u.Name)
				}
				units = append(units, u.Name)
			}
			for _, f := range c.Storage.Files {
				mode := []byte("0000")
				for i := range 3 {
					mode[3-i] += byte(*f.Mode >> (3 * i) & 7)
				}
				files = append(files, f.Path+" "+string(mode))
				if strings.Contains(contents(t, c, f.Path), "SWMTKN-1-") && f.Path != "/etc/bootd/swarm-join.json" {
					t.Errorf("%s has the token too", f.Path)
				}
			}
			if diff := cmp.Diff(tt.units, units); diff != "" {
				t.Errorf("units (-want +got)\n%s", diff)
			}
			if diff := cmp.Diff(tt.files, files); diff != "" {
				t.Errorf("files (-want +got)\n%s", diff)
			}
		})
	}

	c := render(t, &boot.Profile{}, boot.FedoraCoreOS, ignition.Node{Hostname: "n", ReportURL: "http://[fd00::1]:8080/report/x?a=%20&b", Join: join})
	if got := contents(t, c, "/etc/bootd/report-url"); got != "http://[fd00::1]:8080/report/x?a=%20&b\n" {
		t.Errorf("report URL %q", got)
	}
	var request map[string]any
	if err := json.Unmarshal([]byte(contents(t, c, "/etc/bootd/swarm-join.json")), &request); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"ListenAddr": "0.0.0.0:2377", "RemoteAddrs": []any{"10.0.0.1:2377"}, "JoinToken": `SWMTKN-1-"x`}
	if diff := cmp.Diff(want, request); diff != "" {
		t.Errorf("join request (-want +got)\n%s", diff)
	}
}

func TestNodesThatCannotBe(t *testing.T) {
	tmpl, err := prepare(boot.FedoraCoreOS)
	if err != nil {
		t.Fatal(err)
	}
	join := func(addr, token, availability string) ignition.Node {
		return ignition.Node{Hostname: "n", Join: &ignition.Join{Addr: addr, Token: token, Availability: availability}}
	}
	for want, nodes := range map[string][]ignition.Node{
		"is not an http URL": {
			{Hostname: "n", ReportURL: "ftp://h/x"}, {Hostname: "n", ReportURL: "/report"}, {Hostname: "n", ReportURL: "http://h/a b"},
			{Hostname: "n", ReportURL: "http://h/a\nb"}, {Hostname: "n", ReportURL: "http://"},
		},
		"is not of the form 10.0.0.1:2377": {join("", "t", ""), join("10.0.0.1", "t", ""), join(":2377", "t", ""), join("h:0", "t", ""), join("h:x", "t", ""), join("h:99999", "t", "")},
		"is empty or damaged":              {join("h:1", "", ""), join("h:1", "a b", ""), join("h:1", "a\n", "")},
		"is none of active, pause, drain":  {join("h:1", "t", "Drain")},
	} {
		for _, n := range nodes {
			if _, err := tmpl.Render(n); err == nil || !strings.HasPrefix(err.Error(), "cannot render node n: ") || !strings.HasSuffix(err.Error(), want) {
				t.Errorf("%+v: %v, want ...%s", n, err, want)
			}
		}
	}
}
