package fleet

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// A machine is a table of states with its verbs, without its types.
type machine struct {
	begin, end string // end: "" if it has none
	edges      map[string][]string
	rules      []rule[string]
}

func plain[S ~string](begin, end S, e edges[S], rules []rule[S]) machine {
	m := machine{begin: string(begin), end: string(end), edges: map[string][]string{}}
	for from, list := range e {
		m.edges[string(from)] = []string{}
		for _, to := range list {
			m.edges[string(from)] = append(m.edges[string(from)], string(to))
		}
	}
	for _, r := range rules {
		x := rule[string]{op: r.op, to: string(r.to)}
		for _, f := range r.from {
			x.from = append(x.from, string(f))
		}
		m.rules = append(m.rules, x)
	}
	return m
}

func machines() map[string]machine {
	return map[string]machine{
		"zone":       plain(ZoneCreating, ZoneDeleted, zoneEdges, nil),
		"flavor":     plain(FlavorCreating, FlavorDeleted, flavorEdges, nil),
		"image":      plain(ImageCreating, ImageDeleted, imageEdges, nil),
		"host":       plain(HostCreating, HostDeleted, hostEdges, hostRules),
		"vm":         plain(VMCreating, VMDeleted, vmEdges, vmRules),
		"disk":       plain(DiskCreating, DiskDeleted, diskEdges, diskRules),
		"subnet":     plain(SubnetCreating, SubnetDeleted, subnetEdges, nil),
		"cluster":    plain(ClusterCreating, ClusterDeleted, clusterEdges, clusterRules),
		"task":       plain(TaskQueued, "", taskEdges, nil),
		"deployment": plain(DeploymentCreating, "", deploymentEdges, deploymentRules),
	}
}

func (m machine) reach(from string) map[string]bool {
	seen := map[string]bool{from: true}
	for todo := []string{from}; len(todo) > 0; {
		s := todo[0]
		todo = todo[1:]
		for _, next := range m.edges[s] {
			if !seen[next] {
				seen[next] = true
				todo = append(todo, next)
			}
		}
	}
	return seen
}

// TestStateTables checks what must be true of every table: nothing leads out of
// it, everything is reached, nothing is stuck, the end is the end, and an error
// can always be deleted.
func TestStateTables(t *testing.T) {
	for name, m := range machines() {
		reached := m.reach(m.begin)
		for s, list := range m.edges {
			for _, to := range list {
				if _, ok := m.edges[to]; !ok {
					t.Errorf("%s: %s leads to %s, which is no state of the table", name, s, to)
				}
				if to == s {
					t.Errorf("%s: %s is listed to follow itself, which needs no entry", name, s)
				}
			}
			if !reached[s] {
				t.Errorf("%s: nothing leads from %s to %s", name, m.begin, s)
			}
			if m.end != "" && !m.reach(s)[m.end] {
				t.Errorf("%s: there is no way out of %s", name, s)
			}
			if m.end != "" && strings.HasSuffix(s, "ERROR") && name != "cluster" && !slices.Contains(list, m.end) {
				t.Errorf("%s: it cannot be deleted from %s", name, s)
			}
		}
		if m.end != "" && len(m.edges[m.end]) > 0 {
			t.Errorf("%s: something follows %s", name, m.end)
		}
		for _, r := range m.rules {
			for _, f := range r.from {
				if to := r.to; to != "" && !edges[string](m.edges).has(f, to) {
					t.Errorf("%s: %s is allowed in %s and leads to %s, which may not follow", name, r.op, f, to)
				}
				if _, ok := m.edges[f]; !ok {
					t.Errorf("%s: %s is allowed in %s, which is no state", name, r.op, f)
				}
			}
		}
	}
}

// TestVerbsStayInTheTable gives verbs in any order: a refused one changes
// nothing and says why, an allowed one leads where the table says.
func TestVerbsStayInTheTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		vm, host, disk := VM{ID: "v", State: VMStopped}, Host{ID: "h", State: HostCreating}, Disk{ID: "d", State: DiskDetached}
		ops := []Operation{StartVM, StopVM, RestartVM, SuspendVM, ResumeVM, AttachDisk, DetachDisk, AttachISO, CreateVMImage, GetMKSTicket, DeleteVM,
			SuspendHost, ResumeHost, EnterMaintenance, ExitMaintenance, ProvisionHost, DeleteHost, DeleteDisk, ResizeCluster}
		for range 30 {
			op := rapid.SampledFrom(ops).Draw(t, "op")
			vm.State = step(t, op, vm.State, vmEdges, vm.After)
			host.State = step(t, op, host.State, hostEdges, host.After)
			disk.State = step(t, op, disk.State, diskEdges, disk.After)
		}
	})
}

func step[S ~string](t *rapid.T, op Operation, from S, e edges[S], after func(Operation) (S, error)) S {
	to, err := after(op)
	if !e.has(from, to) {
		t.Fatalf("%s led from %s to %s", op, from, to)
	}
	if err != nil && (to != from || CodeOf(err) == InternalError || !strings.Contains(err.Error(), " ")) {
		t.Fatalf("%s in %s was refused, but leads to %s with error %v", op, from, to, err)
	}
	if len(e[from]) == 0 && err == nil {
		t.Fatalf("%s was allowed in %s, which is the end", op, from)
	}
	return to
}
