package ignition_test

import (
	"errors"
	"strings"
	"testing"

	"bootd/boot"
	"bootd/ignition"

	"github.com/google/go-cmp/cmp"
)

// prepare makes a profile of fragments, each in a file of its own, shifted as
// in a YAML block: its first line is line 11, its first column is 3.
func prepare(family boot.Family, fragments ...string) (*ignition.Template, error) {
	p := &boot.Profile{Name: "p"}
	for i, text := range fragments {
		p.Butane = append(p.Butane, boot.Fragment{Text: text, Origin: boot.Origin{File: string(rune('a'+i)) + ".yaml", Line: 11, Column: 3}})
	}
	return ignition.Prepare(p, family)
}

// said lists what was remarked on, one line each.
func said(t *testing.T, tmpl *ignition.Template, err error) []string {
	t.Helper()
	var entries []ignition.Entry
	var invalid *ignition.Invalid
	switch {
	case err == nil:
		entries = tmpl.Entries()
	case errors.As(err, &invalid):
		entries = invalid.Entries
	default:
		t.Fatal(err)
	}
	var lines []string
	for _, e := range entries {
		lines = append(lines, e.String())
	}
	return lines
}

func TestMistakesAreShownWhereTheyWereWritten(t *testing.T) {
	for name, tt := range map[string]struct {
		family boot.Family
		text   string
		want   []string
	}{
		"nothing":                {text: ""},
		"only comments":          {text: "# nothing yet\n\n"},
		"null":                   {text: "~\n"},
		"right":                  {text: "variant: fcos\nversion: 1.4.0\n"},
		"no variant, no version": {text: "storage:\n  files:\n    - path: /a\n"},
		"unknown key at the top": {
			text: "variant: fcos\nversion: 1.6.0\nstorag:\n  files: []\n",
			want: []string{"a.yaml:13:3: error: unknown key storag in version 1.6.0 of variant fcos (butane.0.storag)"},
		},
		"unknown keys deep down": {
			text: "storage:\n  files:\n    - path: /a\n      contents:\n        inlin: x\n      mod: 0644\n",
			want: []string{
				"a.yaml:15:11: error: unknown key inlin in version 1.7.0 of variant fcos (butane.0.storage.files.0.contents.inlin)",
				"a.yaml:16:9: error: unknown key mod in version 1.7.0 of variant fcos (butane.0.storage.files.0.mod)",
			},
		},
		"a key of a later version": {
			text: "version: 1.5.0\nsystemd:\n  units:\n    - name: a.service\nkernel_arguments:\n  should_exist: [quiet]\ngrub: {}\nstorage:\n  luks:\n    - name: a\n      device: /dev/a\n      cex: {enabled: true}\n",
			want: []string{"a.yaml:22:9: error: unknown key cex in version 1.5.0 of variant fcos (butane.0.storage.luks.0.cex)"},
		},
		"not a value of this type": {
			text: "storage:\n  files:\n    - path: /a\n      mode: rw-r--r--\n    - path: [x]\n",
			want: []string{
				"a.yaml:14:15: error: cannot unmarshal !!str `rw-r--r--` into int (butane.0)",
				"a.yaml:15:15: error: cannot unmarshal !!seq into string (butane.0)",
			},
		},
		"a key twice": {
			text: "storage:\n  files:\n    - path: /a\n      path: /b\n",
			want: []string{`a.yaml:14:9: error: mapping key "path" already defined in line 13 (butane.0)`},
		},
		"indented wrongly": {
			text: "storage:\n  files:\n    - path: /a\n     mode: 0644\n",
			want: []string{"a.yaml:14:8: error: not YAML: did not find expected '-' indicator (butane.0)"},
		},
		"a colon too many": {
			text: "storage:\n  files:\n    - path: /a: b\n",
			want: []string{"a.yaml:13:7: error: not YAML: mapping values are not allowed in this context (butane.0)"},
		},
		"a tab": {
			text: "storage:\n\tfiles: []\n",
			want: []string{"a.yaml:12:4: error: not YAML: found character that cannot start any token (butane.0)"},
		},
		"not a mapping": {text: "- a\n", want: []string{`a.yaml:11:3: error: a Butane document is a mapping, such as "storage: ..." (butane.0)`}},
		"two documents": {text: "storage: {}\n---\nsystemd: {}\n", want: []string{"a.yaml:12:3: error: a second YAML document begins here, and only one is read: put it into a fragment of its own (butane.0)"}},
		"a relative path": {
			text: "storage:\n  files:\n    - path: /a\n    - path: b\n",
			want: []string{"a.yaml:14:15: error: path not absolute (butane.0.storage.files.1.path)"},
		},
		"the same file twice": {
			text: "storage:\n  files:\n    - path: /a\n    - path: /a\n",
			want: []string{"a.yaml:14:9: error: duplicate entry defined (butane.0.storage.files.1)"},
		},
		"a broken unit": {
			text: "systemd:\n  units:\n    - name: a.service\n      contents: |\n        [Service\n        ExecStart=/a\n",
			want: []string{"a.yaml:14:19: error: invalid unit content: unable to find end of section (butane.0.systemd.units.0.contents)"},
		},
		"a decimal mode": {
			text: "storage:\n  files:\n    - path: /a\n      mode: 644\n",
			want: []string{"a.yaml:14:15: warning: unreasonable mode would be reasonable if specified in octal; remember to add a leading zero (butane.0.storage.files.0.mode)"},
		},
		"a local file": {
			text: "storage:\n  files:\n    - path: /a\n      contents:\n        local: secret.txt\n",
			want: []string{"a.yaml:15:18: error: local files cannot be included here: write the text inline or give a source URL (butane.0.storage.files.0.contents.local)"},
		},
		"a local tree": {
			text: "storage:\n  trees:\n    - local: /etc\n",
			want: []string{"a.yaml:13:9: error: local files cannot be included here: write the text inline or give a source URL (butane.0.storage.trees.0)"},
		},
		"local keys and units": {
			text: "passwd:\n  users:\n    - name: core\n      ssh_authorized_keys_local: [id.pub]\nsystemd:\n  units:\n    - name: a.service\n      contents_local: a.service\n",
			want: []string{
				"a.yaml:14:36: error: local files cannot be included here: write the text inline or give a source URL (butane.0.passwd.users.0.ssh_authorized_keys_local)",
				"a.yaml:18:25: error: local files cannot be included here: write the text inline or give a source URL (butane.0.systemd.units.0.contents_local)",
			},
		},
		"another family's variant": {
			text: "version: 1.1.0\nvariant: flatcar\n",
			want: []string{"a.yaml:12:12: error: variant flatcar does not fit an image of family fedora-coreos, whose variant is fcos (butane.0.variant)"},
		},
		"CoreOS text for Flatcar": {
			family: boot.Flatcar,
			text:   "variant: fcos\nversion: 1.6.0\n",
			want:   []string{"a.yaml:11:12: error: variant fcos does not fit an image of family flatcar, whose variant is flatcar (butane.0.variant)"},
		},
		"a version that is not there": {
			text: "variant: fcos\nversion: 2.0\n",
			want: []string{"a.yaml:12:12: error: variant fcos has no stable version 2.0; there are 1.0.0, 1.1.0, 1.2.0, 1.3.0, 1.4.0, 1.5.0, 1.6.0, 1.7.0 (butane.0.version)"},
		},
		"what Flatcar does not do": {
			family: boot.Flatcar,
			text:   "storage:\n  luks:\n    - name: a\n      device: /dev/a\n      clevis: {tpm2: true}\n",
			want:   []string{"a.yaml:15:17: error: clevis is not supported in this spec version (butane.0.storage.luks.0.clevis)"},
		},
		"setuid before it was supported": {
			text: "version: 1.6.0\nstorage:\n  files:\n    - path: /a\n      mode: 04755\n",
			want: []string{"a.yaml:15:15: warning: setuid/setgid/sticky bits are not supported or functional in spec versions older than 3.6.0 (butane.0.storage.files.0.mode)"},
		},
		"setuid in the first version": {
			text: "version: 1.0.0\nstorage:\n  directories:\n    - path: /a\n      mode: 03777\n",
			want: []string{"a.yaml:15:15: warning: setuid/setgid/sticky bits are not supported or functional in spec versions older than 3.6.0 (butane.0.storage.directories.0.mode)"},
		},
		"setuid": {text: "storage:\n  files:\n    - path: /a\n      mode: 04755\n"},
		"merge keys and aliases": {
			text: "x: &x {mode: 0600}\nstorage:\n  files:\n    - path: /a\n      <<: *x\n",
			want: []string{"a.yaml:11:3: error: unknown key x in version 1.7.0 of variant fcos (butane.0.x)"},
		},
		"in a flow": {
			text: "storage: {files: [{path: /a, mod: 1}]}",
			want: []string{"a.yaml:11:32: error: unknown key mod in version 1.7.0 of variant fcos (butane.0.storage.files.0.mod)"},
		},
		"an unclosed quotation": {
			text: "storage:\n  files:\n    - path: \"/a\n      mode: 0644\n",
			want: []string{"a.yaml:13:7: error: not YAML: found unexpected end of stream (butane.0)"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			family := tt.family
			if family == "" {
				family = boot.FedoraCoreOS
			}
			tmpl, err := prepare(family, tt.text)
			if diff := cmp.Diff(tt.want, said(t, tmpl, err)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestAllMistakesAtOnce(t *testing.T) {
	p := &boot.Profile{
		Name:    "worker",
		SSHKeys: []string{"ssh-ed25519 AAAA one", " ", "ssh-ed25519 AAAA two\nssh-ed25519 AAAA three"},
		Files: []boot.File{
			{Path: "/etc/motd", Contents: "x", Source: "http://h/x"},
			{Path: "etc/issue", Contents: "x"},
			{Path: "/etc/sums", Contents: "x", SHA256: "00"},
			{Path: "/etc/source", Source: "rsync://h/x"},
		},
		Units: []boot.Unit{
			{Name: "a.service", Contents: "[Service\n"},
			{Name: "b.service", Enabled: new(true), Contents: "[Service]\nExecStart=/b\n"},
		},
		Butane: []boot.Fragment{{Text: "nope: 1\n"}, {Text: "nein: 1\n", Origin: boot.Origin{Note: "image x"}}},
		Origins: map[string]boot.Origin{
			"ssh_keys.1": {File: "w.yaml", Line: 3, Column: 5}, "ssh_keys.2": {File: "w.yaml", Line: 4, Column: 5},
			"files./etc/motd": {File: "w.yaml", Line: 6, Column: 5}, "files.etc/issue": {File: "w.yaml", Line: 7, Column: 5},
			"files./etc/source": {File: "w.yaml", Line: 9, Column: 5},
			"units.a.service":   {File: "w.yaml", Line: 11, Column: 5}, "units.b.service": {File: "w.yaml", Line: 12, Column: 5},
		},
	}
	_, err := ignition.Prepare(p, boot.FedoraCoreOS)
	want := []string{
		"w.yaml:3:5: error: an SSH key is one line (ssh_keys.1)",
		"w.yaml:4:5: error: an SSH key is one line (ssh_keys.2)",
		"w.yaml:6:5: error: file /etc/motd has contents and a source; one of them must go (files./etc/motd)",
		"error: file /etc/sums has a sha256 but no source that it could be of (files./etc/sums)",
		"w.yaml:7:5: error: path not absolute (files.etc/issue)",
		"w.yaml:9:5: error: invalid url scheme (files./etc/source)",
		"w.yaml:11:5: error: invalid unit content: unable to find end of section (units.a.service)",
		`w.yaml:12:5: warning: unit "b.service" is enabled, but has no install section so enable does nothing (units.b.service)`,
		"error: unknown key nope in version 1.7.0 of variant fcos (butane.0.nope)",
		"image x: error: unknown key nein in version 1.7.0 of variant fcos (butane.1.nein)",
	}
	if diff := cmp.Diff(want, said(t, nil, err)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if s := err.Error(); !strings.HasPrefix(s, "cannot render profile worker:\nw.yaml:3:5: error: ") || strings.Contains(s, "warning") || strings.Count(s, "\n") != 9 {
		t.Errorf("the error reads\n%s", s)
	}
}

func TestFamilyWithoutIgnition(t *testing.T) {
	_, err := ignition.Prepare(&boot.Profile{Name: "p"}, boot.Linux)
	if err == nil || err.Error() != `cannot render profile p: images of family "linux" take no Ignition config` {
		t.Errorf("err = %v", err)
	}
}
