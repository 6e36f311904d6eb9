// Package swarm keeps a Docker Swarm true to the machines that bootd boots:
// it makes the swarm, gives out what machines need to join, sets the labels,
// role and availability of their nodes, and removes the nodes of machines that
// are gone.
//
// A diskless machine is a new node with a new ID at every boot, and the swarm
// itself never forgets the old ones. So each node that bootd takes charge of
// carries bootd's own labels (see [LabelPrefix]): which machine it is, and
// which of its other labels were put there from the configuration. They are
// all the memory that is needed; after the loss of every file of bootd it still
// knows its own nodes from those that somebody joined by hand, which it never
// touches.
//
// What to do is decided by [Plan], a pure function of the machines, the nodes
// and the time. [Swarm] looks, plans and acts, again and again: on each node
// event of the engine, when nudged, and every few seconds. Being killed between
// two actions is harmless, since the next look shows what is left to do.
//
// The engine may be elsewhere: it is reached by a socket, by TCP with or without
// TLS, or through an SSH server. What keeps bootd from it is said with what
// helps. Overlay networks that are declared are kept as well, beside the nodes:
// those that bootd made carry a label, and only those are ever removed, when
// they are not declared any more and nothing uses them.
//
// A Swarm's methods may be called from any goroutine at any time, also before
// and after Run. The package is the only one that knows Docker's API. It does
// not start engines, and it says nothing to machines: whoever serves them calls
// [Swarm.Join].
package swarm
