package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"vstor/bench"
	"vstor/dataplane/errs"
)

func (a *app) benchCommand() *cobra.Command {
	var opt bench.Options
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "measure this vstor against qemu-nbd on a raw file",
		Long: "Measure a deployment of its own against qemu-nbd on a raw file: the same fio jobs, in turns, on one file\n" +
			"system. Needs fio and qemu-utils, up to 15 GB below --work, and a machine that does nothing else.",
		Args: takes(),
	}
	f := cmd.Flags()
	f.StringVar(&opt.Work, "work", ".", "folder for the volumes; what is made there is removed at the end")
	f.StringVar(&opt.JSON, "out", "", "file for the results, as JSON")
	f.BoolVar(&opt.Quick, "quick", false, "one round of short runs: to see that it works")
	f.BoolVar(&opt.Keep, "keep", false, "leave volumes and logs in place")
	f.IntVar(&opt.Rounds, "rounds", 0, "rounds to take medians of; default 3, quick 1")
	cmd.RunE = func(*cobra.Command, []string) error {
		var err error
		if opt.Vstor, err = os.Executable(); err != nil {
			return errs.Wrap(errs.IO, err, "cannot find out where this command lies")
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		return bench.Run(ctx, opt, a.stdout)
	}
	return cmd
}
