package ignition_test

import (
	"errors"
	"strings"
	"testing"

	"bootd/boot"
	"bootd/ignition"
)

func TestParseAccept(t *testing.T) {
	for header, want := range map[string]string{
		"application/vnd.coreos.ignition+json;version=3.3.0, */*;q=0.1":                                                           "3.3.0",
		"application/vnd.coreos.ignition+json; version=3.6.0":                                                                     "3.6.0",
		`*/*;q=0.1,Application/vnd.CoreOS.Ignition+JSON;Version="3.5.0"`:                                                          "3.5.0",
		"application/vnd.coreos.ignition+json;version=3.7.0-experimental":                                                         "3.7.0-experimental",
		"application/vnd.coreos.ignition+json; version=2.2.0, application/vnd.coreos.ignition+json; version=1; q=0.5, */*; q=0.1": "2.2.0",
		"application/vnd.coreos.ignition+json;version=3.1.0, application/vnd.coreos.ignition+json;version=3.4.0;q=0.9":            "3.4.0",
		"application/vnd.coreos.ignition+json;version=3.4.0;q=0":                                                                  "",
		"application/vnd.coreos.ignition+json;version=3.4":                                                                        "",
		"application/vnd.coreos.ignition+json;version=03.4.0":                                                                     "",
		"application/vnd.coreos.ignition+json;version=3.4.99999999999999999999":                                                   "",
		"application/vnd.coreos.ignition+json":                                                                                    "",
		"application/json;version=3.4.0":                                                                                          "",
		"*/*":                                                                                                                     "",
		"":                                                                                                                        "",
	} {
		v, ok := ignition.ParseAccept(header)
		got := ""
		if ok {
			got = v.String()
		}
		if got != want {
			t.Errorf("%q: %q, want %q", header, got, want)
		}
	}
}

func version(t *testing.T, s string) ignition.Version {
	t.Helper()
	v, ok := ignition.ParseAccept("application/vnd.coreos.ignition+json;version=" + s)
	if !ok {
		t.Fatalf("%q is not a version", s)
	}
	return v
}

func TestVersionOrder(t *testing.T) {
	ordered := strings.Fields("2.2.0 3.0.0 3.3.0 3.3.1 3.7.0-experimental 3.7.0 3.10.0")
	for i, a := range ordered {
		for j, b := range ordered {
			got := version(t, a).Compare(version(t, b))
			if got < 0 != (i < j) || got > 0 != (i > j) {
				t.Errorf("%s compared with %s: %d", a, b, got)
			}
		}
	}
}

// TestServedVersions: each row is a profile's fragments and what nodes with
// Ignitions of several ages get: a version, or why they cannot have any.
func TestServedVersions(t *testing.T) {
	luks := "storage:\n  luks:\n    - name: a\n      device: /dev/a\n"
	for name, tt := range map[string]struct {
		family    boot.Family
		fragments []string
		own       string
		served    map[string]string
	}{
		"no Butane": {
			own:    "3.0.0",
			served: map[string]string{"3.0.0": "3.0.0", "3.3.0": "3.0.0", "3.6.0": "3.0.0", "4.1.0": "3.0.0", "2.2.0": "needs 3.0.0 because of the format itself"},
		},
		"no version named": {
			fragments: []string{file("/a", "mode: 0600")},
			own:       "3.0.0",
			served:    map[string]string{"3.3.0": "3.0.0"},
		},
		"a version named, nothing of it used": {
			fragments: []string{"version: 1.7.0\n" + file("/a", "mode: 0600")},
			own:       "3.6.0",
			served:    map[string]string{"3.7.0-experimental": "3.6.0", "3.6.0": "3.6.0", "3.5.0": "3.0.0", "3.3.0": "3.0.0", "3.0.0": "3.0.0"},
		},
		"several versions": {
			fragments: []string{"version: 1.3.0\n" + file("/a", "mode: 0600"), "version: 1.5.0\n" + file("/b", "mode: 0600"), "version: 1.0.0\n"},
			own:       "3.4.0",
			served:    map[string]string{"3.6.0": "3.4.0", "3.4.0": "3.4.0", "3.3.0": "3.0.0"},
		},
		"a feature of 3.1": {
			fragments: []string{file("/a", "contents: {source: 'https://h/a', http_headers: [{name: X, value: y}]}")},
			own:       "3.1.0",
			served:    map[string]string{"3.1.0": "3.1.0", "3.0.0": "needs 3.1.0 because of storage.files.5.contents.httpHeaders;"},
		},
		"a feature of 3.2": {
			fragments: []string{luks},
			own:       "3.2.0",
			served:    map[string]string{"3.3.0": "3.2.0", "3.1.0": "needs 3.2.0 because of storage.luks;"},
		},
		"a feature of 3.3": {
			fragments: []string{"kernel_arguments:\n  should_exist: [quiet]\n"},
			own:       "3.3.0",
			served:    map[string]string{"3.3.0": "3.3.0", "3.2.0": "needs 3.3.0 because of kernelArguments;"},
		},
		"a feature of 3.4": {
			fragments: []string{"version: 1.7.0\n" + luks + "      discard: true\n      open_options: [--perf-no_read_workqueue]\n"},
			own:       "3.6.0",
			served:    map[string]string{"3.5.0": "3.4.0", "3.4.0": "3.4.0", "3.3.0": "needs 3.4.0 because of storage.luks.0.discard, storage.luks.0.openOptions;"},
		},
		"a feature of 3.5": {
			fragments: []string{luks + "      cex: {enabled: true}\n"},
			own:       "3.5.0",
			served:    map[string]string{"3.4.0": "needs 3.5.0 because of storage.luks.0.cex;"},
		},
		"a feature of 3.6": {
			fragments: []string{file("/a", "mode: 04755")},
			own:       "3.6.0",
			served:    map[string]string{"3.6.0": "3.6.0", "3.5.0": "needs 3.6.0 because of storage.files.5.mode;", "3.7.0-experimental": "3.6.0"},
		},
		"a hash that older ones refuse": {
			fragments: []string{file("/a", "contents: {source: 'https://h/a', verification: {hash: sha256-"+strings.Repeat("0", 64)+"}}")},
			own:       "3.1.0",
			served:    map[string]string{"3.0.0": "because of storage.files.5.contents.verification.hash ("},
		},
		"Flatcar": {
			family:    boot.Flatcar,
			fragments: []string{"variant: flatcar\nversion: 1.1.0\n" + file("/a", "mode: 0600")},
			own:       "3.4.0",
			served:    map[string]string{"3.6.0": "3.4.0", "3.3.0": "3.0.0"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			family := tt.family
			if family == "" {
				family = boot.FedoraCoreOS
			}
			tmpl, err := prepare(family, tt.fragments...)
			if err != nil {
				t.Fatal(err)
			}
			if got := tmpl.Version().String(); got != tt.own {
				t.Errorf("own version %s, want %s", got, tt.own)
			}
			r, err := tmpl.Render(worker)
			if err != nil {
				t.Fatal(err)
			}
			for max, want := range tt.served {
				_, v, err := r.For(version(t, max))
				var old *ignition.TooOld
				switch {
				case errors.As(err, &old):
					if !strings.Contains(err.Error(), want) || old.Have != version(t, max) {
						t.Errorf("for %s: %v, want %s", max, err, want)
					}
				case err != nil || v.String() != want:
					t.Errorf("for %s: version %s, %v; want %s", max, v, err, want)
				}
			}
		})
	}
}
