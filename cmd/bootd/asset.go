package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bootd/assets"
	"bootd/boot"
	"bootd/internal/config"
)

func (a *app) assetCommand() *cobra.Command {
	c := &cobra.Command{Use: "asset", Short: "the files that machines boot",
		Long: `Images are kept in the state directory, by digest. A running server sees at once
what these commands change.`}
	return group(c, a.assetListCommand(), a.assetFetchCommand(), a.assetImportCommand(), a.assetRmCommand(), a.assetLoadersCommand())
}

// assets opens the configuration and its asset store.
func (a *app) assets() (*config.Config, *assets.Store, error) {
	cfg, err := config.Load(a.dir)
	if err != nil {
		return nil, nil, err
	}
	s, err := openAssets(cfg)
	return cfg, s, err
}

func (a *app) assetListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "the images in the store",
		Long: `List shows every version of every image that is on the server's disk, whom its
signature is from, and which one machines boot (current).`,
		Example: "  bootd asset list\n  bootd asset list -o json",
		Args:    exactly(),
		RunE: func(*cobra.Command, []string) error {
			_, s, err := a.assets()
			if err != nil {
				return err
			}
			records, err := s.List()
			if a.format == "json" {
				if records == nil {
					records = []assets.Record{}
				}
				return errors.Join(a.json(records), err)
			}
			now := time.Now()
			rows := make([][]string, len(records))
			for i, r := range records {
				current := ""
				if r.Current {
					current = "current"
				}
				rows[i] = []string{r.Image.Name, r.Image.Version, r.Image.CPU, string(r.Image.Family), size(r.Size()), ago(r.Fetched, now),
					cmp.Or(r.Signer, r.KeyID), current}
			}
			return errors.Join(a.table([]string{"IMAGE", "VERSION", "CPU", "FAMILY", "SIZE", "FETCHED", "SIGNED BY", ""}, rows), err)
		},
	}
}

func (a *app) assetFetchCommand() *cobra.Command {
	var cpu string
	c := &cobra.Command{
		Use:   "fetch IMAGE...",
		Short: "get images, or newer versions of them",
		Long: `Fetch gets the version that an image's source offers now, checks its digests and
signatures, and makes it the one that machines boot. An interrupted fetch is
resumed. IMAGE is fedora-coreos/STREAM, flatcar/CHANNEL, or one declared under
images in bootd.yaml.`,
		Example:           "  bootd asset fetch fedora-coreos/stable\n  bootd asset fetch flatcar/stable --cpu aarch64",
		ValidArgsFunction: a.completeSources,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("name an image: bootd asset fetch IMAGE")}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := oneOf("cpu", cpu, "x86_64", "aarch64"); err != nil {
				return err
			}
			cfg, s, err := a.assets()
			if err != nil {
				return err
			}
			for _, name := range args {
				src, err := imageSource(cfg, name, cpu)
				if err != nil {
					return err
				}
				if err := a.fetch(c, s, src); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().StringVar(&cpu, "cpu", "", "x86_64 or aarch64 (default: as configured, or x86_64)")
	return c
}

func (a *app) fetch(c *cobra.Command, s *assets.Store, src assets.Source) error {
	bars := newDownloads(a.err)
	image, err := s.Fetch(c.Context(), src, bars)
	bars.close()
	if err != nil {
		return err
	}
	if a.format == "json" {
		return a.json(image)
	}
	_, err = fmt.Fprintf(a.out, "%s %s (%s) is in the store\n", image.Name, image.Version, image.CPU)
	return err
}

func (a *app) assetImportCommand() *cobra.Command {
	var family, version string
	c := &cobra.Command{
		Use:   "import [IMAGE] DIRECTORY|ISO",
		Short: "copy an image from a local directory, or ESXi from its ISO",
		Long: `Import recognizes kernel, initramfs and root file system in a directory by their
usual names, copies them into the store under the name IMAGE, and makes that the
version that machines boot.

Of an ISO image it takes the installer of ESXi. IMAGE is then esxi/NAME, or by the
release, such as esxi/8.0, when it is not said. If the file pxelinux.0 of syslinux
3.86 lies beside the ISO it is taken along, for BIOS machines whose iPXE cannot
start mboot.c32 itself.`,
		Example: "  bootd asset import lab /var/cache/bootd-lab/image\n  bootd asset import VMware-ESXi-8.0U3.iso",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 1 && assets.IsISO(args[0]) {
				return nil
			}
			return exactly("IMAGE", "DIRECTORY")(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			if path := args[len(args)-1]; assets.IsISO(path) {
				return a.importISO(c, assets.ISO{Path: path, Name: strings.Join(args[:len(args)-1], ""), Version: version}, family)
			}
			if err := oneOf("family", family, string(boot.FedoraCoreOS), string(boot.Flatcar), string(boot.Linux)); err != nil {
				return err
			}
			_, s, err := a.assets()
			if err != nil {
				return err
			}
			return a.fetch(c, s, assets.Dir{Name: args[0], Path: args[1], Family: boot.Family(family), Version: version})
		},
	}
	c.Flags().StringVar(&family, "family", "", "fedora-coreos, flatcar or linux (default: by the files' names)")
	c.Flags().StringVar(&version, "version", "", "what to call this version (default: by the files' names or digests)")
	return c
}

func (a *app) importISO(c *cobra.Command, iso assets.ISO, family string) error {
	switch {
	case family != "":
		return usageError{errors.New("--family is for directories; an ISO image is ESXi's installer")}
	case iso.Name != "" && !strings.HasPrefix(iso.Name, string(boot.ESXi)+"/"):
		return usageError{fmt.Errorf("%s would be an image of ESXi; call it esxi/NAME", iso.Name)}
	}
	_, s, err := a.assets()
	if err != nil {
		return err
	}
	return a.fetch(c, s, iso)
}

func (a *app) assetRmCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rm IMAGE [VERSION]",
		Short: "remove an image, or one version of it",
		Long: `Rm removes files that no other image shares. When the version that machines boot is
removed, the newest of the others takes its place.`,
		Example:           "  bootd asset rm fedora-coreos/testing",
		ValidArgsFunction: a.completeStored,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return usageError{errors.New("bootd asset rm takes IMAGE [VERSION]")}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			_, s, err := a.assets()
			if err != nil {
				return err
			}
			v := ""
			if len(args) > 1 {
				v = args[1]
			}
			freed, err := s.Remove(args[0], v)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.out, "removed %s; %s freed\n", strings.Join(args, " "), size(freed))
			return err
		},
	}
}

// completeStored offers the images in the store, and then their versions.
func (a *app) completeStored(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var out []string
	if _, s, err := a.assets(); err == nil && len(args) < 2 {
		records, _ := s.List() // those that can be read
		for _, r := range records {
			switch {
			case len(args) == 0:
				out = append(out, r.Image.Name)
			case r.Image.Name == args[0]:
				out = append(out, r.Image.Version)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out), cobra.ShellCompDirectiveNoFileComp
}

// completeSources offers the images that can be fetched: those that the
// configuration names, and those that are known without.
func (a *app) completeSources(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	out := []string{"fedora-coreos/next", "fedora-coreos/stable", "fedora-coreos/testing", "flatcar/alpha", "flatcar/beta", "flatcar/lts", "flatcar/stable"}
	if cfg, err := config.Load(a.dir); err == nil {
		out = append(out, imageNames(cfg)...)
		for _, i := range cfg.Images {
			out = append(out, i.Name)
		}
	}
	slices.Sort(out)
	out = slices.DeleteFunc(slices.Compact(out), func(n string) bool {
		return slices.Contains(args, n) || strings.HasPrefix(n, string(boot.ESXi)+"/") // which is imported
	})
	return out, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) assetLoadersCommand() *cobra.Command {
	return &cobra.Command{
		Use: "loaders", Example: "  bootd asset loaders", Short: "the iPXE builds that were found, and for which firmware",
		Long: `Loaders shows what firmware can be given first: iPXE, and signed shims and GRUBs,
from loaders in bootd.yaml, the state directory and the places where distributions
install them. Which firmware a build is for is told by its contents.`, Args: exactly(),
		RunE: func(*cobra.Command, []string) error {
			cfg, err := config.Load(a.dir)
			if err != nil {
				return err
			}
			found := findLoaders(cfg)
			list := found.List()
			if a.format == "json" {
				return a.json(list)
			}
			rows := make([][]string, len(list))
			for i, l := range list {
				rows[i] = []string{l.Name, l.Version, size(l.Size), l.Path}
			}
			err = a.table([]string{"LOADER", "VERSION", "SIZE", "PATH"}, rows)
			for _, s := range found.Skipped() {
				fmt.Fprintln(a.err, "left out:", s)
			}
			return err
		},
	}
}
