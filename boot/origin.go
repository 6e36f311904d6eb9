package boot

import "fmt"

// An Origin is where a value was written.
type Origin struct {
	File   string `json:"file,omitempty"` // relative to the configuration directory
	Line   int    `json:"line,omitempty"` // from 1
	Column int    `json:"column,omitempty"`
	Note   string `json:"note,omitempty"` // when no file says it: "default", "image fedora-coreos/stable"
}

// String writes o as file:line:column, or its note.
func (o Origin) String() string {
	switch {
	case o.File == "":
		return o.Note
	case o.Line == 0:
		return o.File
	}
	return fmt.Sprintf("%s:%d:%d", o.File, o.Line, o.Column)
}
