// Package esxtest is an ESXi for tests: govmomi's simulator with an own
// certificate, identity and size, made as strict as a standalone ESXi is, and
// with what the simulator lacks: disks with content, locks, sessions that end,
// changes of port groups, console tickets, a full datastore, a host that is
// down, slow, or loses answers.
//
// A [Backend] may really run the VMs that are switched on. A Host may be used by
// several goroutines.
package esxtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// Options are what a host is like.
type Options struct {
	Name           string   // "esx-1"
	User, Password string   // default root and "secret"
	Listen         string   // address; default 127.0.0.1:0
	Datastores     int      // default 1; they are called LocalDS_0, LocalDS_1, ...
	PortGroups     []string // beside "VM Network", on vSwitch0
	Cores          int16
	MemoryBytes    int64
	DatastoreBytes int64
	NestedHV       bool
	Version        string // default 8.0.3
	FreeLicense    bool   // it refuses changes
	Backend        Backend
	// Serial has it do one thing at a time. It is for tests that the simulator's data
	// races must not disturb.
	Serial bool
}

// A Host is a simulated ESXi that answers on a port of its own.
type Host struct {
	options Options
	model   *simulator.Model
	front   *front
	cert    tls.Certificate

	mu       sync.Mutex
	wrappers map[types.ManagedObjectReference][]*simulator.Registry // sessions that have one of an object
	tasks    int                                                    // that run
	planned  []*plan
	full     bool
	copying  time.Duration
}

// creating keeps models from being made at the same time: the simulator changes
// variables of its package then.
var creating sync.Mutex

// Start makes a host that runs until Close.
func Start(o Options) (*Host, error) {
	if o.User == "" {
		o.User, o.Password = "root", "secret"
	}
	if o.Version == "" {
		o.Version = "8.0.3"
	}
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	m := simulator.ESX()
	m.Machine, m.Datastore = 0, max(1, o.Datastores)
	creating.Lock()
	err := m.Create()
	creating.Unlock()
	if err != nil {
		return nil, fmt.Errorf("cannot make a simulated host: %w", err)
	}
	h := &Host{options: o, model: m, wrappers: map[types.ManagedObjectReference][]*simulator.Registry{}}
	h.identify()
	h.replace()
	h.addPortGroups()
	if h.cert, err = selfSigned(o.Name); err != nil {
		m.Remove()
		return nil, err
	}
	m.Service.Listen = &url.URL{Host: "127.0.0.1:0", User: url.UserPassword(o.User, o.Password)}
	s := m.Service.NewServer() // it also registers the handlers, which front serves
	if err := s.Config.Close(); err != nil {
		m.Remove()
		return nil, err
	}
	if h.front, err = newFront(h, o.Listen); err != nil {
		m.Remove()
		return nil, fmt.Errorf("cannot start a simulated host: %w", err)
	}
	return h, nil
}

// Close ends it, and removes its datastores.
func (h *Host) Close() {
	h.front.down()
	h.model.Remove()
}

// Address is where it answers, with its port.
func (h *Host) Address() string { return h.front.address }

// Fingerprint is that of its certificate, by SHA-256.
func (h *Host) Fingerprint() string {
	return fmt.Sprintf("SHA256:%X", sha256.Sum256(h.cert.Certificate[0]))
}

// SHA1 is the fingerprint as older vSphere shows it.
func (h *Host) SHA1() string { return fmt.Sprintf("%X", sha1.Sum(h.cert.Certificate[0])) }

// Registry are the simulator's objects, for tests that change them.
func (h *Host) Registry() *simulator.Registry { return h.model.Map() }

// Context is for changing objects: it locks as a client's would.
func (h *Host) Context() *simulator.Context {
	return &simulator.Context{Context: h.model.Service.Context.Context, Map: h.model.Map()}
}

func (h *Host) identify() {
	reg, o := h.model.Map(), h.options
	hs := reg.Any("HostSystem").(*simulator.HostSystem)
	id := uuid.NewSHA1(uuid.NameSpaceDNS, []byte(o.Name)).String()
	hs.Name, hs.Summary.Config.Name = o.Name, o.Name
	hardware := *hs.Summary.Hardware
	hardware.Uuid = id
	hs.Hardware.SystemInfo.Uuid = id
	if o.Cores > 0 {
		hardware.NumCpuCores, hardware.NumCpuThreads = o.Cores, 2*o.Cores
	}
	if o.MemoryBytes > 0 {
		hardware.MemorySize = o.MemoryBytes
	}
	hs.Summary.Hardware = &hardware
	hs.Summary.ManagementServerIp = "" // it belongs to no vCenter
	hs.Capability.NestedHVSupported = o.NestedHV
	product := hs.Config.Product
	product.Version, product.ApiVersion, product.FullName = o.Version, o.Version, "VMware ESXi "+o.Version
	hs.Config.Product, hs.Summary.Config.Product = product, &product
	if o.DatastoreBytes > 0 {
		for _, e := range reg.All("Datastore") {
			ds := e.(*simulator.Datastore)
			ds.Summary.Capacity, ds.Summary.FreeSpace = o.DatastoreBytes, o.DatastoreBytes
		}
	}
	no := false
	security := types.HostNetworkPolicy{Security: &types.HostNetworkSecurityPolicy{AllowPromiscuous: &no, ForgedTransmits: &no, MacChanges: &no}}
	ns := reg.Get(*hs.ConfigManager.NetworkSystem).(*simulator.HostNetworkSystem)
	ns.NetworkInfo.Vnic = hs.Config.Network.Vnic // the simulator has it there alone
	for i := range ns.NetworkInfo.Vswitch {
		ns.NetworkInfo.Vswitch[i].Spec.Policy = &security
	}
	for i := range ns.NetworkInfo.Portgroup {
		ns.NetworkInfo.Portgroup[i].ComputedPolicy = security
	}
}

func (h *Host) addPortGroups() {
	reg := h.model.Map()
	system := reg.Get(*reg.Any("HostSystem").(*simulator.HostSystem).ConfigManager.NetworkSystem).(*networks)
	no := false
	for _, name := range h.options.PortGroups {
		system.AddPortGroup(h.Context(), &types.AddPortGroup{This: system.Self, Portgrp: types.HostPortGroupSpec{Name: name, VswitchName: "vSwitch0",
			Policy: types.HostNetworkPolicy{Security: &types.HostNetworkSecurityPolicy{AllowPromiscuous: &no, ForgedTransmits: &no, MacChanges: &no}}}})
	}
}

func selfSigned(name string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return tls.Certificate{}, err
	}
	t := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name, Organization: []string{"VMware, Inc"}}, DNSNames: []string{name},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
