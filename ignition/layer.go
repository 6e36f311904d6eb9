package ignition

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"bootd/boot"

	"github.com/clarketm/json"
	baseutil "github.com/coreos/butane/base/util"
	ign "github.com/coreos/ignition/v2/config/v3_6"
	"github.com/coreos/ignition/v2/config/v3_6/types"
	"github.com/coreos/ignition/v2/config/validate"
	"github.com/coreos/vcontext/report"
)

// A layer is a part of a config, from one place.
type layer struct {
	config types.Config
	// locate says where the value at a path of the config was written, and
	// what it is called there.
	locate func(path []any) (boot.Origin, string)
}

// merge lays child over parent.
func merge(parent, child types.Config) types.Config {
	return ign.Merge(keepSources(parent, child), child)
}

// keepSources returns parent without the contents of those files that child
// gives contents of its own. Left to Ignition's merge, what parent says of its
// source (hash, compression, headers) would be applied to child's.
func keepSources(parent, child types.Config) types.Config {
	replaced := map[string]bool{}
	for _, f := range child.Storage.Files {
		if f.Contents.Source != nil {
			replaced[f.Path] = true
		}
	}
	cloned := false
	for i, f := range parent.Storage.Files {
		if !replaced[f.Path] || reflect.ValueOf(f.Contents).IsZero() {
			continue
		}
		if !cloned {
			parent.Storage.Files, cloned = slices.Clone(parent.Storage.Files), true
		}
		parent.Storage.Files[i].Contents = types.Resource{}
	}
	return parent
}

// check is Ignition's own validation.
func check(c types.Config) report.Report { return validate.ValidateWithContext(c, nil) }

// profileLayer is what the profile's own keys say.
func profileLayer(p *boot.Profile) (layer, []Entry) {
	var c types.Config
	var entries []Entry
	c.Ignition.Version = Newest.String()
	if len(p.SSHKeys) > 0 {
		u := types.PasswdUser{Name: "core"}
		for i, k := range p.SSHKeys {
			k = strings.TrimSpace(k)
			if k == "" || strings.ContainsAny(k, "\r\n") {
				key := fmt.Sprintf("ssh_keys.%d", i)
				entries = append(entries, Entry{Error, "an SSH key is one line", p.Origins[key], key})
			}
			u.SSHAuthorizedKeys = append(u.SSHAuthorizedKeys, types.SSHAuthorizedKey(k))
		}
		c.Passwd.Users = []types.PasswdUser{u}
	}
	for _, f := range p.Files {
		file, err := profileFile(f)
		if err != nil {
			key := "files." + f.Path
			entries = append(entries, Entry{Error, err.Error(), p.Origins[key], key})
		}
		c.Storage.Files = append(c.Storage.Files, file)
	}
	for _, u := range p.Units {
		c.Systemd.Units = append(c.Systemd.Units, profileUnit(u))
	}
	l := layer{c, func(path []any) (boot.Origin, string) { return profileOrigin(p, path) }}
	for _, e := range check(c).Entries {
		o, key := l.locate(e.Context.Path)
		entries = append(entries, Entry{kindOf(e), e.Message, o, key})
	}
	return l, entries
}

func profileFile(f boot.File) (types.File, error) {
	mode := f.Mode
	if mode == 0 {
		mode = 0o644
	}
	var file types.File
	file.Path, file.Mode, file.Overwrite = f.Path, &mode, new(true)
	if f.User != "" {
		file.User.Name = &f.User
	}
	if f.Group != "" {
		file.Group.Name = &f.Group
	}
	if f.Source != "" {
		file.Contents.Source, file.Contents.Compression = &f.Source, new("")
		if f.SHA256 != "" {
			file.Contents.Verification.Hash = new("sha256-" + strings.ToLower(f.SHA256))
		}
		if f.Contents != "" {
			return file, fmt.Errorf("file %s has contents and a source; one of them must go", f.Path)
		}
		return file, nil
	}
	url, compression, err := baseutil.MakeDataURL([]byte(f.Contents), nil, true)
	if err != nil {
		return file, fmt.Errorf("cannot encode file %s: %w", f.Path, err)
	}
	file.Contents.Source, file.Contents.Compression = &url, compression
	if f.SHA256 != "" {
		return file, fmt.Errorf("file %s has a sha256 but no source that it could be of", f.Path)
	}
	return file, nil
}

func profileUnit(u boot.Unit) types.Unit {
	unit := types.Unit{Name: u.Name, Enabled: u.Enabled}
	if u.Mask {
		unit.Mask = new(true)
	}
	if u.Contents != "" {
		unit.Contents = &u.Contents
	}
	for _, name := range slices.Sorted(maps.Keys(u.DropIns)) {
		unit.Dropins = append(unit.Dropins, types.Dropin{Name: name, Contents: new(u.DropIns[name])})
	}
	return unit
}

// profileOrigin finds the key that became the value at path in the layer that
// profileLayer makes of p.
func profileOrigin(p *boot.Profile, path []any) (boot.Origin, string) {
	at := func(i int) any {
		if i < len(path) {
			return path[i]
		}
		return nil
	}
	key := ""
	switch at(0) {
	case "passwd": // passwd.users.0.sshAuthorizedKeys.1
		key = "ssh_keys"
		if i, ok := at(4).(int); ok {
			key = fmt.Sprintf("ssh_keys.%d", i)
		}
	case "storage":
		key = "files"
		if i, ok := at(2).(int); ok && i < len(p.Files) {
			key = "files." + p.Files[i].Path
		}
	case "systemd":
		key = "units"
		if i, ok := at(2).(int); ok && i < len(p.Units) {
			key = "units." + p.Units[i].Name
		}
	}
	return p.Origins[key], key
}

func kindOf(e report.Entry) Kind {
	switch e.Kind {
	case report.Error:
		return Error
	case report.Warn:
		return Warning
	}
	return Info
}

// encode writes c as JSON. The package is Butane's choice: the standard one
// would write out every empty struct.
func encode(c types.Config, v Version) []byte {
	c.Ignition.Version = v.String()
	b, err := json.Marshal(c)
	if err != nil { // strings, numbers and booleans only
		panic(fmt.Sprintf("ignition: encoding a config: %v", err))
	}
	return b
}
