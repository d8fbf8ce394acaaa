package pagemap

import (
	"fmt"
	"strings"

	"vstor/dataplane/layout"
)

// Dump prints a record of the database for people. Errors: Corrupt, Version.
func Dump(b []byte) (string, error) {
	f, err := parseFrame(b)
	if err != nil {
		return "", err
	}
	var w strings.Builder
	fmt.Fprintf(&w, "%s of map %d, number %d, %d bytes\n", magicName(f.magic), f.id, f.number, len(b))
	switch f.magic {
	case magicCheckpoint:
		c, err := f.checkpoint()
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&w, "commit %d, sequence %d, %d blocks\n", c.Commit, c.Seq, c.Size)
	case magicSCO:
		s, err := f.sco()
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&w, "commit %d, %d blocks, sequences %d to %d\n", s.Commit, s.Blocks, s.First, s.Last)
	case magicCounts:
		var c [groupSCOs]uint32
		if err := f.counts(&c); err != nil {
			return "", err
		}
		for i, n := range c {
			if n != 0 {
				fmt.Fprintf(&w, "SCO %d: %d blocks\n", f.number*groupSCOs+uint64(i), n)
			}
		}
	case magicPage:
		var p Page
		if err := f.page(&p); err != nil {
			return "", err
		}
		p.dump(&w)
	}
	return w.String(), nil
}

// dump prints runs of holes in one line, locations one by one.
func (p *Page) dump(w *strings.Builder) {
	fmt.Fprintf(w, "commit %d\n", p.Commit)
	kinds := [...]string{layout.OffUnmapped: "unmapped", layout.OffZero: "zero", layout.OffTrimmed: "trimmed"}
	first := uint64(p.No) * PageBlocks
	for i := 0; i < PageBlocks; {
		l := p.Locs[i]
		if !l.Hole() {
			fmt.Fprintf(w, "block %d: namespace %d SCO %d offset %d sum %08x\n",
				first+uint64(i), l.NS, l.SCO, l.Off, l.Sum)
			i++
			continue
		}
		to := i
		for to < PageBlocks && p.Locs[to] == l {
			to++
		}
		fmt.Fprintf(w, "blocks %d to %d: %s\n", first+uint64(i), first+uint64(to)-1, kinds[l.Off])
		i = to
	}
}
