package ignition

import (
	"cmp"
	"fmt"
	"mime"
	"strconv"
	"strings"
)

// A Version is a version of the Ignition config specification.
type Version struct {
	Major, Minor, Patch int
	Pre                 string // experimental; empty for a stable version
}

// Oldest and Newest bound the versions that a config can be served in.
var (
	Oldest = Version{Major: 3}
	Newest = Version{Major: 3, Minor: 6}
)

// String writes v as 3.3.0 or 3.7.0-experimental.
func (v Version) String() string {
	s := fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch)
	if v.Pre != "" {
		s += "-" + v.Pre
	}
	return s
}

// Compare orders versions. One with Pre comes before the stable one of the
// same number.
func (v Version) Compare(w Version) int {
	if c := cmp.Or(cmp.Compare(v.Major, w.Major), cmp.Compare(v.Minor, w.Minor), cmp.Compare(v.Patch, w.Patch)); c != 0 {
		return c
	}
	switch {
	case v.Pre == w.Pre:
		return 0
	case v.Pre == "":
		return 1
	case w.Pre == "":
		return -1
	}
	return strings.Compare(v.Pre, w.Pre)
}

// less reports whether v comes before w.
func (v Version) less(w Version) bool { return v.Compare(w) < 0 }

const preLetters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-"

// parseVersion reads what String writes.
func parseVersion(s string) (v Version, ok bool) {
	num, pre, hasPre := strings.Cut(s, "-")
	parts := strings.Split(num, ".")
	if len(parts) != 3 || hasPre && pre == "" || strings.Trim(pre, preLetters) != "" {
		return Version{}, false
	}
	for i, p := range []*int{&v.Major, &v.Minor, &v.Patch} {
		n, err := strconv.ParseUint(parts[i], 10, 16)
		if err != nil || strconv.FormatUint(n, 10) != parts[i] {
			return Version{}, false
		}
		*p = int(n)
	}
	v.Pre = pre
	return v, true
}

// mediaType is how Ignition names its config format (internal/resource/url.go
// in its source).
const mediaType = "application/vnd.coreos.ignition+json"

// ParseAccept reads the newest specification version that a node can read from
// the Accept header of its request, which Ignition writes as
//
//	application/vnd.coreos.ignition+json;version=3.3.0, */*;q=0.1
//
// It reports false when the header names none: then the client is not Ignition.
func ParseAccept(header string) (Version, bool) {
	var best Version
	var found bool
	for item := range strings.SplitSeq(header, ",") {
		t, params, err := mime.ParseMediaType(item)
		if err != nil || t != mediaType {
			continue
		}
		if q, err := strconv.ParseFloat(params["q"], 64); err == nil && q <= 0 {
			continue
		}
		// Ignition 0.x also offers version=1, which nobody needs any more.
		if v, ok := parseVersion(params["version"]); ok && (!found || best.less(v)) {
			best, found = v, true
		}
	}
	return best, found
}
