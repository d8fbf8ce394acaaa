// Command dump prints what vstor keeps on disk, for people: `dump KIND PATH [OFFSET]`. It only reads. Databases
// (meta, map, the ASDs' indexes) and journals must not be in use.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"vstor/asd/store"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/meta"
	"vstor/dataplane/proxy"
	"vstor/dataplane/volume/journal"
	"vstor/dataplane/volume/pagemap"
	"vstor/dataplane/volume/sco"
)

// kind is one format: what it prints, from where.
type kind struct {
	help string
	dump func(out io.Writer, path string, off int64) error
}

var kinds = map[string]kind{
	"superblock": {"DIR/asd-N/data: both superblocks of an ASD", dumpSuperblocks},
	"fragment":   {"DIR/asd-N/data OFFSET: the header of the fragment at that byte", dumpFragment},
	"journal":    {"DIR/router/journal-N: roots and records", dumpJournal},
	"sco":        {"FILE [OFFSET]: header and index of a SCO", dumpSCO},
	"meta":       {"DIR/meta: vDisks, manifests, owners", dumpMeta},
	"map":        {"DIR/router/map: checkpoints, SCOs, counts and pages", dumpMap},
}

func main() {
	if err := run(os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "dump:", err)
		if errs.Of(err) == errs.Invalid {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

func run(out io.Writer, args []string) error {
	if len(args) < 2 || len(args) > 3 || kinds[args[0]].dump == nil {
		return errs.New(errs.Invalid, "%s", usage())
	}
	off := int64(0)
	if len(args) == 3 {
		var err error
		if off, err = strconv.ParseInt(args[2], 0, 64); err != nil || off < 0 {
			return errs.New(errs.Invalid, "%q is no offset: give bytes, like 2097152 or 0x200000", args[2])
		}
	}
	return kinds[args[0]].dump(out, args[1], off)
}

func usage() string {
	var names []string
	for n := range kinds {
		names = append(names, n)
	}
	slices.Sort(names)
	var b strings.Builder
	b.WriteString("usage: dump KIND PATH [OFFSET]\n")
	for _, n := range names {
		fmt.Fprintf(&b, "  %-11s %s\n", n, kinds[n].help)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// readAt reads n bytes of a file, fewer at its end.
func readAt(path string, off int64, n int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, errs.Wrap(errs.IO, err, "cannot read it")
	}
	defer f.Close()
	b := make([]byte, n)
	n, err = f.ReadAt(b, off)
	if err != nil && err != io.EOF {
		return nil, errs.Wrap(errs.IO, err, "cannot read it")
	}
	return b[:n], nil
}

func dumpSuperblocks(out io.Writer, path string, _ int64) error {
	for _, off := range []int64{0, 1 << 20} {
		b, err := readAt(path, off, ids.BlockSize)
		if err != nil {
			return err
		}
		s, err := store.DecodeSuperblock(b)
		if err != nil {
			fmt.Fprintf(out, "at %d: %v\n", off, err)
			continue
		}
		fmt.Fprintf(out, "at %d: %+v\n", off, s)
	}
	return nil
}

func dumpFragment(out io.Writer, path string, off int64) error {
	b, err := readAt(path, off, ids.BlockSize)
	if err != nil {
		return err
	}
	var h store.Header
	if err := h.Decode(b); err != nil {
		return err
	}
	fmt.Fprintln(out, h.String())
	return nil
}

func dumpJournal(out io.Writer, path string, _ int64) error {
	f, err := dio.Open(path, dio.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer f.Close()
	return journal.Dump(out, f)
}

func dumpSCO(out io.Writer, path string, off int64) error {
	b, err := readAt(path, off, ids.BlockSize)
	if err != nil {
		return err
	}
	h, err := sco.ParseHeader(b)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%+v\n", h)
	index, err := readAt(path, off+ids.BlockSize, h.IndexLen())
	if err != nil {
		return err
	}
	return h.ParseIndex(index, func(off uint16, e sco.Entry) {
		fmt.Fprintf(out, "  block %d at %d: sequence %d, checksum %08x", e.Addr, off, e.Seq, e.Sum)
		if h.Kind == sco.Cleaning {
			fmt.Fprintf(out, ", from SCO %d at %d", e.Old.SCO, e.Old.Off)
		}
		fmt.Fprintln(out)
	}, func(x sco.Hole) { fmt.Fprintf(out, "  hole %+v\n", x) })
}

func dumpMeta(out io.Writer, path string, _ int64) error {
	s, err := meta.OpenPebble(meta.PebbleOptions{Dir: path, ReadOnly: true})
	if err != nil {
		return err
	}
	defer s.Close()
	var after []byte
	for {
		list, err := s.Scan(context.Background(), nil, after, 1000)
		if err != nil || len(list) == 0 {
			return err
		}
		for _, e := range list {
			fmt.Fprintf(out, "%q version %d: %s\n", e.Key, e.Version, value(e.Value))
			after = e.Key
		}
	}
}

// value prints a value of the metadata store, whatever it is.
func value(b []byte) string {
	if m, err := layout.ParseManifest(b); err == nil {
		return fmt.Sprintf("manifest %+v", *m)
	}
	if k, v, err := proxy.DumpCell(b); err == nil {
		return fmt.Sprintf("cell %q = %d", k, v)
	}
	return fmt.Sprintf("%q", b)
}

func dumpMap(out io.Writer, path string, _ int64) error {
	db, err := pebble.Open(path, &pebble.Options{ReadOnly: true, ErrorIfNotExists: true})
	if err != nil {
		return errs.Wrap(errs.IO, err, "the map cannot be opened")
	}
	defer db.Close()
	it, err := db.NewIter(nil)
	if err != nil {
		return errs.Wrap(errs.IO, err, "the map cannot be read")
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		s, err := pagemap.Dump(it.Value())
		if err != nil {
			s = err.Error() + "\n"
		}
		fmt.Fprint(out, s)
	}
	return it.Error()
}
