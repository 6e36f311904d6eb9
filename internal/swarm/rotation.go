package swarm

import (
	"time"
)

// A Rotation says when the join tokens are replaced. The zero value means
// never.
type Rotation struct {
	AfterJoins bool          // after each wave of joins
	Age        time.Duration // when they are older than this; 0: however old they are
}

const (
	// wave is how long nobody has joined when a wave of joins is over.
	wave = 2 * time.Minute
	// boots is how long after its beginning a boot may still come to joining.
	boots = 15 * time.Minute
)

// due reports whether the tokens, made at a time, are to be replaced now, and
// why. As long as machines are on their way into the swarm, only age decides,
// and not at the first moment: they hold tokens.
func (r Rotation) due(made time.Time, nodes []Node, machines []Machine, now time.Time) (why string, yes bool) {
	onTheWay := false
	for _, m := range machines {
		onTheWay = onTheWay || m.NodeID == "" && !m.Started.IsZero() && now.Sub(m.Started) < boots
	}
	age := now.Sub(made)
	if r.Age > 0 && (age > r.Age && !onTheWay || age > r.Age+boots) {
		return "they are older than " + r.Age.String(), true
	}
	if !r.AfterJoins || onTheWay {
		return "", false
	}
	var last time.Time
	for _, n := range nodes {
		if n.Created.After(last) {
			last = n.Created
		}
	}
	if last.After(made) && now.Sub(last) > wave {
		return "nodes have joined with them", true
	}
	return "", false
}
