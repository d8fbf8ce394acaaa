package journal

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"os"
	"testing"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/errs"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

func fixRootSum(b []byte) { binary.LittleEndian.PutUint64(b[8:], xxhash.Sum64(b[16:rootLength])) }

func sampleRoot() Root {
	r := Root{Clean: true, Sequence: 3, Incarnation: 4, First: 5, TailRecord: 6, TailSegment: 7, TailLap: 8, Durable: 9,
		FileSize: DataStart + 32*32<<20, SegmentSize: 32 << 20, Segments: 32, Chain: 0x0102030405060708}
	for i := range 16 {
		r.UUID[i], r.BootID[i] = byte(i), byte(0xf0+i)
	}
	return r
}

func sampleHeader() (Header, []byte) {
	b := bytes.Repeat([]byte{0xee}, BlockSize)
	h := Header{Incarnation: 2, Number: 300, Prev: 0x1122334455667788, Lap: 4, Position: 257, TailSegment: 5,
		TailRecord: 200, Durable: 290, Complete: 298, Length: headerLength}
	for i := range 16 {
		h.UUID[i] = byte(i)
	}
	for _, e := range []Entry{
		{Vol: 1, Seq: 2, Kind: Write, Addr: 3, Blocks: 2, Sums: []uint32{0xaabbccdd, 0x01020304}},
		{Vol: 5, Seq: 6, Kind: Trim, Addr: 7, Blocks: 1 << 30},
		{Vol: 8, Seq: 9, Kind: Write, Addr: 1 << 33, Blocks: 1, Sums: []uint32{7}, copied: true},
		{Vol: 8, Seq: 10, Kind: Resize, Addr: 1 << 34},
		{Vol: 8, Seq: 11, Kind: Write, Addr: 12, Blocks: 1, Sums: []uint32{13}, copied: true, Lost: true},
	} {
		h.Length = uint32(putEntry(b, int(h.Length), &e))
		h.Entries++
		h.Blocks += e.payload()
	}
	h.put(b)
	return h, b
}

// golden compares the used part of a block with its file.
func golden(t *testing.T, name string, b []byte, used int) {
	t.Helper()
	for _, c := range b[used:] {
		if c != 0 {
			t.Fatal("the rest of the block is not zeros")
		}
	}
	got := hex.Dump(b[:used])
	path := "testdata/" + name
	if *rewrite {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: the format has changed:\n%s", name, got)
	}
}

func TestGoldenRoot(t *testing.T) {
	want := sampleRoot()
	b := bytes.Repeat([]byte{0xee}, BlockSize)
	want.Encode(b)
	golden(t, "root.hex", b, rootLength)
	got, err := DecodeRoot(b)
	if err != nil || got != want {
		t.Fatalf("%v, %v", got, err)
	}
}

func TestGoldenRecord(t *testing.T) {
	want, b := sampleHeader()
	golden(t, "record.hex", b, int(want.Length))
	got, err := DecodeHeader(b)
	if err != nil || got != want {
		t.Fatalf("%+v, %v", got, err)
	}
	var e EntryHeader
	w := got.Walk(b)
	if !w.Next(&e) || e.Vol != 1 || e.Seq != 2 || e.Payload() != 2 || e.Sum(1) != 0x01020304 || e.Copied {
		t.Fatalf("%+v", e)
	}
	if !w.Next(&e) || e.Kind != Trim || e.Blocks != 1<<30 || e.Payload() != 0 {
		t.Fatalf("%+v", e)
	}
	if !w.Next(&e) || e.Addr != 1<<33 || !e.Copied || e.Lost || e.Sum(0) != 7 {
		t.Fatalf("%+v", e)
	}
	if !w.Next(&e) || e.Kind != Resize {
		t.Fatalf("%+v", e)
	}
	if !w.Next(&e) || e.Seq != 11 || !e.Copied || !e.Lost || w.Next(&e) {
		t.Fatalf("%+v", e)
	}
}

// Every flipped bit of the used part is noticed.
func TestFlips(t *testing.T) {
	h, b := sampleHeader()
	for i := range int(h.Length) * 8 {
		b[i/8] ^= 1 << (i % 8)
		if _, err := DecodeHeader(b); errs.Of(err) != errs.Corrupt {
			t.Fatalf("bit %d: %v", i, err)
		}
		b[i/8] ^= 1 << (i % 8)
	}
	r := sampleRoot()
	r.Encode(b)
	for i := range rootLength * 8 {
		b[i/8] ^= 1 << (i % 8)
		if _, err := DecodeRoot(b); errs.Of(err) != errs.Corrupt {
			t.Fatalf("bit %d: %v", i, err)
		}
		b[i/8] ^= 1 << (i % 8)
	}
}

// sealed makes the checksum of a fuzzed block right, so that the decoders see what lies behind it.
func sealed(in []byte) []byte {
	b := make([]byte, BlockSize)
	copy(b, in)
	if n := int(binary.LittleEndian.Uint32(b[20:])); n >= 24 && n <= BlockSize {
		binary.LittleEndian.PutUint64(b[8:], xxhash.Sum64(b[16:n]))
	}
	return b
}

func FuzzRoot(f *testing.F) {
	b := make([]byte, BlockSize)
	r := sampleRoot()
	r.Encode(b)
	f.Add(b[:rootLength])
	f.Fuzz(func(t *testing.T, in []byte) {
		_, _ = DecodeRoot(in)
		b := sealed(in)
		r, err := DecodeRoot(b)
		if err != nil {
			return
		}
		again := make([]byte, BlockSize)
		r.Encode(again)
		if got, err := DecodeRoot(again); err != nil || got != r {
			t.Fatalf("%+v came back as %+v, %v", r, got, err)
		}
	})
}

func FuzzHeader(f *testing.F) {
	h, b := sampleHeader()
	f.Add(b[:h.Length])
	f.Fuzz(func(t *testing.T, in []byte) {
		_, _ = DecodeHeader(in)
		b := sealed(in)
		h, err := DecodeHeader(b)
		if err != nil {
			return
		}
		var e EntryHeader
		n, blocks := uint32(0), uint32(0)
		for w := h.Walk(b); w.Next(&e); n++ {
			for i := range e.Payload() {
				_ = e.Sum(i)
			}
			blocks += uint32(e.Payload())
		}
		if n != h.Entries || blocks != h.Blocks {
			t.Fatalf("%d entries of %d blocks, the header says %d of %d", n, blocks, h.Entries, h.Blocks)
		}
	})
}

func TestDump(t *testing.T) {
	l := startLoop(t, 16<<20)
	r := open(t, l, create(t, 4, Options{}), Options{}, nil)
	r.putEach(3, 1, 5)
	r.close()
	var out bytes.Buffer
	if err := Dump(&out, r.d); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"A: root 3", "B: root 3", "clean true", "record 5 incarnation 2",
		"write volume 3 seq 5 at 5+1"} {
		if !bytes.Contains(out.Bytes(), []byte(want)) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
}
