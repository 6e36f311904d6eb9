// Package doctor looks at what a boot server needs of the machine it runs on:
// its ports, its firewall, its clock, its disk. It changes nothing.
//
// What the kernel and other programs say is read at the rim; what that means is
// decided by functions of it, which are [Firewall.Verdict], [Clock.Finding] and
// [Disk.Findings].
package doctor

// A Level is how bad a finding is.
type Level string

// The levels of findings.
const (
	OK      Level = "ok"
	Unknown Level = "unknown" // it could not be looked at
	Warning Level = "warning" // it works, or may; something is not as it should be
	Fault   Level = "fault"   // machines do not boot, or not all of them
)

// A Finding is what was found about one thing.
type Finding struct {
	Check  string `json:"check"` // what was looked at, as network or disk
	Level  Level  `json:"level"`
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"` // what helps; empty when nothing is wrong
}

// Worst is the highest level of findings; OK when there are none.
func Worst(list []Finding) Level {
	worst := OK
	rank := map[Level]int{OK: 0, Unknown: 1, Warning: 2, Fault: 3}
	for _, f := range list {
		if rank[f.Level] > rank[worst] {
			worst = f.Level
		}
	}
	return worst
}
