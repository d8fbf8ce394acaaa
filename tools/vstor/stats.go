package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"vstor/dataplane/api"
	"vstor/dataplane/units"
)

func (a *app) vdiskStats() *cobra.Command {
	var watch bool
	var every time.Duration
	var rounds int
	cmd := &cobra.Command{Use: "stats NAME", Short: "where a vDisk's reads come from, and how long its requests take",
		Args: takes("NAME"),
		Long: "Show, since the vDisk was opened, how many reads each rung of the read ladder ended, the bytes it gave,\n" +
			"and the latencies of reads, writes and flushes. A read counts at the last rung that it needed. With\n" +
			"--watch, show what came in each interval, until Ctrl-C."}
	cmd.Flags().BoolVar(&watch, "watch", false, "go on, showing each interval")
	cmd.Flags().DurationVar(&every, "interval", time.Second, "of --watch; at least 100ms")
	cmd.Flags().IntVar(&rounds, "count", 0, "of intervals to watch; 0: until Ctrl-C")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if every < 100*time.Millisecond || rounds < 0 {
			return usageError{fmt.Errorf("--interval is at least 100ms, and --count at least 0")}
		}
		if !watch && (cmd.Flags().Changed("interval") || cmd.Flags().Changed("count")) {
			return usageError{fmt.Errorf("--interval and --count go with --watch")}
		}
		if watch {
			return a.watchStats(args[0], every, rounds)
		}
		s, err := a.statsOf(args[0])
		if err != nil {
			return err
		}
		return a.print(s, func(t *table) { statsTable(t, s, 0) })
	}
	return cmd
}

func (a *app) statsOf(name string) (s api.VDiskStats, err error) {
	err = a.call(func(ctx context.Context, c *api.Client) (err error) {
		s, err = c.VDiskStats(ctx, name)
		return err
	})
	return s, err
}

// watchStats prints one table, or one JSON value, an interval.
func (a *app) watchStats(name string, every time.Duration, rounds int) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	last, err := a.statsOf(name)
	if err != nil {
		return err
	}
	at := time.Now()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := 0; rounds == 0 || n < rounds; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		s, err := a.statsOf(name)
		if err != nil {
			return err
		}
		now := time.Now()
		d := s.Since(last)
		if err := a.print(d, func(t *table) { statsTable(t, d, now.Sub(at)) }); err != nil {
			return err
		}
		last, at = s, now
	}
	return nil
}

// statsTable shows totals, or rates where it is told of how long a time.
func statsTable(t *table, s api.VDiskStats, took time.Duration) {
	count, bytes := "REQUESTS", "BYTES"
	if took > 0 {
		count, bytes = "PER S", "BYTES/S"
	}
	t.row("FROM", count, bytes, "P50", "P99", "P99.9", "MAX")
	line := func(name string, l api.Latency, n uint64) {
		if l.Count == 0 && n == 0 {
			return
		}
		c, b := float64(l.Count), float64(n)
		if took > 0 {
			c, b = c/took.Seconds(), b/took.Seconds()
		}
		t.row(name, fmt.Sprintf("%.0f", c), units.HumanSize(int64(b)), micros(l.P50), micros(l.P99), micros(l.P999),
			micros(l.Max))
	}
	for _, r := range s.Reads {
		line("read "+r.Rung, r.Latency, r.Bytes)
	}
	line("write", s.Writes, s.WriteBytes)
	line("flush", s.Flushes, 0)
	if s.Errors > 0 {
		t.row("errors", s.Errors)
	}
}

// micros prints a latency given in seconds.
func micros(s float64) string { return fmt.Sprintf("%.0f us", s*1e6) }
