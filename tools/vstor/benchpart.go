package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"vstor/bench"
	"vstor/dataplane/config"
	"vstor/dataplane/errs"
)

// benchPartCommand is what `vstor bench` starts for the parts that it drives alone. Nobody else needs it, and it writes
// over the bench's vDisk, so help does not tell of it.
func (a *app) benchPartCommand() *cobra.Command {
	var p bench.Part
	var bytes, each string
	caches := map[string]*string{} // settings of the deployment, by name
	cmd := &cobra.Command{Use: "part NAME", Hidden: true, Args: takes("a part's name"),
		Short: "drive a part of a deployment's path alone, as vstor bench does"}
	f := cmd.Flags()
	f.BoolVar(&p.Write, "write", false, "write over the vDisk, or the file, instead of reading")
	f.BoolVar(&p.Sequential, "sequential", false, "one IO behind the other, not anywhere")
	f.StringVar(&bytes, "bytes", "1G", "how much of it is gone over, from the start on")
	f.StringVar(&each, "block", "4k", "of an IO")
	f.IntVar(&p.Depth, "depth", 1, "IOs under way")
	f.DurationVar(&p.For, "for", time.Second, "how long")
	f.StringVar(&p.File, "file", "", "what the drive alone is driven on")
	for name, about := range map[string]string{
		"block-cache":     "size of the block cache; all that is gone over is read into it before",
		"block-cache-ssd": "size of its second tier",
		"fragment-cache":  "size of the fragment cache",
	} {
		caches[name] = f.String(name, "0", about)
	}
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		var err error
		if p.Bytes, err = flagSize("bytes", bytes); err != nil {
			return err
		}
		size, err := flagSize("block", each)
		if err != nil {
			return err
		}
		p.Name, p.Block = args[0], int(size)
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		says := config.Source{Name: "the command line", Values: map[string][]string{}}
		for name, v := range caches {
			says.Values[name] = []string{*v}
		}
		return a.benchPart(ctx, p, says)
	}
	return cmd
}

func (a *app) benchPart(ctx context.Context, p bench.Part, says config.Source) error {
	d, err := config.OpenDir(a.dir)
	if err != nil {
		return err
	}
	defer d.Abandon() // which undoes what opening a folder with nothing in it did
	if d.Fresh() {
		return errs.New(errs.Absent, "%s holds no deployment", a.dir)
	}
	if p.Config, _, err = a.resolve(d, says); err != nil {
		return err
	}
	p.Log = slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	return bench.RunPart(ctx, p, os.Stdin, a.stdout)
}
