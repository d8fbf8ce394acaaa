package main

import (
	"context"
	"os"
	"os/signal"
	"regexp"
	"syscall"

	"github.com/spf13/cobra"

	"vstor/bench"
	"vstor/dataplane/errs"
)

func (a *app) benchCommand() *cobra.Command {
	var opt bench.Options
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "measure this vstor against others on a raw file",
		Long: "Measure deployments of its own, in one process and with a process for each ASD, and one ASD alone, against\n" +
			"qemu-nbd on a raw file, nbdkit on it if it is installed, an NBD server of ours that stores nothing, and the raw\n" +
			"file itself: the same jobs, in turns, on one file system. Needs fio and qemu-utils, a machine that does nothing\n" +
			"else, and up to 42 GB below --dir (here the folder to work in; the current one if it is not given). What it\n" +
			"makes there it removes. How long it takes it says first; jobs during which others used the machine give no\n" +
			"ratio.",
		Args: takes(),
	}
	f := cmd.Flags()
	cmd.AddCommand(a.cacheSimCommand(), a.benchReportCommand(), a.benchCompareCommand(), a.benchPartCommand(),
		a.benchBareCommand())
	f.StringVar(&opt.JSON, "out", "", "file for the results, as JSON")
	f.StringVar(&opt.HTML, "html", "", "file for a page with plots of the results")
	f.StringVar(&opt.Markdown, "markdown", "", "file for a summary; what stands below its marker line is kept")
	f.BoolVar(&opt.Quick, "quick", false, "one round of short runs: to see that it works")
	f.BoolVar(&opt.Keep, "keep", false, "leave volumes and logs in place")
	f.StringVar(&opt.Profile, "profile", "",
		"`folder` for profiles of its processes during each job, of CPU, allocations and wall clock, and profiles.txt")
	f.BoolVar(&opt.Peers, "peers", false, "against tgt and Ceph too, where they are installed (see make bench-peers)")
	only := f.String("only", "",
		"do only what this regular expression matches in `JOB on TARGET`: 'QD32.* on (vstor|qemu-nbd)$'")
	f.IntVar(&opt.Rounds, "rounds", 0, "rounds to take medians of; default 3, quick 1")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		opt.Work = "."
		if cmd.Flags().Changed("dir") {
			opt.Work = a.dir
		}
		var err error
		if *only != "" {
			if opt.Only, err = regexp.Compile(*only); err != nil {
				return errs.Wrap(errs.Invalid, err, "--only is no regular expression")
			}
		}
		if opt.Vstor, err = os.Executable(); err != nil {
			return errs.Wrap(errs.IO, err, "cannot find out where this command lies")
		}
		ends := []os.Signal{syscall.SIGTERM, syscall.SIGINT}
		if !signal.Ignored(syscall.SIGHUP) { // under nohup it is
			ends = append(ends, syscall.SIGHUP)
		}
		ctx, stop := signal.NotifyContext(context.Background(), ends...)
		defer stop()
		return bench.Run(ctx, opt, a.stdout)
	}
	return cmd
}
