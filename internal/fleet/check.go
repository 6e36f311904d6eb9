package fleet

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// Mistakes collects what is wrong with a request, so that all of it is told at
// once.
type Mistakes []string

// Add notes that the value at a path breaks a rule: "password", "may not be
// null", "null".
func (m *Mistakes) Add(path, rule string, was any) {
	*m = append(*m, fmt.Sprintf("%s %s (was %v)", path, rule, was))
}

// Err is nil, or an error with code [InvalidEntity] that names every mistake.
func (m Mistakes) Err() error {
	if len(m) == 0 {
		return nil
	}
	return &Error{Code: InvalidEntity, Message: strings.Join(m, ", ")}
}

const namePattern = `^[a-zA-Z][a-zA-Z0-9-]*`

var name = regexp.MustCompile(namePattern + `$`)

// Required notes an empty text. Photon says null of it.
func (m *Mistakes) Required(path, s string) {
	if s == "" {
		m.Add(path, "may not be null", "null")
	}
}

// Name notes what is not a name of at most 63 characters.
func (m *Mistakes) Name(path, s string) {
	m.SubnetName(path, s)
	if len(s) > 63 {
		m.Add(path, "size must be between 1 and 63", s)
	}
}

// SubnetName notes what is not a name; subnets' may be long.
func (m *Mistakes) SubnetName(path, s string) {
	switch {
	case s == "":
		m.Required(path, s)
	case !name.MatchString(s):
		m.Add(path, `must match "`+namePattern+`"`, s)
	}
}

// Tag notes what is not 1 to 64 characters.
func (m *Mistakes) Tag(path, s string) {
	if n := utf8.RuneCountInString(s); n < 1 || n > 64 {
		m.Add(path, "size must be between 1 and 64", s)
	}
}

// OneOf notes what is not among the values that there are.
func OneOf[T ~string](m *Mistakes, path string, v T, among ...T) {
	if v == "" {
		m.Required(path, "")
		return
	}
	if slices.Contains(among, v) {
		return
	}
	var words []string
	for _, a := range among {
		words = append(words, string(a))
	}
	m.Add(path, `must match "`+strings.Join(words, "|")+`"`, v)
}

// Limits notes amounts without a key or unit; at least one must be there.
func (m *Mistakes) Limits(path string, a Amounts) {
	if len(a) == 0 {
		m.Add(path, "size must be between 1 and 2147483647", "[]")
	}
	for _, k := range a.Keys() {
		if k == "" {
			m.Add(path+".key", "may not be null", "null")
		}
		if !a[k].unit.valid() {
			m.Add(path+"["+k+"].unit", "may not be null", "null")
		}
	}
}

var domain = regexp.MustCompile(`^([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.)*[a-zA-Z]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$`)

// Address notes what is neither an IP address nor a host name.
func (m *Mistakes) Address(path, s string) {
	if s == "" {
		m.Required(path, s)
		return
	}
	if ip, err := netip.ParseAddr(s); err == nil && ip.Zone() == "" {
		return
	}
	if len(s) > 253 || !domain.MatchString(s) {
		m.Add(path, s+" is invalid IP or Domain Address", s)
	}
}
