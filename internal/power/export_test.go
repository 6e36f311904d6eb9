package power

// MagicPacket and ParseSecureOn are pure, and tested without a network.
var (
	MagicPacket   = magicPacket
	ParseSecureOn = parseSecureOn
)
