package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"vstor/bench"
)

func (a *app) benchReportCommand() *cobra.Command {
	var html, markdown string
	var lines bool
	cmd := &cobra.Command{
		Use:   "report RUN.json",
		Short: "show a stored run: as a table, a page, a summary or for benchstat",
		Long: "Show a run that `vstor bench --out RUN.json` stored: as a table unless something else is asked for. The\n" +
			"page needs nothing beside itself. In the summary, what stands below its marker line is kept. Lines for\n" +
			"benchstat are printed, one for each job, target and round: `benchstat -col /target FILE` sets targets side\n" +
			"by side.",
		Args: takes("RUN.json"),
	}
	f := cmd.Flags()
	f.StringVar(&html, "html", "", "file for a page with plots")
	f.StringVar(&markdown, "markdown", "", "file for a summary, as BENCHMARKS.md")
	f.BoolVar(&lines, "benchstat", false, "print lines that benchstat reads")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if lines && a.asJSON {
			return usageError{fmt.Errorf("--benchstat and --json are two ways to print the same: give one of them")}
		}
		r, err := bench.Load(args[0])
		if err != nil {
			return err
		}
		if err := r.Write(html, markdown); err != nil {
			return err
		}
		switch {
		case lines:
			return r.Benchstat(a.stdout)
		case a.asJSON:
			return a.print(r, nil)
		case html+markdown == "":
			return r.Print(a.stdout)
		}
		return nil
	}
	return cmd
}

func (a *app) benchCompareCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "compare A.json B.json",
		Short: "set a stored run against an earlier one",
		Long: "Set run B against run A, job by job and target by target: medians, the change in percent, and whether it\n" +
			"is more than the rounds of a run lie apart anyway.",
		Args: takes("A.json", "B.json"),
		RunE: func(_ *cobra.Command, args []string) error {
			first, err := bench.Load(args[0])
			if err != nil {
				return err
			}
			second, err := bench.Load(args[1])
			if err != nil {
				return err
			}
			c, err := bench.Compare(first, second)
			if err != nil {
				return err
			}
			if a.asJSON {
				return a.print(c, nil)
			}
			return c.Print(a.stdout)
		},
	}
}
