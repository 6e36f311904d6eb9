package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"bootd/internal/config"
)

func (a *app) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "check the configuration without using it",
		Long: `Check reads the whole configuration directory, as the server does, and shows
every mistake at once with its file, line and column. It also translates each
profile to Ignition, and warns of loaders that are not on this machine. Nothing is
changed and nothing is fetched.`,
		Example: "  bootd check\n  bootd check -c ./site -o json",
		Args:    exactly(),
		RunE: func(*cobra.Command, []string) error {
			cfg, err := config.Load(a.dir)
			if err == nil {
				err = checkProfiles(cfg)
			}
			if err == nil {
				for _, l := range withoutGRUB(cfg, findLoaders(cfg)) {
					fmt.Fprintf(a.err, "bootd: warning: %s; on the server: %s\n", l, l.Remedy)
				}
			}
			if a.format == "json" {
				return a.mistakes(err)
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.out, "%s is right: %d network(s), %d profile(s), %d machine entry(s)\n",
				a.dir, len(cfg.Catalog.Networks), len(cfg.Catalog.Profiles), len(cfg.Catalog.Machines))
			return err
		},
	}
}

// mistakes writes what is wrong as JSON; the exit status says it too.
func (a *app) mistakes(err error) error {
	var list config.Mistakes
	if err != nil && !errors.As(err, &list) {
		return err
	}
	if list == nil {
		list = config.Mistakes{}
	}
	if e := a.json(list); e != nil || err == nil {
		return e
	}
	return told{err}
}

// A told error has been shown; only its exit status is left to give.
type told struct{ error }

func (t told) Unwrap() error { return t.error }
