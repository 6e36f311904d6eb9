package boot_test

import (
	"strings"
	"testing"

	"bootd/boot"
)

func TestParseName(t *testing.T) {
	for _, tt := range []struct{ template, want string }{
		{"blade-{{.serial}}", ""},
		{"{{.mac}}", ""},
		{"a-{{slice .serial 0 4}}.rack1", ""},
		{`{{printf "n%.3s" .asset}}`, ""},
		{"b-{{.sreial}}", `there is no "sreial"; only serial`},
		{"b-{{.serial.x}}", `there is no "serial.x"`},
		{"b-{{.serial", `"b-{{.serial": unclosed action`},
		{"b_{{.serial}}", "does not make a host name"},
		{"{{.serial}}-", "does not make a host name"},
		{"{{.uuid}}-{{.uuid}}", "does not make a host name"},
		{"{{nosuch .serial}}", "not defined"},
		{"{{slice .serial 0 100}}", "out of range"},
		{"{{range 9999999999}}x{{end}}", "it can hold only values"},
		{"{{if .serial}}x{{end}}", "it can hold only values"},
		{"{{with $x := .serial}}x{{end}}", "it can hold only values"},
		{"{{$x := .serial}}a", "it can hold no variables"},
		{"{{$.serial}}", "it can hold only values"},
		{"{{.}}", "it can hold only values"},
		{"{{define \"a\"}}{{template \"a\"}}{{end}}x{{template \"a\"}}", "it can define no templates"},
	} {
		_, err := boot.ParseName(tt.template)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("ParseName(%q): %v; want %q", tt.template, err, tt.want)
		}
	}
}

func TestRenderName(t *testing.T) {
	inv := boot.Inventory{MAC: boot.MAC{0x52, 0x54, 0, 0xab, 0, 1}, Serial: " CZ-17/B ", Manufacturer: "A.T.WORKS, Inc.", Product: "***", Asset: "Rack ÄÖ 7"}
	for _, tt := range []struct{ template, want, err string }{
		{"blade-{{.serial}}", "blade-cz-17-b", ""},
		{"n-{{.mac}}", "n-52-54-00-ab-00-01", ""},
		{"{{.manufacturer}}-{{.asset}}.lan", "a-t-works-inc-rack-7.lan", ""},
		{"{{slice .serial 0 2}}", "cz", ""},
		{"{{slice .serial 0 9}}", "", "out of range"},
		{"{{.uuid}}", "", "needs the uuid, which the machine has not told"},
		{"x-{{.product}}", "", "needs the product"}, // nothing of it can be in a name
	} {
		tmpl, err := boot.ParseName(tt.template)
		if err != nil {
			t.Fatal(err)
		}
		got, err := boot.RenderName(tmpl, inv)
		if got != tt.want || (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %q, %v; want %q, %q", tt.template, got, err, tt.want, tt.err)
		}
	}
}

// FuzzName: any name of a machine is refused or makes host names, whatever
// the machine tells.
func FuzzName(f *testing.F) {
	f.Add("blade-{{.serial}}", "CZ 17")
	f.Add("{{slice .serial 1}}.{{.mac}}", "-a")
	f.Add("{{printf \"%s\" .serial}}", "\xff\n")
	f.Add("{{range 99999999}}x{{end}}", "")
	f.Fuzz(func(t *testing.T, name, told string) {
		tmpl, err := boot.ParseName(name)
		if err != nil {
			return
		}
		inv := boot.Inventory{MAC: boot.MAC{2, 1}, UUID: told, Serial: told, Asset: told, Product: told, Manufacturer: told}
		if s, err := boot.RenderName(tmpl, inv); err == nil && !boot.ValidName(s) {
			t.Errorf("%q makes %q of %q", name, s, told)
		}
	})
}
