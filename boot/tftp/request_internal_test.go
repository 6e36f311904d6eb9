package tftp

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseRequest(t *testing.T) {
	const rrq, wrq = "\x00\x01", "\x00\x02"
	for name, tt := range map[string]struct {
		packet string
		want   request
		err    error
	}{
		"plain":              {rrq + "a\x00octet\x00", request{name: "a", mode: "octet"}, nil},
		"EDK2 size probe":    {rrq + "snponly.efi\x00octet\x00tsize\x000\x00blksize\x001468\x00", request{name: "snponly.efi", mode: "octet", block: 1468, size: true}, nil},
		"EDK2 with a window": {rrq + "a\x00octet\x00blksize\x001468\x00windowsize\x004\x00", request{name: "a", mode: "octet", block: 1468, window: 4}, nil},
		"a timeout":          {rrq + "a\x00octet\x00timeout\x003\x00", request{name: "a", mode: "octet", timeout: 3 * time.Second}, nil},
		"odd windows":        {rrq + "a\x00octet\x00windowsize\x000\x00timeout\x00256\x00windowsize\x0065536\x00timeout\x000\x00", request{name: "a", mode: "octet"}, nil},
		"shouting":           {rrq + "A\x00OCTET\x00BLKSIZE\x00600\x00TSIZE\x000\x00", request{name: "A", mode: "octet", block: 600, size: true}, nil},
		"padded with zeros":  {rrq + "a\x00octet\x00" + strings.Repeat("\x00", 300), request{name: "a", mode: "octet"}, nil},
		"option cut off":     {rrq + "a\x00octet\x00blksize\x0014", request{name: "a", mode: "octet"}, nil},
		"block too small":    {rrq + "a\x00octet\x00blksize\x008\x00", request{name: "a", mode: "octet"}, nil},
		"block too large":    {rrq + "a\x00octet\x00blksize\x0065465\x00", request{name: "a", mode: "octet"}, nil},
		"block no number":    {rrq + "a\x00octet\x00blksize\x001e3\x00", request{name: "a", mode: "octet"}, nil},
		"empty":              {"", request{}, errNotRequest},
		"short":              {"\x00", request{}, errNotRequest},
		"no name":            {rrq + "\x00octet\x00", request{}, errNotRequest},
		"no mode":            {rrq + "a\x00", request{}, errNotRequest},
		"nothing ended":      {rrq + "a", request{}, errNotRequest},
		"too large":          {rrq + strings.Repeat("a", 505) + "\x00octet\x00", request{}, errNotRequest},
		"as large as can be": {rrq + strings.Repeat("a", 503) + "\x00octet\x00", request{name: strings.Repeat("a", 503), mode: "octet"}, nil},
		"write":              {wrq + "a\x00octet\x00", request{}, errWrite},
		"data":               {"\x00\x03\x00\x01abc", request{}, errNotRequest},
		"acknowledgement":    {"\x00\x04\x00\x01", request{}, errNotRequest},
		"error":              {"\x00\x05\x00\x08User aborted\x00", request{}, errNotRequest},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseRequest([]byte(tt.packet))
			if !errors.Is(err, tt.err) {
				t.Fatalf("err = %v, want %v", err, tt.err)
			}
			if tt.err != nil {
				return
			}
			if d := cmp.Diff(tt.want, got, cmp.AllowUnexported(request{})); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestCleanName(t *testing.T) {
	for in, want := range map[string]string{
		"snponly.efi":                    "snponly.efi",
		"/snponly.efi":                   "snponly.efi",
		"//snponly.efi":                  "snponly.efi",
		`\snponly.efi`:                   "snponly.efi",
		`arm64\snponly.efi`:              "arm64/snponly.efi",
		"arm64//snponly.efi":             "arm64/snponly.efi",
		"./arm64/./snponly.efi":          "arm64/snponly.efi",
		"undionly.kpxe\xff":              "undionly.kpxe",
		"undionly.kpxe\xff\xff":          "undionly.kpxe",
		"boot/../pxelinux.cfg/default":   "pxelinux.cfg/default",
		"../../etc/passwd":               "etc/passwd",
		`..\..\etc\passwd`:               "etc/passwd",
		"/../../../etc/passwd":           "etc/passwd",
		"pxelinux.cfg/01-52-54-00-12-34": "pxelinux.cfg/01-52-54-00-12-34",
		"dir/":                           "dir",
		"...":                            "...",
		"..foo":                          "..foo",
		"C:/x":                           "C:/x",
		"":                               "",
		"/":                              "",
		".":                              "",
		"..":                             "",
		`\\`:                             "",
		"\xff":                           "",
		"a\nb":                           "",
		"a\x7f":                          "",
		"\x1b[2J":                        "",
	} {
		got, ok := cleanName(in)
		if ok != (want != "") || ok && got != want {
			t.Errorf("%q is understood as %q, %t; want %q", in, got, ok, want)
		}
	}
}
