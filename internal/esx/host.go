package esx

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"bootd/internal/fleet"
)

// A Config says which host, and how hard it may be worked.
type Config struct {
	Address  string // IP address or name, with ":port" if that is not 443
	Username string
	Password string
	// Fingerprint of the certificate that a person has accepted; SHA-256 or
	// SHA-1. Without one every verb fails with a fault of kind
	// [fleet.Untrusted] that tells the fingerprint the host has shown.
	Fingerprint string

	// How many calls, tasks and copies of disks may run on the host at once.
	// Defaults: 8, 6, 2; hostd is not made for many.
	Calls, Tasks, Copies int
	// Timeout bounds one call, not a task. Default 30 s.
	Timeout time.Duration
	// Refresh is how often Watch tells the facts, which hold how much memory and
	// space are left, when nothing else of them has changed. Default 5 min.
	Refresh time.Duration
	// Patience is how long a task that runs is waited for while the host does
	// not answer. Default 1 min.
	Patience time.Duration

	Log *slog.Logger
}

// A Host is one standalone ESXi.
type Host struct {
	config Config
	url    *url.URL
	client *soap.Client
	// cookies are the session.
	cookies *jar
	log     *slog.Logger

	calls, tasks slots
	// Writing and reading of large files apart: who copies from one host to
	// another has a slot of each, and must not wait for somebody who copies the
	// other way.
	copies, reads slots

	turn   slots                     // one connects or logs in
	known  atomic.Pointer[inventory] // nil: not connected yet
	login  atomic.Int64              // counts logins; 0: none yet
	denied time.Time                 // when the host last refused the password; has who has the turn
}

// inventory are the objects that every standalone ESXi has one of.
type inventory struct {
	vim                              *vim25.Client
	pc                               *property.Collector
	datacenter, vmFolder, pool, host types.ManagedObjectReference
	manager                          mo.HostSystem // with ConfigManager
}

// slots bounds how many do something at once.
type slots chan struct{}

func (s slots) take(ctx context.Context) (done func(), err error) {
	select {
	case s <- struct{}{}:
		return func() { <-s }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// New returns a Host. Nothing is connected yet; an error is about c.
func New(c Config) (*Host, error) {
	if err := (fleet.Host{Address: c.Address, Username: c.Username, Password: c.Password, Tags: []fleet.UsageTag{fleet.Cloud}}).Check(); err != nil {
		return nil, fmt.Errorf("cannot use host %s: %w", c.Address, err)
	}
	var pin []byte
	if c.Fingerprint != "" {
		var err error
		if pin, err = parsePin(c.Fingerprint); err != nil {
			return nil, fmt.Errorf("cannot use host %s: %w", c.Address, err)
		}
	}
	c.Calls, c.Tasks, c.Copies = cmp.Or(max(c.Calls, 0), 8), cmp.Or(max(c.Tasks, 0), 6), cmp.Or(max(c.Copies, 0), 2)
	c.Timeout, c.Patience, c.Refresh = cmp.Or(c.Timeout, 30*time.Second), cmp.Or(c.Patience, time.Minute), cmp.Or(c.Refresh, 5*time.Minute)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	h := &Host{config: c, log: c.Log.With("host", c.Address), calls: make(slots, c.Calls), tasks: make(slots, c.Tasks), copies: make(slots, c.Copies),
		reads: make(slots, c.Copies), turn: make(slots, 1)}
	h.url = &url.URL{Scheme: "https", Host: authority(c.Address), Path: vim25.Path}
	h.client = soap.NewClient(h.url, true)
	h.client.UserAgent = "bootd"
	h.cookies = &jar{}
	if err := h.cookies.empty(); err != nil {
		return nil, err
	}
	h.client.Jar = h.cookies
	t := h.client.DefaultTransport()
	t.DialTLSContext = nil // govmomi's own trusts what the system trusts
	t.TLSClientConfig = pinned(pin)
	t.Proxy = nil // hosts are near
	t.DialContext = (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext
	t.TLSHandshakeTimeout = 10 * time.Second
	t.MaxIdleConnsPerHost = c.Calls + 2*c.Copies + 1
	t.IdleConnTimeout = time.Minute
	return h, nil
}

// authority is the address as URLs have it.
func authority(address string) string {
	if ip := net.ParseIP(address); ip != nil && ip.To4() == nil {
		return "[" + address + "]"
	}
	return address
}

// Address is the address it was made with.
func (h *Host) Address() string { return h.config.Address }

// Connect logs in, if that has not been done yet. Every verb does it by itself.
func (h *Host) Connect(ctx context.Context) error {
	return h.verb(ctx, "connect", "", func(context.Context, *inventory) error { return nil })
}

// Close logs out. The Host can be used no longer.
func (h *Host) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if done, err := h.turn.take(ctx); err == nil {
		defer done()
	}
	if inv := h.known.Swap(nil); inv != nil {
		h.logout(ctx, inv)
	}
	h.client.CloseIdleConnections()
}

// verb connects, calls f, and gives its error a kind and names.
func (h *Host) verb(ctx context.Context, doing, object string, f func(context.Context, *inventory) error) error {
	inv, err := h.connected(ctx)
	if err == nil {
		err = f(ctx, inv)
	}
	return h.fault(ctx, doing, object, err)
}

// connected returns the inventory, which is looked up once: it does not change
// while the certificate is the same.
func (h *Host) connected(ctx context.Context) (*inventory, error) {
	if inv := h.known.Load(); inv != nil {
		return inv, nil
	}
	done, err := h.turn.take(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	if inv := h.known.Load(); inv != nil {
		return inv, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*h.config.Timeout)
	defer cancel()
	vim, err := vim25.NewClient(ctx, h.client)
	if err != nil {
		return nil, timedOut(ctx, err)
	}
	if a := vim.ServiceContent.About; a.ApiType != "HostAgent" {
		return nil, fail(fleet.Unsupported, "register the ESXi hosts themselves", "it is no ESXi host but %s", a.FullName)
	}
	if err := h.logIn(ctx, vim); err != nil {
		return nil, timedOut(ctx, err)
	}
	vim.RoundTripper = &session{h: h, inner: h.client, vim: vim}
	inv := &inventory{vim: vim, pc: property.DefaultCollector(vim)}
	// The session would wait for the turn to log in again.
	direct := *vim
	direct.RoundTripper = h.client
	if err := inv.look(ctx, &direct); err != nil {
		return nil, timedOut(ctx, err)
	}
	h.known.Store(inv)
	return inv, nil
}

// timedOut replaces the error of a call that took longer than it may.
func timedOut(ctx context.Context, err error) error {
	if ctx.Err() == context.DeadlineExceeded {
		return context.DeadlineExceeded
	}
	return err
}

// look finds the objects of the host.
func (v *inventory) look(ctx context.Context, c *vim25.Client) error {
	pc := property.DefaultCollector(c)
	var root mo.Folder
	if err := pc.RetrieveOne(ctx, c.ServiceContent.RootFolder, []string{"childEntity"}, &root); err != nil {
		return err
	}
	if len(root.ChildEntity) != 1 {
		return fail(fleet.Unsupported, "register the ESXi hosts themselves", "it has %d datacenters, where an ESXi has one", len(root.ChildEntity))
	}
	v.datacenter = root.ChildEntity[0]
	var dc mo.Datacenter
	if err := pc.RetrieveOne(ctx, v.datacenter, []string{"vmFolder", "hostFolder"}, &dc); err != nil {
		return err
	}
	v.vmFolder = dc.VmFolder
	var hosts mo.Folder
	if err := pc.RetrieveOne(ctx, dc.HostFolder, []string{"childEntity"}, &hosts); err != nil {
		return err
	}
	if len(hosts.ChildEntity) != 1 {
		return fail(fleet.Unsupported, "register the ESXi hosts themselves", "it has %d hosts, where an ESXi has one", len(hosts.ChildEntity))
	}
	var cr mo.ComputeResource
	if err := pc.RetrieveOne(ctx, hosts.ChildEntity[0], []string{"host", "resourcePool"}, &cr); err != nil {
		return err
	}
	if len(cr.Host) != 1 || cr.ResourcePool == nil {
		return fail(fleet.Unsupported, "", "it has %d hosts and a resource pool %v", len(cr.Host), cr.ResourcePool)
	}
	v.host, v.pool = cr.Host[0], *cr.ResourcePool
	return pc.RetrieveOne(ctx, v.host, []string{"configManager"}, &v.manager)
}

// get retrieves properties of one object into out.
func (v *inventory) get(ctx context.Context, ref types.ManagedObjectReference, properties []string, out any) error {
	return v.pc.RetrieveOne(ctx, ref, properties, out)
}
