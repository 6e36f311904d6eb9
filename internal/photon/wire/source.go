package wire

import "embed"

// Source holds the files of this package: the comments of its types are the
// descriptions in the API's document.
//
//go:embed *.go
var Source embed.FS
