package ignition_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"bootd/boot"

	"github.com/google/go-cmp/cmp"
)

// A box is a folder with what a node has in /etc/bootd, taken from its
// rendered config, and commands that stand in for its own.
type box struct {
	dir, fake string
	env       []string
}

func newBox(t *testing.T) *box {
	t.Helper()
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip("there is no sh")
	}
	fakes, err := filepath.Abs("testdata/fake")
	if err != nil {
		t.Fatal(err)
	}
	b := &box{dir: t.TempDir(), fake: t.TempDir()}
	b.env = append(os.Environ(), "PATH="+fakes+":"+os.Getenv("PATH"), "FAKE="+b.fake, "DOCKER_HOST=")
	c := render(t, &boot.Profile{}, boot.FedoraCoreOS, worker)
	for _, f := range c.Storage.Files {
		if name, ok := strings.CutPrefix(f.Path, "/etc/bootd/"); ok {
			b.write(t, filepath.Join(b.dir, name), contents(t, c, f.Path))
		}
	}
	return b
}

func (b *box) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// say sets the answers of a command that stands in.
func (b *box) say(t *testing.T, what string, lines ...string) {
	t.Helper()
	b.write(t, filepath.Join(b.fake, what), strings.Join(lines, "\n")+"\n")
}

// noted returns what the stand-ins have noted.
func (b *box) noted(t *testing.T, what string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(b.fake, what))
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

func (b *box) run(t *testing.T, shell []string, script string, args ...string) string {
	t.Helper()
	words := append(append([]string(nil), shell...), filepath.Join(b.dir, script))
	words = append(words, args...)
	cmd := exec.CommandContext(t.Context(), words[0], words[1:]...)
	cmd.Env = b.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", words, err, out)
	}
	return string(out)
}

// shells are those that nodes have as /bin/sh, as far as they are here.
// Busybox is not among them: it has a sleep of its own, which really sleeps.
func shells(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{"sh": {"sh"}}
	for name, words := range map[string][]string{"dash": {"dash"}, "bash": {"bash", "--posix"}} {
		if _, err := exec.LookPath(words[0]); err == nil {
			found[name] = words
		}
	}
	return found
}

func TestScriptsAreShell(t *testing.T) {
	b := newBox(t)
	all := shells(t)
	if _, err := exec.LookPath("busybox"); err == nil {
		all["busybox"] = []string{"busybox", "sh"}
	}
	for _, words := range all {
		b.run(t, append(words, "-n"), "report.sh")
		b.run(t, append(words, "-n"), "swarm.sh")
	}
	if _, err := exec.LookPath("shellcheck"); err == nil {
		b.run(t, []string{"shellcheck"}, "report.sh", filepath.Join(b.dir, "swarm.sh"))
	}
}

const asked = `join {"ListenAddr":"0.0.0.0:2377","RemoteAddrs":["10.0.0.1:2377"],"JoinToken":"SWMTKN-1-3pu6hszjas19xyp7ghgosyx9k8atbfcr8p2is99znpy26u2lkl-1awxwuwd3z9j1z3puu7rcgdbx","Availability":"drain"}`

func reported(stage, node string) string {
	if node != "" {
		node = `,"node":"` + node + `"`
	}
	return fmt.Sprintf(`{"stage":"%s"%s} to %s`, stage, node, worker.ReportURL)
}

func TestSwarmScript(t *testing.T) {
	const inactive, active = "inactive//false", "active/n1d/false"
	for name, tt := range map[string]struct {
		verb           string
		states, joins  []string
		calls, reports []string
		prints         string
	}{
		"a slow engine, and a join that works the third time": {
			verb:    "join",
			states:  []string{"away", "away", inactive, inactive, inactive, active},
			joins:   []string{`500 {"message":"connection refused"}`, `500 {"message":"no route"}`, "200 "},
			calls:   []string{"sleep 1", "sleep 1", asked, "sleep 1", asked, "sleep 1", asked},
			reports: []string{reported("engine", ""), reported("joined", "n1d")},
			prints: `not in the swarm yet, next look in 1 s: the engine does not answer
not in the swarm yet, next look in 1 s: the engine does not answer
not in the swarm yet, next look in 1 s: {"message":"connection refused"} HTTP status 500
not in the swarm yet, next look in 1 s: {"message":"no route"} HTTP status 500
in the swarm as node n1d
`,
		},
		"a member already": {
			verb: "join", states: []string{active},
			reports: []string{reported("engine", ""), reported("joined", "n1d")},
			prints:  "in the swarm as node n1d\n",
		},
		"a join that the engine finishes later": {
			verb:    "join",
			states:  []string{inactive, "pending//false", "pending//false", active},
			joins:   []string{`200 `},
			calls:   []string{asked, "sleep 1", "sleep 1"},
			reports: []string{reported("engine", ""), reported("joined", "n1d")},
			prints: `not in the swarm yet, next look in 1 s: the engine's state is pending
not in the swarm yet, next look in 1 s: the engine's state is pending
in the swarm as node n1d
`,
		},
		"an engine that cannot use its old membership": {
			verb:    "join",
			states:  []string{"error/old/false", inactive, active},
			joins:   []string{`200 `},
			calls:   []string{"docker swarm leave --force", "sleep 1", asked},
			reports: []string{reported("engine", ""), reported("joined", "n1d")},
			prints: `not in the swarm yet, next look in 1 s: the engine was in an error state, and was made to leave
in the swarm as node n1d
`,
		},
		"long trouble": {
			verb:    "join",
			states:  append(slices.Repeat([]string{"away"}, 10), active),
			calls:   strings.Split("sleep 1,sleep 1,sleep 1,sleep 1,sleep 1,sleep 2,sleep 4,sleep 8,sleep 15,sleep 15", ","),
			reports: []string{reported("engine", ""), reported("joined", "n1d")},
		},
		"a worker leaves":       {verb: "leave", states: []string{active}, calls: []string{"docker swarm leave"}, reports: []string{reported("left", "n1d")}},
		"a manager leaves":      {verb: "leave", states: []string{"active/m1d/true"}, calls: []string{"docker swarm leave --force"}, reports: []string{reported("left", "m1d")}},
		"a join is broken off":  {verb: "leave", states: []string{"pending//false"}, calls: []string{"docker swarm leave --force"}},
		"nothing to leave":      {verb: "leave", states: []string{inactive}},
		"no engine to leave by": {verb: "leave", states: []string{"away"}},
	} {
		for shell, words := range shells(t) {
			t.Run(name+"/"+shell, func(t *testing.T) {
				t.Parallel()
				b := newBox(t)
				b.say(t, "states", tt.states...)
				b.say(t, "joins", tt.joins...)
				b.say(t, "answers", "204")
				out := b.run(t, words, "swarm.sh", tt.verb)
				if diff := cmp.Diff(tt.calls, b.noted(t, "calls")); diff != "" {
					t.Errorf("calls (-want +got)\n%s", diff)
				}
				if diff := cmp.Diff(tt.reports, b.noted(t, "reports")); diff != "" {
					t.Errorf("reports (-want +got)\n%s", diff)
				}
				if tt.prints != "" && out != tt.prints {
					t.Errorf("prints\n%s\nwant\n%s", out, tt.prints)
				}
				if s := strings.Join(b.noted(t, "commands"), "\n"); strings.Contains(s, "SWMTKN") {
					t.Errorf("the token stands on a command line:\n%s", s)
				}
			})
		}
	}
}

func TestReportScript(t *testing.T) {
	patient := make([]string, 39)
	for i := range patient {
		patient[i] = fmt.Sprintf("sleep %d", min(1<<i, 15))
	}
	for name, tt := range map[string]struct {
		args, answers []string
		tries         int
		calls         []string
		prints        string
	}{
		"taken":             {args: []string{"up"}, answers: []string{"200"}, tries: 1},
		"with a node":       {args: []string{"joined", "n1d"}, answers: []string{"204"}, tries: 1},
		"bootd restarts":    {args: []string{"up"}, answers: []string{"000", "503", "429", "200"}, tries: 4, calls: []string{"sleep 1", "sleep 2", "sleep 4"}},
		"refused":           {args: []string{"up"}, answers: []string{"403"}, tries: 1, prints: "bootd does not take the report of stage up: HTTP status 403\n"},
		"never there":       {args: []string{"up"}, answers: []string{"000"}, tries: 40, calls: patient, prints: "cannot report stage up to bootd: HTTP status 000\n"},
		"while going down":  {args: []string{"left", "n1d"}, answers: []string{"000"}, tries: 1, prints: "cannot report stage left to bootd: HTTP status 000\n"},
		"nowhere to report": {args: []string{"up"}},
	} {
		for shell, words := range shells(t) {
			t.Run(name+"/"+shell, func(t *testing.T) {
				t.Parallel()
				b := newBox(t)
				b.say(t, "answers", tt.answers...)
				if tt.tries == 0 {
					b.write(t, filepath.Join(b.dir, "report-url"), "\n")
				}
				out := b.run(t, words, "report.sh", tt.args...)
				if out != tt.prints {
					t.Errorf("prints %q, want %q", out, tt.prints)
				}
				var want []string
				for range tt.tries {
					want = append(want, reported(tt.args[0], strings.Join(tt.args[1:], "")))
				}
				if diff := cmp.Diff(want, b.noted(t, "reports")); diff != "" {
					t.Errorf("reports (-want +got)\n%s", diff)
				}
				if diff := cmp.Diff(tt.calls, b.noted(t, "calls")); diff != "" {
					t.Errorf("calls (-want +got)\n%s", diff)
				}
			})
		}
	}
}

// TestScriptsWithCurl has the real curl talk to a server: to bootd over TCP, to
// the engine over a Unix socket.
func TestScriptsWithCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("curl is not installed")
	}
	b := newBox(t)
	dir, err := os.MkdirTemp("", "box") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, fake := range []string{"docker", "sleep"} {
		target, err := filepath.Abs("testdata/fake/" + fake)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, filepath.Join(dir, fake)); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	var got []string
	handler := func(status ...int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			mu.Lock()
			defer mu.Unlock()
			got = append(got, fmt.Sprintf("%s %s %s %s", r.Method, r.URL.Path, r.Header.Get("Content-Type"), body))
			w.WriteHeader(status[0])
			status = append(status[1:], status[0])
			fmt.Fprint(w, `{"message":"hello"}`)
		})
	}
	bootd := httptest.NewServer(handler(503, 200))
	t.Cleanup(bootd.Close)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	engine := &httptest.Server{Listener: l, Config: &http.Server{Handler: handler(503, 200)}}
	engine.Start()
	t.Cleanup(engine.Close)

	b.write(t, filepath.Join(b.dir, "report-url"), bootd.URL+"/report/x\n")
	b.env = append(b.env, "PATH="+dir+":"+filepath.Dir(curl)+":"+os.Getenv("PATH"), "DOCKER_HOST=unix://"+filepath.Join(dir, "s"), "http_proxy=http://192.0.2.1:1")
	b.run(t, []string{"sh"}, "report.sh", "up")
	b.say(t, "states", "inactive//false", "inactive//false", "active/n1d/false")
	out := b.run(t, []string{"sh"}, "swarm.sh", "join")
	if want := "not in the swarm yet, next look in 1 s: {\"message\":\"hello\"} HTTP status 503\nin the swarm as node n1d\n"; out != want {
		t.Errorf("prints %q, want %q", out, want)
	}
	want := map[string]int{
		`POST /report/x application/json {"stage":"up"}`:                          2,
		`POST /report/x application/json {"stage":"engine"}`:                      2,
		`POST /report/x application/json {"stage":"joined","node":"n1d"}`:         2,
		"POST /swarm/join application/json " + strings.TrimPrefix(asked, "join "): 2,
	}
	count := map[string]int{}
	for _, g := range got {
		count[g]++
	}
	if diff := cmp.Diff(want, count); diff != "" {
		t.Errorf("requests (-want +got)\n%s", diff)
	}
}

// TestRenewedToken: a node whose token was replaced after it got its config asks
// for the present one, and joins with that.
func TestRenewedToken(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("curl is not installed")
	}
	const fresh = `{"JoinToken":"SWMTKN-1-new"}`
	for _, c := range []struct {
		name   string
		status int // of bootd's answer
		want   string
	}{{"bootd gives a new one", 200, fresh}, {"bootd has none to give", 503, strings.TrimPrefix(asked, "join ")}} {
		t.Run(c.name, func(t *testing.T) {
			b := newBox(t)
			dir, err := os.MkdirTemp("", "box") // a socket's path must be short
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			for _, fake := range []string{"docker", "sleep"} {
				target, err := filepath.Abs("testdata/fake/" + fake)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(target, filepath.Join(dir, fake)); err != nil {
					t.Fatal(err)
				}
			}
			bootd := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet && r.URL.Path == "/join/x" {
					w.WriteHeader(c.status)
					fmt.Fprint(w, fresh)
				}
			}))
			t.Cleanup(bootd.Close)
			l, err := net.Listen("unix", filepath.Join(dir, "s"))
			if err != nil {
				t.Fatal(err)
			}
			var joins []string
			engine := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if joins = append(joins, string(body)); len(joins) == 1 {
					w.WriteHeader(500)
					fmt.Fprint(w, `{"message":"rpc error: code = InvalidArgument desc = A valid join token is necessary to join this cluster"}`)
				}
			})}}
			engine.Start()
			t.Cleanup(engine.Close)
			b.write(t, filepath.Join(b.dir, "report-url"), bootd.URL+"/report/x\n")
			b.env = append(b.env, "PATH="+dir+":"+filepath.Dir(curl)+":"+os.Getenv("PATH"), "DOCKER_HOST=unix://"+filepath.Join(dir, "s"))
			b.say(t, "states", "inactive//false", "inactive//false", "active/n1d/false")
			out := b.run(t, []string{"sh"}, "swarm.sh", "join")
			if len(joins) != 2 || strings.TrimSpace(joins[1]) != strings.TrimSpace(c.want) {
				t.Errorf("joins %q, the second is to be %q\n%s", joins, c.want, out)
			}
			files, err := os.ReadDir(b.dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				if strings.HasSuffix(f.Name(), ".new") {
					t.Errorf("%s is left", f.Name())
				}
			}
			st, err := os.Stat(filepath.Join(b.dir, "swarm-join.json"))
			if err != nil || c.status == 200 && st.Mode().Perm() != 0o600 {
				t.Errorf("the join request: mode %v, %v", st.Mode(), err)
			}
		})
	}
}
