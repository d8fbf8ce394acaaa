package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vstor/dataplane/api"
	"vstor/dataplane/config"
	"vstor/dataplane/errs"
	"vstor/dataplane/node"
)

// defaultDir is the deployment meant where neither --dir nor VSTOR_DIR says.
const defaultDir = "/var/lib/vstor"

// callTimeout bounds what a command waits for a running deployment.
const callTimeout = 40 * time.Second

// Exit codes.
const (
	exitError = 1
	exitUsage = 2
)

// app is the command with everything it touches of the outside, so that tests run it whole.
type app struct {
	stdout, stderr io.Writer
	environ        []string
	start          starter
	manager        manager

	dir    string
	asJSON bool
}

// usageError is a mistake in how the command was called, rather than in what it was asked.
type usageError struct{ error }

// run executes a command line and returns the exit code.
func (a *app) run(args []string) (code int) {
	defer func() {
		if v := recover(); v != nil {
			fmt.Fprintln(a.stderr, "vstor: "+bugReport(v))
			code = exitError
		}
	}()
	root := a.root()
	root.SetArgs(args)
	cmd, err := root.ExecuteC()
	if err == nil {
		return 0
	}
	fmt.Fprintln(a.stderr, "vstor: "+sentence(err))
	var usage usageError
	if errors.As(err, &usage) {
		fmt.Fprintf(a.stderr, "see `%s --help`\n", cmd.CommandPath())
		return exitUsage
	}
	return exitError
}

// sentence is an error on one line.
func sentence(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "vstor",
		Short: "distributed block storage: virtual disks, erasure coded on many drives, served over NBD",
		Args:  cobra.ArbitraryArgs,
		RunE:  group,

		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	dir := a.env("VSTOR_DIR")
	if dir == "" {
		dir = defaultDir
	}
	root.PersistentFlags().StringVar(&a.dir, "dir", dir, "folder of the deployment, or VSTOR_DIR")
	root.PersistentFlags().BoolVar(&a.asJSON, "json", false, "print JSON")
	root.AddCommand(a.upCommand(), a.serveCommand(), a.vdiskCommand(), a.asdCommand(), a.cacheCommand(), a.statusCommand(),
		a.routerCommand(), a.edgeCommand(), a.reloadCommand(), a.benchCommand(), a.fsckCommand(), a.versionCommand())
	return root
}

// group is what a command does that only has commands below it.
func group(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	var names []string
	for _, c := range cmd.Commands() {
		if !c.Hidden && c.Name() != "help" {
			names = append(names, c.Name())
		}
	}
	return usageError{fmt.Errorf("%s has no command %q; it has %s", cmd.CommandPath(), args[0], strings.Join(names, ", "))}
}

// takes makes the check that a command has just these arguments.
func takes(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usageError{fmt.Errorf("%s needs %s: %s", cmd.CommandPath(), names[len(args)], cmd.UseLine())}
		case len(args) > len(names):
			return usageError{fmt.Errorf("%s: %q is one word too many: %s", cmd.CommandPath(), args[len(names)], cmd.UseLine())}
		}
		return nil
	}
}

func (a *app) env(name string) string {
	for _, e := range a.environ {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}

// call asks the running deployment.
func (a *app) call(f func(context.Context, *api.Client) error) error {
	dir, err := filepath.Abs(a.dir)
	if err != nil {
		return errs.Wrap(errs.IO, err, "cannot find out what folder %s is", a.dir)
	}
	if err := config.CheckSocketPath(filepath.Join(dir, api.SocketName)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	c := api.NewClient(dir)
	defer c.Close()
	return f(ctx, c)
}

// print writes v as JSON, or else as the table says.
func (a *app) print(v any, table func(*table)) error {
	if a.asJSON {
		b, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			return errs.Wrap(errs.IO, err, "cannot write JSON")
		}
		_, err = fmt.Fprintf(a.stdout, "%s\n", b)
		return err
	}
	t := newTable(a.stdout)
	table(t)
	return t.flush()
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "print the version", Args: takes(),
		RunE: func(*cobra.Command, []string) error {
			v := map[string]any{"version": node.Version, "dir_format": config.FormatVersion}
			return a.print(v, func(t *table) { t.row("vstor "+node.Version, "folder format", config.FormatVersion) })
		},
	}
}
