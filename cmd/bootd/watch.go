package main

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
)

// watchable are the names of commands that show how things are, and can go on
// showing it.
var watchable = []string{"list", "nodes", "show", "status"}

// addWatch gives the flag --watch to each of them below c. Those that ask BMCs,
// which are slow and had better not be asked all the time, are left out.
func (a *app) addWatch(c *cobra.Command) {
	if c.Name() == "power" {
		return
	}
	for _, sub := range c.Commands() {
		a.addWatch(sub)
	}
	if c.HasSubCommands() || !slices.Contains(watchable, c.Name()) {
		return
	}
	var watch bool
	once := c.RunE
	c.Flags().BoolVarP(&watch, "watch", "w", false, "show it again whenever it changes, until Ctrl-C")
	c.RunE = func(c *cobra.Command, args []string) error {
		if !watch {
			return once(c, args)
		}
		return a.watch(c, args, once)
	}
}

// watchEvery is how often a watched command looks.
const watchEvery = time.Second

// watch runs a command again and again and writes what it shows when that has
// changed: on a terminal in the place of what was there before. It fails when
// the first run does; a server that is away later may come back.
func (a *app) watch(c *cobra.Command, args []string, once func(*cobra.Command, []string) error) error {
	ctx, out := c.Context(), a.out
	defer func() { a.out = out }()
	_, screen := terminal(out)
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for last, first := "", true; ; first = false {
		var b bytes.Buffer
		a.out = &b
		err := once(c, args)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && first:
			return err
		case err != nil:
			fmt.Fprintln(&b, "bootd:", err)
		}
		if text := b.String(); text != last {
			if err := repaint(out, text, screen, first); err != nil {
				return err
			}
			last = text
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// repaint writes text over what a terminal shows; elsewhere after an empty line.
func repaint(out io.Writer, text string, screen, first bool) error {
	switch {
	case screen:
		text = "\x1b[H\x1b[2J" + text // ECMA-48: to the upper left, and erase
	case !first:
		text = "\n" + text
	}
	_, err := io.WriteString(out, text)
	return err
}
