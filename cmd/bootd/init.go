package main

import (
	"bytes"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"github.com/spf13/cobra"

	"bootd/boot/dhcp"
)

// The files that init writes, as templates of what [firstSite] says.
//
//go:embed init
var initFiles embed.FS

// A firstSite is what a first configuration is made of.
type firstSite struct {
	Interface, Subnet, Range string
	Swarm                    bool
	Keys                     []string // lines of authorized_keys
}

func (a *app) initCommand() *cobra.Command {
	var iface string
	var noSwarm bool
	c := &cobra.Command{
		Use: "init", Short: "write a first configuration, with comments",
		Long: `Init writes bootd.yaml, a profile and an example of a machine for the network of an
interface. SSH keys of whoever runs it are put into the profile. Files that are
there already are never touched.`,
		Example: "  bootd init --interface eth1\n  bootd init --interface eth1 -c ./site --no-swarm",
		Args:    exactly(),
		RunE: func(*cobra.Command, []string) error {
			if iface == "" {
				return usageError{errors.New("say where the machines are: --interface NAME; there are " + strings.Join(interfaces(), ", "))}
			}
			link, err := dhcp.LinkOf(iface)
			if err != nil {
				return err
			}
			site, err := siteOn(link)
			if err != nil {
				return err
			}
			site.Swarm, site.Keys = !noSwarm, publicKeys()
			return a.writeSite(site)
		},
	}
	c.Flags().StringVarP(&iface, "interface", "i", "", "`name` of the interface where the machines are")
	c.Flags().BoolVar(&noSwarm, "no-swarm", false, "just boot machines, without a Docker Swarm")
	completeFlag(c, "interface", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return interfaces(), cobra.ShellCompDirectiveNoFileComp
	})
	return c
}

// interfaces are those that machines could be on.
func interfaces() []string {
	list, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var names []string
	for _, i := range list {
		if i.Flags&net.FlagLoopback == 0 && len(i.HardwareAddr) == 6 {
			names = append(names, i.Name)
		}
	}
	return names
}

// siteOn chooses the subnet of an interface's first address, and the upper half
// of it for machines without a reserved address, but for this machine's own.
func siteOn(link dhcp.Link) (firstSite, error) {
	i := slices.IndexFunc(link.Addrs, func(p netip.Prefix) bool { return p.Bits() <= 29 && !p.Addr().IsLinkLocalUnicast() })
	if i < 0 {
		return firstSite{}, fmt.Errorf("interface %[1]s has no address in a subnet that is large enough; give it one first: ip addr add 10.0.0.1/24 dev %[1]s", link.Interface)
	}
	own := link.Addrs[i]
	b := own.Masked().Addr().As4()
	base := binary.BigEndian.Uint32(b[:])
	size := uint32(1) << (32 - own.Bits())
	// A range of a few thousand is enough for anybody's first rack.
	first, last := base+size/2, min(base+size-2, base+size/2+4095)
	b = own.Addr().As4()
	switch self := binary.BigEndian.Uint32(b[:]); {
	case self < first || self > last:
	case self-first >= last-self: // the larger part beside it
		last = self - 1
	default:
		first = self + 1
	}
	return firstSite{Interface: link.Interface, Subnet: own.Masked().String(), Range: v4(first) + "-" + v4(last)}, nil
}

func v4(n uint32) string {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b).String()
}

// publicKeys are the SSH keys of whoever runs the program.
func publicKeys() []string {
	home, err := os.UserHomeDir()
	if err != nil {
		return nil
	}
	files, _ := filepath.Glob(filepath.Join(home, ".ssh", "id_*.pub")) // the pattern is right
	var keys []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if line := strings.TrimSpace(string(b)); err == nil && line != "" && !strings.Contains(line, "\n") {
			keys = append(keys, line)
		}
	}
	return keys
}

// writeSite writes the files that are not there yet.
func (a *app) writeSite(site firstSite) error {
	kept := false
	err := fs.WalkDir(initFiles, "init", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := initFiles.ReadFile(p)
		if err != nil {
			return err
		}
		t, err := template.New(p).Parse(string(text))
		if err != nil {
			return err
		}
		var b bytes.Buffer
		if err := t.Execute(&b, site); err != nil {
			return err
		}
		to := filepath.Join(a.dir, filepath.FromSlash(strings.TrimPrefix(p, "init/")))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if errors.Is(err, fs.ErrExist) {
			kept = true
			_, err := fmt.Fprintf(a.out, "kept   %s, which was there already\n", to)
			return err
		}
		if err != nil {
			return err
		}
		if _, err := f.Write(b.Bytes()); err != nil {
			return errors.Join(err, f.Close(), os.Remove(to))
		}
		if err := f.Close(); err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.out, "wrote  %s\n", to)
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot write a first configuration: %w", err)
	}
	if kept {
		return nil
	}
	_, err = fmt.Fprintf(a.out, "\nnext: write your machines into %s, then\n  bootd check -c %[2]s\n  bootd serve -c %[2]s\n",
		filepath.Join(a.dir, "machines", "rack1.yaml"), a.dir)
	return err
}
