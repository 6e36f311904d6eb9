// Package dhcp is a DHCPv4 server for machines that boot from the network: it
// gives addresses and says which file to boot (RFC 2131, RFC 4578).
//
// What to answer is decided in one place, [Policy.Answer], from a decoded
// [Request], the catalog and the leases; nothing there touches a socket. A
// [Server] moves packets: it reads batches from one socket per interface, sends
// offers at once, and sends acknowledgements when the leases in them are on
// stable storage, as many as there are with one sync.
//
// It is authoritative on its networks, also through relay agents: whoever asks
// for an address that it cannot have is told so. Leases belong to hardware
// addresses; client identifiers are ignored, because one machine shows
// several while it boots. An address that its client did not have before is
// offered only after nobody on the wire said that he uses it.
//
// When more comes than can be answered, the oldest requests are dropped, and
// counted. Who makes up hardware addresses does not get all of a network's
// addresses ([Flood]). Networks in other modes are left alone.
package dhcp
