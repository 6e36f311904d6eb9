package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bootd/internal/client"
	photonwire "bootd/internal/photon/wire"
)

func (a *app) clusterCommand() *cobra.Command {
	return group(&cobra.Command{
		Use: "cluster", Short: "sets of VMs that do something together",
		Long: `A cluster is VMs on the hosts that are nodes of a swarm, of Kubernetes or of Mesos.
What is lost of it is replaced; it is made larger and smaller while it runs.`,
	},
		a.clusterCreateCommand(),
		a.clusterListCommand(),
		a.clusterShowCommand(),
		a.clusterVMsCommand(),
		a.clusterResizeCommand(),
		a.clusterMaintainCommand(),
		a.clusterDeleteCommand(),
		a.clusterEnableCommand(),
		a.clusterDisableCommand(),
	)
}

// clusterTypes are the types of clusters, as people write them.
var clusterTypes = []string{"swarm", "kubernetes", "mesos"}

// projectFlags say which project a command is about.
type projectFlags struct {
	tenant *tenantFlag
	name   string
}

func (a *app) addProject(c *cobra.Command) *projectFlags {
	f := &projectFlags{tenant: a.addTenant(c)}
	c.Flags().StringVar(&f.name, "project", "", "`name` of the tenant's project, if there are several")
	completeFlag(c, "project", a.completeOfTenant(f.tenant, "projects"))
	return f
}

// projectOf finds the project of a command: the one that was named, or the only one.
func (a *app) projectOf(ctx context.Context, f *projectFlags) (entity, error) {
	t, err := a.tenant(ctx, f.tenant)
	if err != nil {
		return entity{}, err
	}
	list := at("/tenants", t, "projects")
	if f.name != "" {
		return a.named(ctx, "project", list, f.name)
	}
	all, err := client.FleetList[entity](ctx, a.api().Fleet(), list)
	switch {
	case err != nil:
		return entity{}, err
	case len(all) == 1:
		return all[0], nil
	case len(all) == 0:
		return entity{}, fmt.Errorf("tenant %s has no project; make one with bootd project create NAME", t.Name)
	}
	return entity{}, usageError{fmt.Errorf("tenant %s has several projects; say which one with --project NAME", t.Name)}
}

// completeClusters offers the names of a project's clusters.
func (a *app) completeClusters(f *projectFlags) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		p, err := a.projectOf(c.Context(), f)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp // without it, or without a server, there is nothing to offer
		}
		return a.completeEntities(at("/projects", p, "clusters"))(c, args, word)
	}
}

// cluster finds a project's cluster by its name or ID.
func (a *app) cluster(ctx context.Context, f *projectFlags, given string) (entity, error) {
	p, err := a.projectOf(ctx, f)
	if err != nil {
		return entity{}, err
	}
	return a.named(ctx, "cluster", at("/projects", p, "clusters"), given)
}

// A clusterAsked is what the flags of create say.
type clusterAsked struct {
	kind, dns, gateway, netmask, master, network string
	servers, properties                          []string
	subnet                                       string
	workers, batch                               int
	vmFlavor, diskFlavor                         string
}

func (a *app) clusterCreateCommand() *cobra.Command {
	var in clusterAsked
	var noWait bool
	c := &cobra.Command{
		Use: "create NAME", Short: "make a cluster of VMs",
		Long: `Create makes the nodes with known addresses, then the workers, a batch at a time.
What is wrong with the addresses is found out before anything is made. The nodes of
a swarm join the swarm that bootd keeps; those with --server addresses manage it.`,
		Example: "  bootd cluster create two --server 10.0.0.11 --gateway 10.0.0.1 --netmask 255.255.255.0 --workers 2\n" +
			"  bootd cluster create k --type kubernetes --server 10.0.0.11 --master 10.0.0.20 --container-network 10.2.0.0/16 \\\n" +
			"    --gateway 10.0.0.1 --netmask 255.255.255.0 --workers 3",
		Args: exactly("NAME"),
	}
	project := a.addProject(c)
	f := c.Flags()
	f.StringVar(&in.kind, "type", "swarm", "`type`: "+strings.Join(clusterTypes, ", "))
	completeFlag(c, "type", cobra.FixedCompletions(clusterTypes, cobra.ShellCompDirectiveNoFileComp))
	f.IntVar(&in.workers, "workers", 1, "`number` of workers")
	f.IntVar(&in.batch, "batch", 0, "`number` of workers that are made at once (default 20)")
	f.StringArrayVar(&in.servers, "server", nil, "`address` of a swarm's manager, or of a server of etcd or ZooKeeper; one to three times")
	f.StringVar(&in.gateway, "gateway", "", "`address` of the gateway of these addresses")
	f.StringVar(&in.netmask, "netmask", "", "`mask` of their subnet, such as 255.255.255.0")
	f.StringVar(&in.dns, "dns", "", "`address` of the DNS server (default: the gateway)")
	f.StringVar(&in.master, "master", "", "of Kubernetes: `address` of the master")
	f.StringVar(&in.network, "container-network", "", "of Kubernetes: `subnet` of the containers, such as 10.2.0.0/16")
	f.StringArrayVar(&in.properties, "property", nil, "`KEY=VALUE` of another property, such as swarm=NAME; may be repeated")
	f.StringVar(&in.vmFlavor, "flavor", "", "`flavor` of the VMs (default cluster-master-vm, cluster-other-vm)")
	f.StringVar(&in.diskFlavor, "disk-flavor", "", "`flavor` of their disks (default cluster-vm-disk)")
	f.StringVar(&in.subnet, "subnet", "", "`ID` of the subnet that the VMs are in (default: the default one)")
	f.BoolVar(&noWait, "no-wait", false, "return as soon as it is being made")
	c.RunE = func(c *cobra.Command, args []string) error {
		spec, err := in.spec(args[0])
		if err != nil {
			return err
		}
		p, err := a.projectOf(c.Context(), project)
		if err != nil {
			return err
		}
		task, err := a.api().Fleet().Do(c.Context(), at("/projects", p, "clusters"), spec)
		return a.settled(c.Context(), task, err, noWait, "cluster %s is ready: %s", args[0], task.Entity.ID)
	}
	return c
}

// spec is what is asked of the server.
func (in *clusterAsked) spec(name string) (photonwire.ClusterSpec, error) {
	out := photonwire.ClusterSpec{Name: name, Type: strings.ToUpper(in.kind), VMFlavor: in.vmFlavor, DiskFlavor: in.diskFlavor, VMNetworkID: in.subnet,
		WorkerCount: &in.workers, WorkerBatchExpansionSize: in.batch, ExtendedProperties: map[string]string{}}
	if err := oneOf("type", strings.ToLower(in.kind), clusterTypes...); err != nil {
		return out, err
	}
	if len(in.servers) < 1 || len(in.servers) > 3 {
		return out, usageError{errors.New("say the addresses of one to three servers: --server ADDRESS")}
	}
	key := "etcd_ip"
	if out.Type == "MESOS" {
		key = "zookeeper_ip"
	}
	for i, s := range in.servers {
		out.ExtendedProperties[key+strconv.Itoa(i+1)] = s
	}
	if in.dns == "" {
		in.dns = in.gateway
	}
	for key, v := range map[string]string{"gateway": in.gateway, "netmask": in.netmask, "dns": in.dns, "master_ip": in.master, "container_network": in.network} {
		if v != "" {
			out.ExtendedProperties[key] = v
		}
	}
	for _, p := range in.properties {
		key, v, ok := strings.Cut(p, "=")
		if !ok || key == "" {
			return out, usageError{fmt.Errorf("--property cannot be %q; write it as KEY=VALUE", p)}
		}
		out.ExtendedProperties[key] = v
	}
	return out, nil
}

// settled waits for a task, and then until its cluster is ready: the rest is done in
// the background.
func (a *app) settled(ctx context.Context, t photonwire.Task, err error, noWait bool, format string, args ...any) error {
	if err != nil {
		return err
	}
	if noWait {
		if a.format == "json" {
			return a.json(t)
		}
		_, err := fmt.Fprintf(a.out, "it is being done: bootd task show %s\n", t.ID)
		return err
	}
	if t, err = a.api().Fleet().Wait(ctx, t, a.steps()); err != nil {
		return err
	}
	if err := failure(t); err != nil {
		return err
	}
	x, err := a.untilReady(ctx, t.Entity.ID)
	if err != nil {
		return err
	}
	if a.format == "json" {
		return a.json(x)
	}
	_, err = fmt.Fprintf(a.out, format+"\n", args...)
	return err
}

// untilReady looks at a cluster until it is ready or in error.
func (a *app) untilReady(ctx context.Context, id string) (photonwire.Cluster, error) {
	said := ""
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		x, err := client.FleetGet[photonwire.Cluster](ctx, a.api().Fleet(), "/clusters/"+url.PathEscape(id))
		switch {
		case err != nil:
			return x, err
		case x.State == "ERROR":
			return x, fmt.Errorf("cluster %s is in error: %s", x.Name, x.ErrorReason)
		case x.State == "READY":
			return x, nil
		}
		vms, err := a.clusterVMs(ctx, id)
		if err != nil {
			return x, err
		}
		if now := fmt.Sprintf("%s: %s", x.State, roleCounts(vms)); now != said && a.format != "json" {
			fmt.Fprintln(a.err, now)
			said = now
		}
		select {
		case <-ctx.Done():
			return x, ctx.Err()
		case <-time.After(pause):
		}
	}
}

func (a *app) clusterVMs(ctx context.Context, id string) ([]photonwire.VM, error) {
	return client.FleetList[photonwire.VM](ctx, a.api().Fleet(), "/clusters/"+url.PathEscape(id)+"/vms")
}

// roleCounts says how many VMs of each role are on, of those that there are.
func roleCounts(vms []photonwire.VM) string {
	on, all := map[string]int{}, map[string]int{}
	var roles []string
	for _, v := range vms {
		role, _, _ := strings.Cut(v.Name, "-")
		if all[role]++; all[role] == 1 {
			roles = append(roles, role)
		}
		if v.State == "STARTED" {
			on[role]++
		}
	}
	slices.Sort(roles)
	var out []string
	for _, r := range roles {
		out = append(out, fmt.Sprintf("%s %d/%d", r, on[r], all[r]))
	}
	return strings.Join(out, ", ")
}

func (a *app) clusterListCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "list", Short: "a project's clusters", Args: exactly(), Example: "  bootd cluster list\n  bootd cluster list --project web -o json",
		Long: `List shows the clusters of a project with their state; of one in error also why.`,
	}
	project := a.addProject(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		p, err := a.projectOf(c.Context(), project)
		if err != nil {
			return err
		}
		list, err := client.FleetList[photonwire.Cluster](c.Context(), a.api().Fleet(), at("/projects", p, "clusters"))
		if err != nil {
			return err
		}
		if a.format == "json" {
			return a.json(list)
		}
		var rows [][]string
		for _, x := range list {
			rows = append(rows, []string{x.Name, x.ID, strings.ToLower(x.Type), x.State, fmt.Sprint(x.WorkerCount), x.ErrorReason})
		}
		return a.table([]string{"CLUSTER", "ID", "TYPE", "STATE", "WORKERS", "WHY"}, rows)
	}
	return c
}

func (a *app) clusterShowCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "show CLUSTER", Short: "one cluster", Example: "  bootd cluster show two", Args: exactly("CLUSTER"),
		Long: `Show prints one cluster, named by its name or ID: its state, its addresses, and how many
of the VMs of each role are on.`,
	}
	project := a.addProject(c)
	c.ValidArgsFunction = a.completeClusters(project)
	c.RunE = func(c *cobra.Command, args []string) error {
		found, err := a.cluster(c.Context(), project, args[0])
		if err != nil {
			return err
		}
		x, err := client.FleetGet[photonwire.Cluster](c.Context(), a.api().Fleet(), at("/clusters", found))
		if err != nil {
			return err
		}
		if a.format == "json" {
			return a.json(x)
		}
		vms, err := a.clusterVMs(c.Context(), x.ID)
		if err != nil {
			return err
		}
		rows := [][]string{{"id", x.ID}, {"type", strings.ToLower(x.Type)}, {"state", x.State}, {"why", x.ErrorReason}, {"workers", fmt.Sprint(x.WorkerCount)},
			{"vms", roleCounts(vms)}, {"image", x.ImageID}, {"flavors", x.MasterVMFlavorName + ", " + x.OtherVMFlavorName}}
		var keys []string
		for k := range x.ExtendedProperties {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			rows = append(rows, []string{k, x.ExtendedProperties[k]})
		}
		return a.table([]string{"CLUSTER", x.Name}, rows)
	}
	return c
}

func (a *app) clusterVMsCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "list-vms CLUSTER", Short: "the VMs of a cluster", Example: "  bootd cluster list-vms two", Args: exactly("CLUSTER"),
		Long: `List-vms shows the VMs of a cluster, which are called by their roles, with their hosts.`,
	}
	project := a.addProject(c)
	c.ValidArgsFunction = a.completeClusters(project)
	c.RunE = func(c *cobra.Command, args []string) error {
		found, err := a.cluster(c.Context(), project, args[0])
		if err != nil {
			return err
		}
		vms, err := a.clusterVMs(c.Context(), found.ID)
		if err != nil {
			return err
		}
		if a.format == "json" {
			return a.json(vms)
		}
		var rows [][]string
		for _, v := range vms {
			rows = append(rows, []string{v.Name, v.ID, v.State, v.Host, v.Flavor})
		}
		return a.table([]string{"VM", "ID", "STATE", "HOST", "FLAVOR"}, rows)
	}
	return c
}

func (a *app) clusterResizeCommand() *cobra.Command {
	var noWait bool
	c := &cobra.Command{
		Use: "resize CLUSTER WORKERS", Short: "give a cluster more workers, or fewer",
		Long: `Resize makes workers, or removes those that run the least: what runs on them is
moved to the others first, they leave the swarm, and then their VMs are deleted.`,
		Example: "  bootd cluster resize two 3\n  bootd cluster resize two 2",
		Args:    exactly("CLUSTER", "WORKERS"),
	}
	project := a.addProject(c)
	c.ValidArgsFunction = a.completeClusters(project)
	c.Flags().BoolVar(&noWait, "no-wait", false, "return as soon as it is being done")
	c.RunE = func(c *cobra.Command, args []string) error {
		n, err := strconv.Atoi(args[1])
		if err != nil || n < 0 {
			return usageError{fmt.Errorf("WORKERS cannot be %q; write a number", args[1])}
		}
		found, err := a.cluster(c.Context(), project, args[0])
		if err != nil {
			return err
		}
		task, err := a.api().Fleet().Do(c.Context(), at("/clusters", found, "resize"), photonwire.ClusterResize{NewWorkerCount: &n})
		return a.settled(c.Context(), task, err, noWait, "cluster %s has %d worker(s)", found.Name, n)
	}
	return c
}

func (a *app) clusterMaintainCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "maintain CLUSTER", Short: "replace nodes that are lost now",
		Long: `Maintain looks whether all nodes of a cluster are there and up, starts those that are
off, and replaces those that are lost, which bootd does by itself, too, every minute.`,
		Example: "  bootd cluster maintain two", Args: exactly("CLUSTER"),
	}
	project := a.addProject(c)
	c.ValidArgsFunction = a.completeClusters(project)
	c.RunE = func(c *cobra.Command, args []string) error {
		found, err := a.cluster(c.Context(), project, args[0])
		if err != nil {
			return err
		}
		task, err := a.api().Fleet().Do(c.Context(), at("/clusters", found, "trigger_maintenance"), nil)
		return a.done(c.Context(), task, err, "all nodes of cluster %s are up", found.Name)
	}
	return c
}

func (a *app) clusterDeleteCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "delete CLUSTER", Short: "delete a cluster with its VMs, in any state", Example: "  bootd cluster delete two", Args: exactly("CLUSTER"),
		Long: `Delete gives up what is being done to a cluster, takes its nodes out of their swarm
without waiting for what they run, and deletes their VMs.`,
	}
	project := a.addProject(c)
	c.ValidArgsFunction = a.completeClusters(project)
	c.RunE = func(c *cobra.Command, args []string) error {
		found, err := a.cluster(c.Context(), project, args[0])
		if err != nil {
			return err
		}
		task, err := a.api().Fleet().Delete(c.Context(), at("/clusters", found))
		return a.done(c.Context(), task, err, "cluster %s is deleted", found.Name)
	}
	return c
}

func (a *app) clusterEnableCommand() *cobra.Command {
	var image string
	c := &cobra.Command{
		Use: "enable TYPE", Short: "allow clusters of a type, and say what their nodes boot",
		Long: `Enable allows clusters of a type. Their nodes boot from a copy of an image of Fedora
CoreOS or Flatcar for VMware; without one, from the network, as controller.clusters
in bootd.yaml says.`,
		Example: "  bootd cluster enable swarm --image fcos\n  bootd cluster enable swarm",
		Args:    exactly("TYPE"), ValidArgs: clusterTypes,
		RunE: func(c *cobra.Command, args []string) error {
			if err := oneOf("TYPE", strings.ToLower(args[0]), clusterTypes...); err != nil {
				return err
			}
			in := photonwire.ClusterConfiguration{Type: strings.ToUpper(args[0])}
			boots := "from the network"
			if image != "" {
				found, err := a.named(c.Context(), "image", "/images", image)
				if err != nil {
					return err
				}
				in.ImageID, boots = found.ID, "image "+found.Name
			}
			task, err := a.api().Fleet().Do(c.Context(), theDeployment+"/enable_cluster_type", in)
			return a.done(c.Context(), task, err, "there may be %s clusters now; their nodes boot %s", strings.ToLower(in.Type), boots)
		},
	}
	c.Flags().StringVar(&image, "image", "", "`name` of the image")
	completeFlag(c, "image", a.completeEntities("/images"))
	return c
}

func (a *app) clusterDisableCommand() *cobra.Command {
	return &cobra.Command{
		Use: "disable TYPE", Short: "allow new clusters of a type no longer", Example: "  bootd cluster disable swarm",
		Long: `Disable leaves the clusters that there are as they are. To have nodes of new ones boot
something else, disable the type and enable it again.`,
		Args: exactly("TYPE"), ValidArgs: clusterTypes,
		RunE: func(c *cobra.Command, args []string) error {
			task, err := a.api().Fleet().Do(c.Context(), theDeployment+"/disable_cluster_type", photonwire.ClusterConfiguration{Type: strings.ToUpper(args[0])})
			return a.done(c.Context(), task, err, "there can be no new %s clusters", strings.ToLower(args[0]))
		},
	}
}
