package recipe_test

import (
	"net/netip"
	"strings"
	"testing"

	"bootd/boot"
	"bootd/ignition"
	"bootd/internal/fleet"
	"bootd/internal/recipe"
)

var mac = boot.MAC{0, 0x50, 0x56, 1, 2, 0xab}

// cluster is one of a type, with two known addresses.
func cluster(t *testing.T, kind fleet.ClusterType, image fleet.ImageID) fleet.Cluster {
	t.Helper()
	c, err := fleet.ClusterSpec{Name: "two", Type: kind, Workers: 2, Properties: map[string]string{
		"dns": "10.0.0.2", "gateway": "10.0.0.1", "netmask": "255.255.255.0", "etcd_ip1": "10.0.0.11", "etcd_ip2": "10.0.0.12",
		"zookeeper_ip1": "10.0.0.11", "zookeeper_ip2": "10.0.0.12", "master_ip": "10.0.0.20", "container_network": "10.2.0.0/16", "swarm": "lab",
	}}.Cluster("8d0c5f3e-0000-4000-8000-000000000000", "p")
	if err != nil {
		t.Fatal(err)
	}
	c.Image = image
	return c
}

// node is the last of a role.
func node(t *testing.T, c fleet.Cluster, kind fleet.NodeType) fleet.Node {
	t.Helper()
	r, ok := c.Role(kind)
	if !ok {
		t.Fatalf("%s has no %s", c.Type, kind)
	}
	n := fleet.Node{VM: "v", Cluster: c.ID, Type: kind, Name: r.Prefix + "-v", MAC: mac}
	if len(r.Addrs) > 0 {
		n.Addr = r.Addrs[len(r.Addrs)-1]
	}
	return n
}

// text is all that a profile says.
func text(p boot.Profile) string {
	var b strings.Builder
	for _, f := range p.Files {
		b.WriteString(f.Path + "\n" + f.Contents)
	}
	for _, u := range p.Units {
		b.WriteString(u.Name + "\n" + u.Contents)
	}
	return b.String()
}

// TestRoles: each role runs its software with the addresses of the others, and all of
// it is a config that Ignition takes, for both systems.
func TestRoles(t *testing.T) {
	for kind, want := range map[fleet.NodeType][]string{
		fleet.SwarmEtcd:   {"address1=10.0.0.12/24,10.0.0.1", "dns=10.0.0.2;", "mac-address=00:50:56:01:02:AB", "MACAddress=00:50:56:01:02:ab", "Gateway=10.0.0.1"},
		fleet.SwarmWorker: {},
		fleet.KubernetesEtcd: {"etcd.service", "--name=etcd2 ", "--initial-cluster=etcd1=http://10.0.0.11:2380,etcd2=http://10.0.0.12:2380 ",
			"--listen-peer-urls=http://10.0.0.12:2380", "address1=10.0.0.12/24"},
		fleet.KubernetesMaster: {"k3s:", " server ", "--datastore-endpoint=http://10.0.0.11:2379,http://10.0.0.12:2379", "--cluster-cidr=10.2.0.0/16", "address1=10.0.0.20/24", "/etc/bootd/k3s-token\nsecret\n"},
		fleet.KubernetesWorker: {" agent ", "--server=https://10.0.0.20:6443", "/etc/bootd/k3s-token\nsecret\n", "--node-name=worker-v"},
		fleet.MesosZookeeper:   {"ZOO_MY_ID=2 ", `"--env=ZOO_SERVERS=server.1=10.0.0.11:2888:3888;2181 server.2=10.0.0.12:2888:3888;2181"`},
		fleet.MesosMaster:      {"--zk=zk://10.0.0.11:2181,10.0.0.12:2181/mesos --quorum=2"},
		fleet.MesosMarathon:    {"--master zk://10.0.0.11:2181,10.0.0.12:2181/mesos --zk zk://10.0.0.11:2181,10.0.0.12:2181/marathon"},
		fleet.MesosWorker:      {"mesos-agent.service", "--master=zk://10.0.0.11:2181,10.0.0.12:2181/mesos "},
	} {
		typ := fleet.Mesos
		if strings.HasPrefix(string(kind), "Swarm") {
			typ = fleet.Swarm
		} else if strings.HasPrefix(string(kind), "Kubernetes") {
			typ = fleet.Kubernetes
		}
		c := cluster(t, typ, "image")
		n := node(t, c, kind)
		p := recipe.Profile(c, n, "secret")
		got := text(p)
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s has not %q:\n%s", kind, w, got)
			}
		}
		if typ != fleet.Swarm && len(p.Units) != 1 || (typ == fleet.Swarm) != (p.Swarm != nil) {
			t.Errorf("%s: %+v", kind, p)
		}
		if key := recipe.RoleKey(c, kind); !strings.HasPrefix(n.Name, key+"-") {
			t.Errorf("%s is called %q", kind, key)
		}
		for _, family := range []boot.Family{boot.FedoraCoreOS, boot.Flatcar} {
			p.Name = "node"
			template, err := ignition.Prepare(&p, family)
			if err != nil {
				t.Errorf("%s: %v", kind, err)
				continue
			}
			if _, err := template.Render(ignition.Node{Hostname: n.Name}); err != nil {
				t.Errorf("%s: %v", kind, err)
			}
		}
	}
}

// TestMembers: a swarm's nodes have their role, and the name of their cluster.
func TestMembers(t *testing.T) {
	c := cluster(t, fleet.Swarm, "")
	for kind, role := range map[fleet.NodeType]boot.Role{fleet.SwarmEtcd: boot.Manager, fleet.SwarmWorker: boot.Worker} {
		p := recipe.Profile(c, node(t, c, kind), "secret")
		if m := p.Swarm; m.Role != role || m.Swarm != "lab" || m.Labels["cluster"] != "two" {
			t.Errorf("%s: %+v", kind, m)
		}
		if len(p.Files) > 0 { // DHCP gives the address of a diskless node
			t.Errorf("%s: %s", kind, text(p))
		}
	}
	if a := netip.MustParseAddr("10.0.0.12"); node(t, c, fleet.SwarmEtcd).Addr != a {
		t.Errorf("the last manager has not %s", a)
	}
}
