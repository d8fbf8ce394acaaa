package ssd

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"testing"

	"vstor/dataplane/errs"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := "testdata/" + name
	text := hex.Dump(got)
	if *rewrite {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("%s: the format has changed", name)
	}
}

func someHeader() *Header {
	h := &Header{Incarnation: 0x1122334455667788, Sequence: 99, Region: 7, Page: 1, Count: 3}
	h.Records[0] = Record{NS: 5, Owner: 6, SCO: 7, Off: 8, Sum: 0xdeadbeef}
	h.Records[1] = Record{NS: 1 << 60, Owner: 1<<64 - 1, SCO: 1<<32 - 1, Off: 65535, Sum: 1}
	h.Records[2] = Record{SCO: 1}
	return h
}

func someSuper() Superblock {
	return Superblock{Incarnation: 0x8877665544332211, UUID: [16]byte{1, 2, 3, 15: 9}, Size: 4096 + 9<<20,
		RegionBytes: 1 << 20, Regions: 9, BlockBytes: 64 << 10}
}

func TestGolden(t *testing.T) {
	b := make([]byte, pageSize)
	sb := someSuper()
	sb.Encode(b)
	golden(t, "superblock.hex", b)
	if got, err := DecodeSuperblock(b); err != nil || got != sb {
		t.Errorf("%+v, %v", got, err)
	}
	h := someHeader()
	h.Encode(b)
	golden(t, "header.hex", b)
	var got Header
	if err := got.Decode(b); err != nil || got != *h {
		t.Errorf("%+v, %v", got, err)
	}
}

// No flip of a bit passes, in any byte of either page.
func TestEveryFlipIsFound(t *testing.T) {
	b := make([]byte, pageSize)
	sb := someSuper()
	sb.Encode(b)
	h := make([]byte, pageSize)
	someHeader().Encode(h)
	var out Header
	for i := range b {
		for _, p := range [2][]byte{b, h} {
			p[i] ^= 1 << (i % 8)
		}
		if _, err := DecodeSuperblock(b); err == nil {
			t.Fatalf("superblock: a flip in byte %d passes", i)
		}
		if out.Decode(h) == nil {
			t.Fatalf("header: a flip in byte %d passes", i)
		}
		for _, p := range [2][]byte{b, h} {
			p[i] ^= 1 << (i % 8)
		}
	}
}

func TestOtherVersion(t *testing.T) {
	b := make([]byte, pageSize)
	sb := someSuper()
	sb.Encode(b)
	b[8] = 2
	clear(b[16:24])
	seal(b)
	if _, err := DecodeSuperblock(b); errs.Of(err) != errs.Version {
		t.Errorf("version 2: %v", err)
	}
}

func FuzzHeader(f *testing.F) {
	b := make([]byte, pageSize)
	someHeader().Encode(b)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= pageSize {
			b = b[:pageSize]
			copy(b, headerMagic)
			clear(b[16:24])
			seal(b) // a checksum is no defence against what a bug wrote
		}
		var h Header
		if h.Decode(b) != nil {
			return
		}
		again := make([]byte, pageSize)
		h.Encode(again)
		if !bytes.Equal(again, b) {
			t.Errorf("%+v does not encode to what it was decoded from", h)
		}
	})
}

func FuzzSuperblock(f *testing.F) {
	b := make([]byte, pageSize)
	sb := someSuper()
	sb.Encode(b)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= pageSize {
			b = b[:pageSize]
			copy(b, superMagic)
			clear(b[16:24])
			seal(b)
		}
		sb, err := DecodeSuperblock(b)
		if err != nil {
			return
		}
		again := make([]byte, pageSize)
		sb.Encode(again)
		if !bytes.Equal(again, b) {
			t.Errorf("%+v does not encode to what it was decoded from", sb)
		}
	})
}
