package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"

	"vstor/asd/proto"
	"vstor/asd/store"
	"vstor/blockcache/ssd"
	"vstor/dataplane/dio"
	edge "vstor/dataplane/edge/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
	"vstor/dataplane/proxy"
	"vstor/dataplane/volume/journal"
	"vstor/dataplane/volume/pagemap"
	"vstor/dataplane/volume/sco"
	"vstor/dataplane/wire"
	"vstor/fragcache"
)

// format is one type of thing that can be printed.
type format struct {
	name, help string
	dump       func(source, io.Writer) error
}

// maxRead bounds what is read of a file for one thing: the largest SCO.
const maxRead = 256 << 20

// formats lists all, the one that fits anything last.
func formats() []format {
	return []format{
		{"journal", "a whole journal: both roots, every record", dumpJournal},
		{"root", "one copy of a journal's root", decoded(journal.DecodeRoot)},
		{"record", "the header of a journal record", decoded(journal.DecodeHeader)},
		{"map", "a record of the map's database: page, delta, checkpoint...", dumpMap},
		{"sco", "a SCO: header and index", dumpSCO},
		{"manifest", "a manifest", decoded(layout.ParseManifest)},
		{"descriptor", "what a fragment says of its object", decoded(layout.ParseDescriptor)},
		{"location", "a location, 12 bytes", dumpLocation},
		{"key", "a fragment's key, 20 bytes", dumpKey},
		{"cell", "a cell of the proxy's metadata", dumpCell},
		{"superblock", "one copy of an ASD's superblock", decoded(store.DecodeSuperblock)},
		{"fragment", "a fragment's header", dumpFragment},
		{"frames", "what one side of a connection to an ASD sent: its frames", frames(proto.Print)},
		{"edge-frames", "what one side of a connection between an edge and a router sent", frames(printEdge)},
		{"cachesuper", "the superblock of a block cache's file", decoded(ssd.DecodeSuperblock)},
		{"cache", "a block cache's file: superblock, and every block that is named in it", dumpCache},
		{"asd", "an ASD's data file: superblocks, and every fragment header on it", dumpASD},
		{"fragcache", "a fragment cache: its superblock, and what lies in each segment", dumpFragcache},
		{"cached", "the header of a fragment in the cache", dumpCached},
		{"hex", "anything, in hex", dumpHex},
	}
}

func formatNamed(name string) *format {
	all := formats()
	for i := range all {
		if all[i].name == name {
			return &all[i]
		}
	}
	return nil
}

// source is where the bytes come from.
type source struct {
	path  string
	off   int64
	stdin io.Reader
}

// read reads at most n bytes.
func (s source) read(n int64) ([]byte, error) {
	r := s.stdin
	if s.path != "-" {
		f, err := os.Open(s.path)
		if err != nil {
			return nil, errs.Wrap(errs.IO, err, "cannot open the file")
		}
		defer f.Close()
		r = f
	}
	if _, err := io.CopyN(io.Discard, r, s.off); err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "%s ends before offset %d", s.path, s.off)
	}
	b, err := io.ReadAll(io.LimitReader(r, n))
	if err != nil {
		return nil, errs.Wrap(errs.IO, err, "cannot read %s", s.path)
	}
	return b, nil
}

// decoded makes a dump of a decoder.
func decoded[T any](decode func([]byte) (T, error)) func(source, io.Writer) error {
	return func(s source, w io.Writer) error {
		b, err := s.read(maxRead)
		if err != nil {
			return err
		}
		v, err := decode(b)
		if err != nil {
			return err
		}
		printFields(w, v)
		return nil
	}
}

// printFields prints a struct, a field a line; UUIDs in hex.
func printFields(w io.Writer, v any) {
	r := reflect.Indirect(reflect.ValueOf(v))
	if r.Kind() != reflect.Struct {
		fmt.Fprintf(w, "%+v\n", v)
		return
	}
	for i := range r.NumField() {
		if !r.Type().Field(i).IsExported() {
			continue
		}
		f := r.Field(i)
		if f.Kind() == reflect.Array && f.Type().Elem().Kind() == reflect.Uint8 {
			fmt.Fprintf(w, "%-14s %x\n", r.Type().Field(i).Name, f.Interface())
			continue
		}
		fmt.Fprintf(w, "%-14s %+v\n", r.Type().Field(i).Name, f.Interface())
	}
}

func printEdge(h *wire.Header, body, _ []byte) string { return edge.Print(h, body) }

// frames makes a dump of what prints one.
func frames(printed func(h *wire.Header, body, data []byte) string) func(source, io.Writer) error {
	return func(s source, w io.Writer) error { return dumpFrames(s, w, printed) }
}

// dumpFrames prints frames one behind the other, up to the first that is none or that is cut off.
func dumpFrames(s source, w io.Writer, printed func(h *wire.Header, body, data []byte) string) error {
	b, err := s.read(maxRead)
	if err != nil {
		return err
	}
	for at := 0; at < len(b); {
		var h wire.Header
		if len(b)-at < wire.HeaderSize {
			return errs.New(errs.Corrupt, "a frame at byte %d is cut off after %d bytes", at, len(b)-at)
		}
		if err := h.Decode(b[at:]); err != nil {
			return err
		}
		body, end := at+wire.HeaderSize, at+wire.HeaderSize+int(h.Body)+int(h.Data)
		if end > len(b) {
			return errs.New(errs.Corrupt, "a frame at byte %d is cut off: it has %d bytes, %d are here", at, end-at, len(b)-at)
		}
		if err := h.Verify(b[at:end]); err != nil {
			return err
		}
		fmt.Fprintln(w, printed(&h, b[body:body+int(h.Body)], b[body+int(h.Body):end]))
		at = end
	}
	if len(b) == 0 {
		return errs.New(errs.Corrupt, "there is no frame")
	}
	return nil
}

func dumpHex(s source, w io.Writer) error {
	b, err := s.read(maxRead)
	if err != nil {
		return err
	}
	d := hex.Dumper(w)
	defer d.Close()
	_, err = d.Write(b)
	return err
}

func dumpJournal(s source, w io.Writer) error {
	f, err := dio.Open(s.path, dio.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer f.Close()
	return journal.Dump(w, f)
}

func dumpFragcache(s source, w io.Writer) error {
	f, err := dio.Open(s.path, dio.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer f.Close()
	return fragcache.Dump(w, f)
}

func dumpCached(s source, w io.Writer) error {
	b, err := s.read(layout.FragHeaderSize)
	if err != nil {
		return err
	}
	var h fragcache.Header
	if err := h.Decode(b); err != nil {
		return err
	}
	printFields(w, h)
	return nil
}

func dumpMap(s source, w io.Writer) error {
	b, err := s.read(maxRead)
	if err != nil {
		return err
	}
	text, err := pagemap.Dump(b)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, text)
	return err
}

func dumpCell(s source, w io.Writer) error {
	b, err := s.read(maxRead)
	if err != nil {
		return err
	}
	kind, value, err := proxy.DumpCell(b)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "cell %q: %d\n", kind, value)
	return err
}

func dumpLocation(s source, w io.Writer) error {
	b, err := s.read(layout.LocationSize)
	if err != nil {
		return err
	}
	if len(b) < layout.LocationSize {
		return errs.New(errs.Corrupt, "a location has %d bytes, here are %d", layout.LocationSize, len(b))
	}
	printFields(w, layout.ParseLocation(b))
	return nil
}

func dumpKey(s source, w io.Writer) error {
	b, err := s.read(layout.FragKeySize)
	if err != nil {
		return err
	}
	k, ok := layout.ParseFragKey(b)
	if !ok {
		return errs.New(errs.Corrupt, "a fragment's key has %d bytes, here are %d", layout.FragKeySize, len(b))
	}
	printFields(w, k)
	return nil
}

func dumpSCO(s source, w io.Writer) error {
	b, err := s.read(maxRead)
	if err != nil {
		return err
	}
	h, err := sco.ParseHeader(b)
	if err != nil {
		return err
	}
	printFields(w, h)
	const head = 4096
	if len(b) < head+h.IndexLen() {
		return errs.New(errs.Corrupt, "the index has %d bytes, here are %d", h.IndexLen(), len(b)-head)
	}
	return h.ParseIndex(b[head:head+h.IndexLen()],
		func(off uint16, e sco.Entry) { fmt.Fprintf(w, "block %-8d %+v\n", off, e) },
		func(o sco.Hole) { fmt.Fprintf(w, "hole %+v\n", o) })
}

func decodeFragment(b []byte) (*store.Header, error) {
	var h store.Header
	return &h, h.Decode(b)
}

// dumpFragment prints a header, and the descriptor in it as what it says.
func dumpFragment(s source, w io.Writer) error {
	b, err := s.read(layout.FragHeaderSize)
	if err != nil {
		return err
	}
	h, err := decodeFragment(b)
	if err != nil {
		return err
	}
	desc := h.Desc
	h.Desc = nil
	printFields(w, h)
	d, err := layout.ParseDescriptor(desc)
	if err != nil {
		_, err = fmt.Fprintf(w, "no descriptor: %v\n", err)
		return err
	}
	fmt.Fprintln(w, "its object:")
	printFields(w, d.Object)
	printFields(w, d)
	return nil
}

func dumpCache(s source, w io.Writer) error {
	f, err := os.Open(s.path)
	if err != nil {
		return errs.Wrap(errs.IO, err, "cannot open the file")
	}
	defer f.Close()
	return ssd.Dump(w, f)
}

// dumpASD looks at every block, as a rebuild of the index does: it also finds what the index forgot.
func dumpASD(s source, w io.Writer) error {
	f, err := os.Open(s.path)
	if err != nil {
		return errs.Wrap(errs.IO, err, "cannot open the file")
	}
	defer f.Close()
	block := make([]byte, 4096)
	for off := s.off; ; off += int64(len(block)) {
		_, err := f.ReadAt(block, off)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return errs.Wrap(errs.IO, err, "cannot read %s at %d", s.path, off)
		}
		if sb, err := store.DecodeSuperblock(block); err == nil {
			fmt.Fprintf(w, "%12d superblock\n", off)
			printFields(w, sb)
			continue
		}
		h, err := decodeFragment(block)
		switch errs.Of(err) {
		case errs.OK:
			fmt.Fprintf(w, "%12d fragment %v, %d bytes, epoch %d, dead %v\n", off, h.Key, h.Len, h.Epoch, h.Dead)
		case errs.Absent:
		default:
			fmt.Fprintf(w, "%12d %v\n", off, err)
		}
	}
}
