package cachesim

import (
	"fmt"
	"io"
	"text/tabwriter"

	"vstor/dataplane/units"
)

// Print writes a result as a table: hit ratios in percent, a line for each policy and block size.
func (r *Result) Print(out io.Writer) error {
	fmt.Fprintf(out, "%s: %d reads of %s, %s of them different; hit ratio in %% by size of the cache\n", r.Trace, r.Reads,
		units.FormatSize(r.BytesRead), units.FormatSize(r.UniqueBytes))
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "block\tpolicy\t")
	for i := range Fractions {
		fmt.Fprintf(w, "%s\t", mib(r.Cells[i].CacheBytes))
	}
	fmt.Fprintln(w, "read/missing\t")
	for _, g := range Granules {
		for _, p := range Policies {
			fmt.Fprintf(w, "%s\t%s\t", granule(g), p)
			amplified := 0.0
			for _, c := range r.line(p, g) {
				fmt.Fprintf(w, "%.1f\t", 100*c.HitRatio)
				amplified = max(amplified, c.Amplified)
			}
			fmt.Fprintf(w, "%.0f\t\n", amplified)
		}
	}
	fmt.Fprintln(w)
	return w.Flush()
}

// line is a policy at a block size over all cache sizes.
func (r *Result) line(policy string, block int64) (out []Cell) {
	for _, c := range r.Cells {
		if c.Policy == policy && c.BlockBytes == block {
			out = append(out, c)
		}
	}
	return out
}

func mib(n int64) string { return fmt.Sprintf("%d MiB", (n+1<<19)>>20) }

func granule(n int64) string {
	if n == fragment {
		return "fragment"
	}
	return fmt.Sprintf("%d KiB", n>>10)
}
