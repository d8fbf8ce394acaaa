package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// report says what a failure of the model test is looked into with: what was done to the machine, what its drives
// say, and each object that is not whole or that has fragments on drives that are not there. It asks nothing
// of a loop, as a loop may be what fails.
func (m *model) report() string {
	var out strings.Builder
	fmt.Fprintf(&out, "weak drives: %v, pulled: %v, power may be cut: %v\n", m.weak, m.pulled(), m.power)
	if m.n == nil || m.n.proxy == nil {
		return out.String()
	}
	down := map[ids.ASDID]bool{}
	for _, d := range m.n.drives {
		s, err := d.stat()
		down[d.id] = d.store == nil
		fmt.Fprintf(&out, "ASD %d: %d fragments, %d bytes free, %v\n", d.id, s.Fragments, s.Free-s.Reserve, err)
	}
	fmt.Fprintf(&out, "proxy: %+v\n", m.n.proxy.Counters())
	for _, r := range m.n.rigs {
		s := r.client.Stats()
		fmt.Fprintf(&out, "reads: %d failed, %d rebuilds failed, %d lookups, %d refreshes, %d times an ASD was down\n",
			s.Failed.Load(), s.RebuildFailed.Load(), s.Lookups.Load(), s.Refreshes.Load(), s.Unreachable.Load())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	spaces, err := m.n.proxy.Namespaces(ctx)
	for _, ns := range spaces {
		list, lerr := m.n.proxy.Manifests(ctx, ns, 0, 1000)
		if err == nil {
			err = lerr
		}
		for _, o := range list {
			out.WriteString(objectReport(o, down))
		}
	}
	if err != nil {
		fmt.Fprintf(&out, "manifests: %v\n", err)
	}
	return out.String()
}

// objectReport is a line for each chunk that lacks something: by fragment its ASD, and if it was not written (-) or
// its ASD is not there (!).
func objectReport(o *layout.Manifest, down map[ids.ASDID]bool) string {
	var out strings.Builder
	n := o.Policy.N()
	for c := range o.Geometry().Chunks {
		left, line := n, ""
		for f := range n {
			t, where := o.Target(c, f), "none"
			if t.Kind == layout.TargetASD {
				where = fmt.Sprint(t.ASD)
			}
			switch {
			case !o.Present(c, f):
				where += "-"
				left--
			case down[t.ASD]:
				where += "!"
				left--
			}
			line += " " + where
		}
		verdict := ""
		if left < int(o.Policy.K) {
			verdict = ": cannot be read"
		}
		if left < n {
			fmt.Fprintf(&out, "SCO %d, put %d, version %d, chunk %d of %v:%s%s\n", o.SCO, o.Put, o.Version, c, o.Policy,
				line, verdict)
		}
	}
	return out.String()
}

// pulled are the files of drives that were pulled.
func (m *model) pulled() []string {
	var out []string
	for path := range m.host.hidden {
		out = append(out, path)
	}
	slices.Sort(out)
	return out
}
