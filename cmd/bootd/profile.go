package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"bootd/boot"
	"bootd/boot/ipxe"
	"bootd/ignition"
	"bootd/internal/config"
)

func (a *app) profileCommand() *cobra.Command {
	c := &cobra.Command{Use: "profile", Short: "what machines get",
		Long: `A profile in profiles/*.yaml says what its machines boot: image, arguments, Ignition
and role in the swarm.`}
	return group(c,
		&cobra.Command{
			Use: "list", Short: "the profiles",
			Long: `List shows the profiles of the configuration directory, and how many entries name
each.`,
			Example: "  bootd profile list",
			Args:    exactly(),
			RunE: func(*cobra.Command, []string) error {
				cfg, err := config.Load(a.dir)
				if err != nil {
					return err
				}
				return a.profiles(cfg)
			},
		},
		a.profileRenderCommand(),
	)
}

func (a *app) profiles(cfg *config.Config) error {
	type row struct {
		Name     string `json:"name"`
		Image    string `json:"image,omitempty"`
		Role     string `json:"role,omitempty"`
		Machines int    `json:"machines"`
	}
	list := []row{}
	for _, name := range profileNames(cfg) {
		p := cfg.Catalog.Profiles[name]
		r := row{Name: name, Image: p.Image}
		if p.Swarm != nil {
			r.Role = string(p.Swarm.Role)
			if r.Role == "" {
				r.Role = string(boot.Worker)
			}
		}
		for _, m := range cfg.Catalog.Machines {
			if m.Profile == name {
				r.Machines++
			}
		}
		list = append(list, r)
	}
	if a.format == "json" {
		return a.json(list)
	}
	rows := make([][]string, len(list))
	for i, r := range list {
		rows[i] = []string{r.Name, r.Image, r.Role, fmt.Sprint(r.Machines)}
	}
	return a.table([]string{"PROFILE", "IMAGE", "SWARM ROLE", "ENTRIES"}, rows)
}

func (a *app) profileRenderCommand() *cobra.Command {
	var machine, only string
	c := &cobra.Command{
		Use:   "render PROFILE",
		Short: "print exactly what a machine would get",
		Long: `Render prints the iPXE script and the Ignition config that a machine with this
profile would get at its next boot, byte for byte but for the secrets: tickets and
the swarm's token are made when the machine boots, and are shown by their names.`,
		Example: "  bootd profile render worker\n  bootd profile render worker --machine node1 --only ignition",
		Args:    exactly("PROFILE"),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			cfg, err := config.Load(a.dir)
			if err != nil || len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return profileNames(cfg), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := oneOf("only", only, "script", "ignition"); err != nil {
				return err
			}
			cfg, err := config.Load(a.dir)
			if err == nil {
				err = checkProfiles(cfg)
			}
			if err != nil {
				return err
			}
			assigned, err := a.example(c, cfg, args[0], machine)
			if err != nil {
				return err
			}
			return a.render(cfg, assigned, only)
		},
	}
	c.Flags().StringVar(&machine, "machine", "", "for the machine of this `name` or hardware address, with its own keys")
	c.Flags().StringVar(&only, "only", "", "print only `this`: script or ignition")
	completeFlag(c, "machine", a.completeMachines)
	completeFlag(c, "only", cobra.FixedCompletions([]string{"script", "ignition"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// example is the assignment to render: a machine's, or a made-up machine's
// with nothing but the profile.
func (a *app) example(c *cobra.Command, cfg *config.Config, profile, machine string) (boot.Assignment, error) {
	p := cfg.Catalog.Profiles[profile]
	if p == nil {
		return boot.Assignment{}, fmt.Errorf("%s has no profile %q; it has %s", cfg.Dir, profile, strings.Join(profileNames(cfg), ", "))
	}
	if machine == "" {
		mac := boot.MAC{0x52, 0x54, 0, 0, 0, 1}
		return boot.Assignment{Name: "example", Profile: p, Inventory: boot.Inventory{MAC: mac, CPU: "x86_64"}}, nil
	}
	assigned, err := a.find(c, cfg, machine)
	if err != nil {
		return assigned, err
	}
	if assigned.Profile == nil || assigned.Profile.Name != profile {
		has := "none"
		if assigned.Profile != nil {
			has = assigned.Profile.Name
		}
		return assigned, fmt.Errorf("machine %s has profile %s, not %s", machine, has, profile)
	}
	if assigned.Inventory.CPU == "" {
		assigned.Inventory.CPU = "x86_64"
	}
	return assigned, nil
}

// What stands in the place of secrets that are made at boot.
const (
	ticketPlace = "TICKET"
	tokenPlace  = "SWMTKN-1-MADE-AT-BOOT"
)

func (a *app) render(cfg *config.Config, assigned boot.Assignment, only string) error {
	base := exampleBase(cfg, assigned)
	script, err := exampleScript(cfg, assigned, base)
	if err != nil {
		return err
	}
	var rendered []byte
	if assigned.Profile.Image != "" && familyOf(cfg, assigned.Profile.Image) != boot.Linux {
		t, err := ignition.Prepare(assigned.Profile, familyOf(cfg, assigned.Profile.Image))
		if err != nil {
			return err
		}
		n := ignition.Node{Hostname: assigned.Name, ReportURL: base + "/report/" + ticketPlace}
		if s, ok := cfg.SwarmOf(assigned.Profile.Swarm); ok {
			n.Join = &ignition.Join{Addr: exampleManager(s, base), Token: tokenPlace, Availability: joinAvailability, Leave: s.DrainTimeout}
		}
		r, err := t.Render(n)
		if err != nil {
			return err
		}
		rendered = r.Pretty()
	}
	if a.format == "json" {
		return a.json(map[string]string{"machine": assigned.Name, "script": string(script), "ignition": string(rendered)})
	}
	if only != "ignition" {
		if only == "" {
			fmt.Fprintf(a.out, "# script of %s\n", assigned.Name)
		}
		fmt.Fprintf(a.out, "%s", script)
	}
	if only != "script" && rendered != nil {
		if only == "" {
			fmt.Fprintf(a.out, "\n# Ignition config of %s\n", assigned.Name)
		}
		fmt.Fprintf(a.out, "%s\n", rendered)
	}
	return nil
}

// exampleBase is the root of the URLs that the machine would see.
func exampleBase(cfg *config.Config, assigned boot.Assignment) string {
	n := assigned.Network
	if n == nil && len(cfg.Catalog.Networks) > 0 {
		n = &cfg.Catalog.Networks[0]
	}
	addr := netip.MustParseAddr("192.0.2.1") // for documentation (RFC 5737): no network is configured
	if n != nil {
		addr = n.Subnet.Addr().Next()
		if own, err := serverAddr(n); err == nil {
			addr = own
		}
	}
	return ipxe.BaseURL(netip.AddrPortFrom(addr, uint16(cfg.HTTPPort)))
}

func exampleManager(s config.Swarm, base string) string {
	if a, err := netip.ParseAddr(s.Advertise); err == nil {
		return netip.AddrPortFrom(a, 2377).String()
	}
	var host string
	if _, err := fmt.Sscanf(base, "http://%s", &host); err == nil {
		if ap, err := netip.ParseAddrPort(host); err == nil {
			host = ap.Addr().String()
		}
	}
	return host + ":2377"
}

func exampleScript(cfg *config.Config, assigned boot.Assignment, base string) ([]byte, error) {
	p := assigned.Profile
	if p.Image == "" {
		return ipxe.LocalDisk(assigned.Name, p.Name, assigned.Inventory.Arch.EFI()), nil
	}
	image, ok := storedImage(cfg, p.Image, assigned.Inventory.CPU)
	if !ok {
		return ipxe.Wait(base, fmt.Sprintf("The image %s is not in the store yet: bootd asset fetch %s", p.Image, p.Image)), nil
	}
	s, err := ipxe.Script(ipxe.Params{Base: base, Name: assigned.Name, MAC: assigned.Inventory.MAC, Image: image, Profile: p, Ticket: ticketPlace})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("profile %s cannot be booted", p.Name), err)
	}
	return s, nil
}

// storedImage looks an image up in the asset store, if there is one.
func storedImage(cfg *config.Config, name, cpu string) (boot.Image, bool) {
	s, err := openAssets(cfg)
	if err != nil {
		return boot.Image{}, false
	}
	images, _ := s.Images() // what can be read is enough
	return (&boot.Catalog{Images: images}).Image(name, cpu)
}
