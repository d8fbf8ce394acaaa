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
		Long: "Measure deployments of its own, in one process and with a process for each ASD, and one ASD alone, against\n" +
			"qemu-nbd on a raw file: the same jobs, in turns, on one file system. Needs fio and qemu-utils, a machine that\n" +
			"does nothing else, and up to 28 GB below --dir (here the folder to work in; the current one if it is not\n" +
			"given). What it makes there it removes.",
		Args: takes(),
	}
	f := cmd.Flags()
	cmd.AddCommand(a.cacheSimCommand())
	f.StringVar(&opt.JSON, "out", "", "file for the results, as JSON")
	f.BoolVar(&opt.Quick, "quick", false, "one round of short runs: to see that it works")
	f.BoolVar(&opt.Keep, "keep", false, "leave volumes and logs in place")
	f.IntVar(&opt.Rounds, "rounds", 0, "rounds to take medians of; default 3, quick 1")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		opt.Work = "."
		if cmd.Flags().Changed("dir") {
			opt.Work = a.dir
		}
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
