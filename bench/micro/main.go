// Command micro sets how fast vstor codes and sums on one core beside ISA-L and memcpy, in one table; `make
// bench-codec` builds it and isal/isal.c and runs both in turns.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	isal := flag.String("isal", "", "the program made of isal/isal.c; empty: only ours")
	rounds := flag.Int("rounds", 3, "rounds to take medians of")
	each := flag.Duration("time", 100*time.Millisecond, "length of one measurement")
	flag.Parse()
	if err := run(os.Stdout, *isal, *rounds, *each); err != nil {
		fmt.Fprintln(os.Stderr, "micro:", err)
		os.Exit(1)
	}
}

func run(out io.Writer, isal string, rounds int, each time.Duration) error {
	var us, them [][]figure
	for range rounds {
		mine, err := ours(each)
		if err != nil {
			return err
		}
		us = append(us, mine)
		if isal == "" {
			continue
		}
		text, err := exec.Command(isal, strconv.FormatFloat(each.Seconds(), 'f', 3, 64)).Output()
		if err != nil {
			return fmt.Errorf("cannot run %s: %w", isal, err)
		}
		theirs, err := parse(string(text))
		if err != nil {
			return err
		}
		them = append(them, theirs)
	}
	return table(out, medians(us), medians(them))
}

// parse reads a line for each figure: name, tab, number.
func parse(text string) (out []figure, err error) {
	for line := range strings.Lines(text) {
		name, number, ok := strings.Cut(strings.TrimSpace(line), "\t")
		gb, err := strconv.ParseFloat(number, 64)
		if !ok || err != nil {
			return nil, fmt.Errorf("%q is no figure: a name, a tab and a number would be", line)
		}
		out = append(out, figure{name, gb})
	}
	return out, nil
}

// medians are of rounds of the same figures.
func medians(rounds [][]figure) []figure {
	if len(rounds) == 0 {
		return nil
	}
	out := slices.Clone(rounds[0])
	for i := range out {
		var all []float64
		for _, r := range rounds {
			all = append(all, r[i].gb)
		}
		slices.Sort(all)
		out[i].gb = all[len(all)/2]
	}
	return out
}

// table prints a line for each of ours; the ratio is to ISA-L, of copies to memcpy.
func table(out io.Writer, us, them []figure) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "GB/s on one core\tvstor\tISA-L, memcpy\tratio\t")
	for _, f := range us {
		theirs, ratio := "-", "-"
		if i := slices.IndexFunc(them, func(g figure) bool { return g.name == f.name }); i >= 0 {
			theirs, ratio = fmt.Sprintf("%.2f", them[i].gb), fmt.Sprintf("%.2f", f.gb/them[i].gb)
		}
		fmt.Fprintf(w, "%s\t%.2f\t%s\t%s\t\n", f.name, f.gb, theirs, ratio)
	}
	fmt.Fprintln(w, "\nEncodings count data, rebuildings what they give. Checksums: XXH64 here, CRC-32C there.")
	return w.Flush()
}
