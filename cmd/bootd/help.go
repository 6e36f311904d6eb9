package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// group makes c a command that only holds others: alone it shows its help, and
// a word that is none of them is a mistake on the command line.
func group(c *cobra.Command, commands ...*cobra.Command) *cobra.Command {
	c.SuggestionsMinimumDistance = 2
	c.DisableFlagsInUseLine = true
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return unknownCommand(c, args[0])
	}
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	c.AddCommand(commands...)
	return c
}

// unknownCommand is the mistake that c has no command of this name.
func unknownCommand(c *cobra.Command, name string) error {
	remedy := fmt.Sprintf("see %s --help", c.CommandPath())
	if near := c.SuggestionsFor(name); len(near) > 0 {
		remedy = fmt.Sprintf("did you mean %s %s?", c.CommandPath(), strings.Join(near, " or "))
	}
	return usageError{fmt.Errorf("there is no command %s %s; %s", c.CommandPath(), name, remedy)}
}

// exactly takes as many arguments as there are names.
func exactly(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) == len(names):
			return nil
		case len(names) == 0:
			return usageError{fmt.Errorf("%s takes no arguments, so what is %q? See %s --help", c.CommandPath(), args[0], c.CommandPath())}
		case len(args) < len(names):
			return usageError{fmt.Errorf("%s is missing: %s; see %s --help", names[len(args)], c.UseLine(), c.CommandPath())}
		}
		return usageError{fmt.Errorf("%q is too much: %s; see %s --help", args[len(names)], c.UseLine(), c.CommandPath())}
	}
}

// oneOf checks the value of a flag; empty means that it was not given.
func oneOf(flag, value string, words ...string) error {
	if value == "" || slices.Contains(words, value) {
		return nil
	}
	return usageError{fmt.Errorf("--%s cannot be %q, only %s", flag, value, strings.Join(words, " or "))}
}

// completeFlag says how the values of a flag of c are completed.
func completeFlag(c *cobra.Command, flag string, f cobra.CompletionFunc) {
	if err := c.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic(err) // c has no such flag: seen by the first run of any command
	}
}

// helpCommand is cobra's, but that it fails where there is nothing to show.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:                   "help [COMMAND]",
		Short:                 "how a command is used",
		Example:               "  bootd help\n  bootd help machine show",
		DisableFlagsInUseLine: true,
		RunE: func(c *cobra.Command, args []string) error {
			about, rest, err := c.Root().Find(args)
			if err != nil {
				return usageError{err}
			}
			if len(rest) > 0 {
				return unknownCommand(about, rest[0])
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			var names []string
			if about, rest, err := c.Root().Find(args); err == nil && len(rest) == 0 {
				for _, sub := range about.Commands() {
					if sub.IsAvailableCommand() {
						names = append(names, cobra.CompletionWithDesc(sub.Name(), sub.Short))
					}
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
}

// shells are those that completion is for.
var shells = []string{"bash", "fish", "zsh"}

const aboutCompletion = `Completion prints a script that makes the shell complete commands, flags, and the
names of machines and profiles. For one session:

  source <(bootd completion bash)
  source <(bootd completion zsh)
  bootd completion fish | source

For all sessions:

  bootd completion bash > /usr/share/bash-completion/completions/bootd
  bootd completion zsh > /usr/share/zsh/site-functions/_bootd
  bootd completion fish > ~/.config/fish/completions/bootd.fish`

func (a *app) completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:                   "completion SHELL",
		Short:                 "a script that completes commands in bash, fish or zsh",
		Long:                  aboutCompletion,
		Example:               "  source <(bootd completion bash)",
		DisableFlagsInUseLine: true,
		ValidArgs:             shells,
		Args: func(c *cobra.Command, args []string) error {
			if err := exactly("SHELL")(c, args); err != nil {
				return err
			}
			if !slices.Contains(shells, args[0]) {
				return usageError{fmt.Errorf("there is no completion for %q, only for %s", args[0], strings.Join(shells, ", "))}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			switch root := c.Root(); args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.out, true)
			case "fish":
				return root.GenFishCompletion(a.out, true)
			case "zsh":
				return root.GenZshCompletion(a.out)
			}
			return errors.ErrUnsupported
		},
	}
}
