package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manCommand is for who makes packages, and so not in the help.
func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIRECTORY",
		Short: "write the manual pages",
		Long: `Man writes a manual page for each command into a directory, for section 1. They
bear the date in SOURCE_DATE_EPOCH (seconds since 1970) if that is set, or today's.`,
		Example: "  bootd man /usr/share/man/man1",
		Hidden:  true,
		Args:    exactly("DIRECTORY"),
		RunE: func(c *cobra.Command, args []string) error {
			root := c.Root()
			root.DisableAutoGenTag = true
			err := os.MkdirAll(args[0], 0o755)
			if err == nil {
				err = doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "bootd " + thisBuild().Version, Manual: "bootd"}, args[0])
			}
			if err != nil {
				return fmt.Errorf("cannot write the manual pages: %w", err)
			}
			return nil
		},
	}
}
