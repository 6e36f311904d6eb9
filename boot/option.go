package boot

// An Option is a DHCP option as somebody configured it (RFC 2132).
type Option struct {
	Code   uint8
	Value  []byte // at most 255 bytes
	Always bool   // also to clients that do not ask for it
	Text   string // the value as it was written, for people
	Origin Origin
}
