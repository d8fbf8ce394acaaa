package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"vstor/bench/cachesim"
	"vstor/dataplane/errs"
)

// simReads is how many requests a trace that is made up has; of one in a file as many are read unless --limit says
// otherwise.
const (
	simReads = 400_000
	simLimit = 20_000_000
)

func (a *app) cacheSimCommand() *cobra.Command {
	var trace, format, svg string
	var limit int
	cmd := &cobra.Command{
		Use:   "cache-sim",
		Short: "replay traces against the block cache's policy and others",
		Long: "Replay traces of reads against LRU, ARC, S3-FIFO and the policy of vstor's block cache, at several block\n" +
			"sizes and cache sizes, and print hit ratios. Without --trace the traces are made up, the same ones every time.",
		Args: takes(),
	}
	f := cmd.Flags()
	f.StringVar(&trace, "trace", "", "file with a trace")
	f.StringVar(&format, "format", "", "how it is written: msr (MSR Cambridge), ali (Alibaba) or tencent")
	f.StringVar(&svg, "svg", "", "folder to draw the plots into")
	f.IntVar(&limit, "limit", 0,
		fmt.Sprintf("requests of a trace; default %d made up, at most %d of a file", simReads, simLimit))
	cmd.RunE = func(*cobra.Command, []string) error {
		if limit > simLimit && trace == "" {
			return usageError{fmt.Errorf("--limit is at most %d where no --trace is given", simLimit)}
		}
		if limit < 0 || (trace == "") != (format == "") {
			return usageError{fmt.Errorf("--trace and --format go together, and --limit is a positive number")}
		}
		traces, err := simTraces(trace, format, limit)
		if err != nil {
			return err
		}
		return a.simulate(traces, svg)
	}
	return cmd
}

func simTraces(path, format string, limit int) ([]*cachesim.Trace, error) {
	if path == "" {
		if limit == 0 {
			limit = simReads
		}
		return cachesim.Generated(limit), nil
	}
	if limit == 0 {
		limit = simLimit
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, errs.Wrap(errs.IO, err, "cannot open the trace")
	}
	defer f.Close()
	t, err := cachesim.ReadCSV(filepath.Base(path), f, cachesim.Format(format), limit)
	return []*cachesim.Trace{t}, err
}

// simulate prints each trace when it is done.
func (a *app) simulate(traces []*cachesim.Trace, svg string) error {
	var all []*cachesim.Result
	for _, t := range traces {
		r, err := cachesim.Run(t)
		if err != nil {
			return err
		}
		all = append(all, r)
		if svg != "" {
			if _, err := r.WriteSVG(svg); err != nil {
				return err
			}
		}
		if !a.asJSON {
			if err := r.Print(a.stdout); err != nil {
				return errs.Wrap(errs.IO, err, "cannot print")
			}
		}
	}
	if !a.asJSON {
		return nil
	}
	b, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return errs.Wrap(errs.IO, err, "cannot write JSON")
	}
	_, err = fmt.Fprintf(a.stdout, "%s\n", b)
	return err
}
