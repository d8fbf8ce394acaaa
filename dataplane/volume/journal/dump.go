package journal

import (
	"fmt"
	"io"

	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
)

// Dump prints both roots and every record header of the journal in f, in the order of the file, with its
// entries: also what replay would not accept any more. It verifies headers, not payload. Blocking.
func Dump(out io.Writer, f dio.File) error {
	w, err := newWindow(f, windowSize)
	if err != nil {
		return err
	}
	defer w.close()
	var root Root
	found := errs.New(errs.Corrupt, "journal: neither copy of the root is readable")
	for i, off := range rootPlaces {
		b, err := w.blocks(uint32(off/BlockSize), 1, uint32(off/BlockSize)+1)
		if err != nil {
			return err
		}
		r, err := DecodeRoot(b)
		if err != nil {
			fmt.Fprintf(out, "%c: %v\n", 'A'+i, err)
			continue
		}
		fmt.Fprintf(out, "%c: %v\n", 'A'+i, r)
		if found != nil || r.Sequence > root.Sequence {
			root, found = r, nil
		}
	}
	if found != nil {
		return found
	}
	perSegment := root.SegmentSize / BlockSize
	for seg := range root.Segments {
		first := uint32(DataStart/BlockSize) + seg*perSegment
		for pos := first; pos < first+perSegment; pos++ {
			b, err := w.blocks(pos, 1, first+perSegment)
			if err != nil {
				return err
			}
			if isHeader(b) {
				dumpRecord(out, b, seg, pos)
			}
		}
	}
	return nil
}

func dumpRecord(out io.Writer, b []byte, seg, pos uint32) {
	h, err := DecodeHeader(b)
	if err != nil {
		fmt.Fprintf(out, "segment %d block %d: %v\n", seg, pos, err)
		return
	}
	fmt.Fprintf(out, "segment %d block %d: record %d incarnation %d lap %d, %d entries, %d blocks, "+
		"tail %d in %d, durable %d, complete %d\n", seg, pos, h.Number, h.Incarnation, h.Lap, h.Entries, h.Blocks,
		h.TailRecord, h.TailSegment, h.Durable, h.Complete)
	var e EntryHeader
	for w := h.Walk(b); w.Next(&e); {
		fmt.Fprintf(out, "  %s volume %d seq %d at %d+%d", e.Kind, e.Vol, e.Seq, e.Addr, e.Blocks)
		if e.Copied {
			fmt.Fprint(out, " copied")
		}
		if e.Lost {
			fmt.Fprint(out, " lost")
		}
		for i := range e.Payload() {
			fmt.Fprintf(out, " %08x", e.Sum(i))
		}
		fmt.Fprintln(out)
	}
}
