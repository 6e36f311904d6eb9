// Package web is bootd's dashboard: pages for people who want to see what their
// machines are doing, why one is stuck, and what can be done about it.
//
//	/                              what is happening now
//	/machines                      all machines; q= filters, group= groups, page= turns
//	/machines/{id}                 one machine; boot= shows an earlier boot
//	/machines/{id}/story           everything that happened in a boot, as text
//	/machines/{id}/do/{verb}       asks before an order is given (GET), gives it (POST)
//	/networks                      networks, their pools, and the leases
//	/leases/{addr}/release         the same for a lease
//	/swarm                         the nodes of the swarms
//	/swarm/{swarm}/{node}/{verb}   the same for a node
//	/events                        what happened
//	/live                          that something happened, as server-sent events
//
// Pages are whole HTML documents, made here; they work without scripts. A small
// script fetches the page again when /live says that something has happened, and
// puts in what differs: there is one description of each page, and no second one
// in JavaScript. Everything is embedded and nothing comes from elsewhere, which
// the content security policy holds the browser to.
//
// What the dashboard shows and orders it gets through the interfaces in [Config].
// It keeps no state but who has logged in, and knows nothing of how things are
// done. A new page is a template in pages/, a function that returns its content,
// and a line in [New].
//
// # Who may use it
//
// The handler of [New] asks nobody who they are: whoever serves it on a unix
// socket relies on that socket's permissions. [Sessions] guards it where others
// could connect, as on a TCP port. Either way a browser that was led here by
// another site changes nothing: orders are given by POST only, which
// [http.CrossOriginProtection] refuses from elsewhere, and a name that is not
// this machine's own (DNS rebinding) is refused as well.
package web
