package fragcache

import (
	"fmt"
	"io"

	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
)

// Dump prints a cache's file: its superblock, then of each segment what an Open would find there. It only reads.
func Dump(w io.Writer, f dio.File) error {
	block, err := dio.AlignedBuf(blockSize)
	if err != nil {
		return err
	}
	defer dio.FreeBuf(block)
	sb, err := readSuper(f, block)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "fragment cache %x of deployment %x, incarnation %d: %d segments of %d bytes\n", sb.UUID, sb.Deployment,
		sb.Incarnation, sb.Segments, sb.Segment)
	c := &Cache{file: f, sb: sb}
	for i := range sb.Segments {
		s := c.scanSegment(i, block)
		if s.generation == 0 {
			continue
		}
		if _, err := fmt.Fprintf(w, "segment %d, generation %x, %d bytes, %d fragments\n", i, s.generation, s.end,
			len(s.list)); err != nil {
			return errs.Wrap(errs.IO, err, "cannot print")
		}
		for _, e := range s.list {
			fmt.Fprintf(w, "  block %-8d fragment %v, %d bytes, sequence %x\n", e.Block, e.Key, e.Len, e.Seq)
		}
	}
	return nil
}
