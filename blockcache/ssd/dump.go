package ssd

import (
	"fmt"
	"io"

	"vstor/dataplane/errs"
)

// Dump prints a cache file, for people: its superblock, and each header page with its records. Pages that are
// none are left out, damaged ones are named.
func Dump(w io.Writer, f io.ReaderAt) error {
	b := make([]byte, pageSize)
	if _, err := f.ReadAt(b, 0); err != nil {
		return errs.Wrap(errs.IO, err, "blockcache: cannot read the superblock")
	}
	sb, err := DecodeSuperblock(b)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "cache file of %d bytes, deployment %x, incarnation %016x: %d regions of %d bytes, "+
		"blocks of %d bytes\n", sb.Size, sb.UUID, sb.Incarnation, sb.Regions, sb.RegionBytes, sb.BlockBytes)
	o := Options{BlockBytes: int(sb.BlockBytes), RegionBytes: int(sb.RegionBytes)}
	if err := o.validate(sb.Size); err != nil {
		return err
	}
	s := o.shape(sb.Size)
	var h Header
	for r := range s.regions {
		for page := range s.headers {
			if _, err := f.ReadAt(b, s.offset(r)+int64(page)*pageSize); err != nil {
				return errs.Wrap(errs.IO, err, "blockcache: cannot read the headers of region %d", r)
			}
			err := h.Decode(b)
			if errs.Of(err) == errs.Absent {
				continue
			}
			if err != nil {
				fmt.Fprintf(w, "region %d page %d: %v\n", r, page, err)
				continue
			}
			printHeader(w, r, page, &sb, &h)
		}
	}
	return nil
}

func printHeader(w io.Writer, r, page int, sb *Superblock, h *Header) {
	note := ""
	if h.Incarnation != sb.Incarnation {
		note = ", of an earlier life of the file"
	}
	if int(h.Region) != r || int(h.Page) != page {
		note += fmt.Sprintf(", written for region %d page %d", h.Region, h.Page)
	}
	fmt.Fprintf(w, "region %d page %d: sequence %d, %d blocks%s\n", r, page, h.Sequence, h.Count, note)
	for i, rec := range h.Records[:h.Count] {
		fmt.Fprintf(w, "  %4d  %d/%d block %d, owner %d, checksum %08x\n", i, rec.NS, rec.SCO, rec.Off, rec.Owner, rec.Sum)
	}
}
