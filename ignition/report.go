package ignition

import (
	"fmt"
	"slices"
	"strings"

	"bootd/boot"
)

// A Kind is how grave an entry is.
type Kind string

// The kinds of entries.
const (
	Error   Kind = "error" // nothing can be rendered
	Warning Kind = "warning"
	Info    Kind = "info"
)

// An Entry is one remark about a profile.
type Entry struct {
	Kind    Kind
	Message string
	Origin  boot.Origin // where the cause was written
	Key     string      // what it is about, as a path into the profile: butane.0.storage.files.1.mode
}

// String writes e as file:line:column: kind: message (key).
func (e Entry) String() string {
	s := string(e.Kind) + ": " + e.Message
	if o := e.Origin.String(); o != "" {
		s = o + ": " + s
	}
	if e.Key != "" {
		s += " (" + e.Key + ")"
	}
	return s
}

// Invalid is the error for a profile that cannot be rendered.
type Invalid struct {
	Profile string
	Entries []Entry // in the order of the layers; at least one is an Error
}

// Error lists the errors, one in a line.
func (i *Invalid) Error() string {
	var lines []string
	for _, e := range i.Entries {
		if e.Kind == Error {
			lines = append(lines, e.String())
		}
	}
	sep := " "
	if len(lines) > 1 {
		sep = "\n"
	}
	return fmt.Sprintf("cannot render profile %s:%s%s", i.Profile, sep, strings.Join(lines, "\n"))
}

func fatal(entries []Entry) bool {
	return slices.ContainsFunc(entries, func(e Entry) bool { return e.Kind == Error })
}
