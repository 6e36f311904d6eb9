package lab

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"

	"bootd/boot"
)

// ConfigFile is the file in a configuration directory that describes the
// machines of a lab. Nothing but the lab reads it.
const ConfigFile = "lab.yaml"

// A Config is what a lab consists of.
type Config struct {
	// Network is the boot server's address on the bridge, with the length of
	// the subnet's prefix.
	Network  netip.Prefix
	Machines []Machine
}

// A Firmware is the way a machine starts.
type Firmware string

// The firmwares of lab machines.
const (
	BIOS     Firmware = "bios"      // SeaBIOS with iPXE as the card's ROM
	UEFI     Firmware = "uefi"      // OVMF with its own PXE
	UEFIHTTP Firmware = "uefi-http" // OVMF with its own HTTP boot, PXE switched off
	// UEFISecure is OVMF with its own PXE and Secure Boot, which starts what
	// Microsoft has signed.
	UEFISecure Firmware = "uefi-secure"
)

// A Machine is one diskless QEMU machine.
type Machine struct {
	Name     string
	MAC      boot.MAC
	Firmware Firmware
	Memory   int // MiB
	CPUs     int
	NIC      string // QEMU's device name
	// What SMBIOS says of the machine.
	UUID, Serial, Manufacturer, Product string
}

// Machine finds a machine by its name.
func (c Config) Machine(name string) (Machine, error) {
	var names []string
	for _, m := range c.Machines {
		if m.Name == name {
			return m, nil
		}
		names = append(names, m.Name)
	}
	return Machine{}, fmt.Errorf("the lab has no machine %q; it has %s", name, strings.Join(names, ", "))
}

// LoadConfig reads lab.yaml in a configuration directory.
func LoadConfig(dir string) (Config, error) {
	file := filepath.Join(dir, ConfigFile)
	b, err := os.ReadFile(file)
	if err != nil {
		return Config{}, fmt.Errorf("cannot read the description of the lab's machines: %w", err)
	}
	c, err := ParseConfig(b)
	if err != nil {
		return Config{}, fmt.Errorf("%s: %w", file, err)
	}
	return c, nil
}

type rawConfig struct {
	Network  string       `yaml:"network"`
	Machines []rawMachine `yaml:"machines"`
}

type rawMachine struct {
	Name         string `yaml:"name"`
	MAC          string `yaml:"mac"`
	Firmware     string `yaml:"firmware"`
	Memory       string `yaml:"memory"`
	CPUs         int    `yaml:"cpus"`
	NIC          string `yaml:"nic"`
	UUID         string `yaml:"uuid"`
	Serial       string `yaml:"serial"`
	Manufacturer string `yaml:"manufacturer"`
	Product      string `yaml:"product"`
}

// ParseConfig reads the text of a lab.yaml. Unknown keys are errors; all
// mistakes in values are reported together.
func ParseConfig(text []byte) (Config, error) {
	var raw rawConfig
	err := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict()).Decode(&raw)
	if err != nil && !errors.Is(err, io.EOF) {
		return Config{}, errors.New(strings.TrimSpace(yaml.FormatError(err, false, true)))
	}
	var c Config
	var mistakes []error
	c.Network, err = parseNetwork(raw.Network)
	mistakes = append(mistakes, err)
	if len(raw.Machines) == 0 {
		mistakes = append(mistakes, errors.New("machines: there are none"))
	}
	seen := map[string]bool{}
	for i, r := range raw.Machines {
		m, err := r.check()
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("machines[%d] %s: %w", i, r.Name, err))
			continue
		}
		for _, key := range []string{m.Name, m.MAC.String(), m.UUID} {
			if seen[key] {
				mistakes = append(mistakes, fmt.Errorf("machines[%d] %s: another machine has %s too", i, r.Name, key))
			}
			seen[key] = true
		}
		c.Machines = append(c.Machines, m)
	}
	if err := errors.Join(mistakes...); err != nil {
		return Config{}, err
	}
	return c, nil
}

func parseNetwork(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(cmp.Or(s, "10.77.0.1/24"))
	if err != nil || !p.Addr().Is4() || p.Bits() > 30 || p.Addr() == p.Masked().Addr() {
		return netip.Prefix{}, fmt.Errorf("network: %q is not an address with its prefix, such as 10.77.0.1/24", s)
	}
	return p, nil
}

// A machine's name becomes part of file names; a network card's name, of
// QEMU's arguments, where commas separate options.
var (
	nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)
	uuidForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	nicForm  = regexp.MustCompile(`^[a-z0-9-]+$`)
)

func (r rawMachine) check() (Machine, error) {
	m := Machine{
		Name:         r.Name,
		Firmware:     Firmware(cmp.Or(r.Firmware, string(BIOS))),
		CPUs:         cmp.Or(r.CPUs, 2),
		NIC:          cmp.Or(r.NIC, "virtio-net-pci"),
		Serial:       cmp.Or(r.Serial, "LAB-"+strings.ToUpper(r.Name)),
		Manufacturer: cmp.Or(r.Manufacturer, "bootd lab"),
		Product:      cmp.Or(r.Product, "Diskless Machine"),
		UUID:         strings.ToLower(r.UUID),
	}
	var mistakes []error
	wrong := func(format string, args ...any) { mistakes = append(mistakes, fmt.Errorf(format, args...)) }
	if !nameForm.MatchString(m.Name) {
		wrong("name: %q is not a host name in lower case, at most 32 characters", r.Name)
	}
	var err error
	if m.MAC, err = boot.ParseMAC(r.MAC); err != nil {
		wrong("mac: %w", err)
	} else if m.MAC[0]&1 != 0 {
		wrong("mac: %s is a multicast address", m.MAC)
	}
	if m.UUID == "" {
		m.UUID = fmt.Sprintf("77000000-0000-4000-8000-%x", m.MAC[:])
	} else if !uuidForm.MatchString(m.UUID) {
		wrong("uuid: %q is not a UUID such as 77000000-0000-4000-8000-525400770010", r.UUID)
	}
	switch m.Firmware {
	case BIOS, UEFI, UEFIHTTP, UEFISecure:
	default:
		wrong("firmware: %q is none of bios, uefi, uefi-http, uefi-secure", r.Firmware)
	}
	if m.Memory, err = parseMemory(cmp.Or(r.Memory, "1G")); err != nil {
		wrong("memory: %w", err)
	}
	if m.CPUs < 1 || m.CPUs > 64 {
		wrong("cpus: %d is not between 1 and 64", m.CPUs)
	}
	if !nicForm.MatchString(m.NIC) {
		wrong("nic: %q is not one of QEMU's network cards, such as virtio-net-pci", r.NIC)
	}
	return m, errors.Join(mistakes...)
}

// parseMemory reads 1G or 1536M and returns MiB.
func parseMemory(s string) (int, error) {
	digits := strings.TrimRight(s, "GM")
	n, err := strconv.Atoi(digits)
	switch {
	case err != nil || len(s) != len(digits)+1 || n < 1 || n > 1<<20:
		return 0, fmt.Errorf("%q is not a size such as 1G or 1536M", s)
	case strings.HasSuffix(s, "G"):
		n *= 1024
	}
	if n < 512 {
		return 0, fmt.Errorf("%s is too little for a live system; 1G is enough", s)
	}
	return n, nil
}
