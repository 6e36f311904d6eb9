// Package recipe says what the nodes of clusters run, as a profile that is laid over
// the one that people have written for such nodes.
//
// A swarm's nodes need nothing but what every node of bootd's swarms has. The others
// run their software in containers of the node's Docker engine, so that an image of
// Fedora CoreOS or Flatcar will do for all of them. The package is pure.
package recipe

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"bootd/boot"
	"bootd/internal/fleet"
)

// The containers that nodes run. Mesos has had no release since 2020.
const (
	etcdImage      = "quay.io/coreos/etcd:v3.5.21"
	k3sImage       = "docker.io/rancher/k3s:v1.32.3-k3s1"
	zookeeperImage = "docker.io/library/zookeeper:3.9"
	masterImage    = "docker.io/mesosphere/mesos-master:1.7.1"
	agentImage     = "docker.io/mesosphere/mesos-slave:1.7.1"
	marathonImage  = "docker.io/mesosphere/marathon:v1.11.24"
)

// Profile is what a node runs because of its role. Secret is known to the nodes of
// one cluster alone.
func Profile(c fleet.Cluster, n fleet.Node, secret string) boot.Profile {
	p := boot.Profile{}
	// Without an image it gets its address by DHCP, which knows it.
	if n.Addr.IsValid() && c.Image != "" {
		p.Files = append(p.Files, network(c.Network, n)...)
	}
	switch n.Type {
	case fleet.SwarmEtcd, fleet.SwarmMaster:
		p.Swarm = member(c, boot.Manager)
	case fleet.SwarmWorker:
		p.Swarm = member(c, boot.Worker)
	case fleet.KubernetesEtcd:
		p.Units = append(p.Units, container("etcd", etcdImage, "--volume=/var/lib/etcd:/var/lib/etcd", etcd(c, n)))
	case fleet.KubernetesMaster, fleet.KubernetesWorker:
		p.Files = append(p.Files, boot.File{Path: tokenPath, Contents: secret + "\n", Mode: 0o600})
		p.Units = append(p.Units, container("k3s", k3sImage, k3sOptions, k3s(c, n)))
	case fleet.MesosZookeeper:
		p.Units = append(p.Units, container("zookeeper", zookeeperImage, zookeeper(c, n), ""))
	case fleet.MesosMaster:
		p.Units = append(p.Units, container("mesos-master", masterImage, "--volume=/var/lib/mesos:/var/lib/mesos",
			"--zk="+zk(c, "mesos")+" --quorum=2 --work_dir=/var/lib/mesos"))
	case fleet.MesosMarathon:
		p.Units = append(p.Units, container("marathon", marathonImage, "", "--master "+zk(c, "mesos")+" --zk "+zk(c, "marathon")))
	case fleet.MesosWorker:
		p.Units = append(p.Units, container("mesos-agent", agentImage,
			"--privileged --pid=host --volume=/var/lib/mesos:/var/lib/mesos --volume=/sys:/sys --volume=/var/run/docker.sock:/var/run/docker.sock",
			"--master="+zk(c, "mesos")+" --containerizers=docker,mesos --no-systemd_enable_support --work_dir=/var/lib/mesos"))
	}
	return p
}

// Label is the label of a swarm's nodes with the name of their cluster.
const Label = "cluster"

func member(c fleet.Cluster, r boot.Role) *boot.Member {
	return &boot.Member{Swarm: c.Properties[SwarmProperty], Role: r, Labels: map[string]string{Label: c.Name}}
}

// SwarmProperty is the property of a cluster that names one of several swarms.
const SwarmProperty = "swarm"

// network gives a node its address: for NetworkManager (Fedora CoreOS) and for
// systemd-networkd (Flatcar), of which a system has one.
func network(w fleet.ClusterNetwork, n fleet.Node) []boot.File {
	address := netip.PrefixFrom(n.Addr, w.Bits)
	return []boot.File{
		{Path: "/etc/NetworkManager/system-connections/bootd.nmconnection", Mode: 0o600, Contents: fmt.Sprintf(`[connection]
id=bootd
type=ethernet
autoconnect-priority=100

[ethernet]
mac-address=%s

[ipv4]
method=manual
address1=%s,%s
dns=%s;

[ipv6]
method=auto
`, strings.ToUpper(n.MAC.String()), address, w.Gateway, w.DNS)},
		{Path: "/etc/systemd/network/00-bootd.network", Mode: 0o644, Contents: fmt.Sprintf(`[Match]
MACAddress=%s

[Network]
Address=%s
Gateway=%s
DNS=%s
`, n.MAC, address, w.Gateway, w.DNS)},
	}
}

// container is a unit that keeps a container running. Options are Docker's, the
// command the container's own.
func container(name, image, options, command string) boot.Unit {
	run := strings.Join(strings.Fields("/usr/bin/docker run --rm --name "+name+" --net=host "+options+" "+image+" "+command), " ")
	return boot.Unit{Name: name + ".service", Enabled: new(true), Contents: `[Unit]
Description=` + name + ` of the cluster
Requires=docker.service
After=docker.service network-online.target
Wants=network-online.target

[Service]
ExecStartPre=-/usr/bin/docker rm --force ` + name + `
ExecStart=` + run + `
ExecStop=/usr/bin/docker stop ` + name + `
Restart=always
RestartSec=5
# The image may have to be fetched first.
TimeoutStartSec=infinity

[Install]
WantedBy=multi-user.target
`}
}

// number is which of the nodes with known addresses one is, from 1.
func number(c fleet.Cluster, a netip.Addr) int { return slices.Index(c.Static, a) + 1 }

func etcd(c fleet.Cluster, n fleet.Node) string {
	var all []string
	for i, a := range c.Static {
		all = append(all, fmt.Sprintf("etcd%d=http://%s:2380", i+1, a))
	}
	return fmt.Sprintf("etcd --name=etcd%d --data-dir=/var/lib/etcd --listen-client-urls=http://0.0.0.0:2379 --advertise-client-urls=http://%s:2379"+
		" --listen-peer-urls=http://%s:2380 --initial-advertise-peer-urls=http://%s:2380 --initial-cluster=%s --initial-cluster-token=%s",
		number(c, n.Addr), n.Addr, n.Addr, n.Addr, strings.Join(all, ","), c.ID)
}

const (
	tokenPath  = "/etc/bootd/k3s-token"
	k3sOptions = "--privileged --pid=host --tmpfs=/run --tmpfs=/var/run --volume=/var/lib/rancher:/var/lib/rancher --volume=/lib/modules:/lib/modules:ro" +
		" --volume=/var/log:/var/log --volume=" + tokenPath + ":" + tokenPath + ":ro"
)

func k3s(c fleet.Cluster, n fleet.Node) string {
	if n.Type == fleet.KubernetesWorker {
		return "agent --token-file=" + tokenPath + " --server=https://" + c.Properties["master_ip"] + ":6443 --node-name=" + n.Name
	}
	return "server --token-file=" + tokenPath + " --node-name=" + n.Name + " --cluster-cidr=" + c.Properties["container_network"] +
		" --datastore-endpoint=" + servers(c, "http://", ":2379")
}

// servers are the nodes with known addresses, with commas.
func servers(c fleet.Cluster, before, after string) string {
	var out []string
	for _, a := range c.Static {
		out = append(out, before+a.String()+after)
	}
	return strings.Join(out, ",")
}

func zk(c fleet.Cluster, path string) string {
	return "zk://" + servers(c, "", ":2181") + "/" + path
}

// zookeeper are the options of a container that is one of several.
func zookeeper(c fleet.Cluster, n fleet.Node) string {
	var all []string
	for i, a := range c.Static {
		all = append(all, fmt.Sprintf("server.%d=%s:2888:3888;2181", i+1, a))
	}
	// systemd splits at spaces that are not quoted.
	return fmt.Sprintf(`--volume=/var/lib/zookeeper:/data --env=ZOO_MY_ID=%d "--env=ZOO_SERVERS=%s"`, max(1, number(c, n.Addr)), strings.Join(all, " "))
}

// RoleKey is how the configuration calls the role of a type of nodes, which is how
// the names of their VMs begin.
func RoleKey(c fleet.Cluster, t fleet.NodeType) string {
	r, _ := c.Role(t)
	return cmp.Or(r.Prefix, string(t))
}
