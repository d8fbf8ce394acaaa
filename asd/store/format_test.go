package store

import (
	"bytes"
	"encoding/hex"
	"flag"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// golden compares a block with testdata/name: hex, 32 bytes a line, rows of zeros left out.
func golden(t *testing.T, name string, b []byte) {
	t.Helper()
	var sb strings.Builder
	for off := 0; off < len(b); off += 32 {
		row := b[off:min(off+32, len(b))]
		if !allZero(row) {
			sb.WriteString(hex.EncodeToString([]byte{byte(off >> 8), byte(off)}) + ": " +
				hex.EncodeToString(row) + "\n")
		}
	}
	path := filepath.Join("testdata", name)
	if *rewrite {
		must(t, os.MkdirAll("testdata", 0o755))
		must(t, os.WriteFile(path, []byte(sb.String()), 0o644))
	}
	want, err := os.ReadFile(path)
	must(t, err)
	if string(want) != sb.String() {
		t.Fatalf("%s: the format has changed:\n%s\nwant\n%s", name, sb.String(), want)
	}
}

func goldenSuperblock() Superblock {
	return Superblock{Version: 1, Sequence: 5, UUID: [16]byte{1, 2, 3}, Deployment: [16]byte{4, 5}, ID: 6,
		State: StateDirty, Size: 64 << 20, Start: dataStart, Incarnation: 7, Nonce: 0x1122334455667788,
		FormatNonce: 0x99aabbccddeeff00, Commits: 8, Created: 1_700_000_000_000_000_000, Self: sbOffset1}
}

func goldenHeader() Header {
	return Header{UUID: [16]byte{1, 2, 3}, Epoch: 9, Class: layout.ClassRepair, Self: dataStart,
		Key:         layout.FragKey{Namespace: 1, SCO: 2, Put: 3, Chunk: 4, Frag: 5, Version: 6},
		Incarnation: 7, Seq: 8, Time: 1_700_000_000_000_000_000, Len: 3 * layout.RegionSize, FormatNonce: 10,
		Extents: []layout.Extent{{Off: dataStart, Len: 65536}, {Off: dataStart + 1<<20, Len: 65536*2 + 4096}},
		Sums:    []uint64{11, 12, 13}, Desc: []byte("what the fragment says of its object")}
}

func goldenRecord() fragRecord {
	return fragRecord{runs: []run{{512, 16}, {768, 33}}, class: 2, len: 48 * blockSize, sum: 3, epoch: 4,
		time: 5}
}

func TestGolden(t *testing.T) {
	b := make([]byte, blockSize)
	sb := goldenSuperblock()
	sb.Encode(b)
	golden(t, "superblock.hex", b)
	if got, err := DecodeSuperblock(b); err != nil || got != sb {
		t.Fatal(got, err)
	}
	h := goldenHeader()
	h.Encode(b)
	golden(t, "header.hex", b)
	var got Header
	must(t, got.Decode(b))
	if got.String() != h.String() || string(got.Desc) != string(h.Desc) ||
		!strings.Contains(h.String(), "1/2/3/4/5.6 live") {
		t.Fatal(got.String())
	}
	dead := Header{UUID: h.UUID, Key: h.Key, Dead: true, Self: h.Self}
	dead.Encode(b)
	golden(t, "dead.hex", b)
	rec := goldenRecord()
	golden(t, "record.hex", rec.append(nil))
	golden(t, "rest.hex", encodeRest(rec.runs, 71))
	golden(t, "mark.hex", mark{71, 1e10}.encode([16]byte{1, 2, 3}))
	golden(t, "meta.hex", metaOf(&sb).encode())
}

// readGolden is a block that an older version wrote.
func readGolden(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	must(t, err)
	b := make([]byte, blockSize)
	for line := range strings.Lines(string(text)) {
		at, err := hex.DecodeString(line[:4])
		must(t, err)
		row, err := hex.DecodeString(strings.TrimSpace(line[6:]))
		must(t, err)
		copy(b[int(at[0])<<8|int(at[1]):], row)
	}
	return b
}

// Headers of version 1 are read, as of fragments without a descriptor.
func TestHeaderVersion1(t *testing.T) {
	var got Header
	got.Desc = []byte("of the one before")
	must(t, got.Decode(readGolden(t, "header1.hex")))
	want := goldenHeader()
	want.Encode(make([]byte, blockSize))
	if got.String() != want.String() || len(got.Desc) != 0 {
		t.Fatal(got.String(), got.Desc)
	}
}

// A record of rest from before marks is of no commit: no mark is known to be younger.
func TestRestVersion1(t *testing.T) {
	rs, commit, err := decodeRest(readGolden(t, "rest1.hex")[:4+2*16])
	if want := goldenRecord(); err != nil || commit != math.MaxUint64 || !slices.Equal(rs, want.runs) {
		t.Fatal(rs, commit, err)
	}
}

// Every bit of both formats counts: a flip anywhere is seen.
func TestEveryBitCounts(t *testing.T) {
	b := make([]byte, blockSize)
	sb := goldenSuperblock()
	sb.Encode(b)
	h := goldenHeader()
	hb := make([]byte, blockSize)
	h.Encode(hb)
	var got Header
	for i := range blockSize * 8 {
		b[i/8] ^= 1 << (i % 8)
		hb[i/8] ^= 1 << (i % 8)
		if _, err := DecodeSuperblock(b); err == nil || errs.Of(err) == errs.Version {
			t.Fatalf("superblock: bit %d: %v", i, err)
		}
		if err := got.Decode(hb); err == nil || errs.Of(err) == errs.Version {
			t.Fatalf("header: bit %d: %v", i, err)
		}
		b[i/8] ^= 1 << (i % 8)
		hb[i/8] ^= 1 << (i % 8)
	}
}

func FuzzSuperblock(f *testing.F) {
	b := make([]byte, blockSize)
	sb := goldenSuperblock()
	sb.Encode(b)
	f.Add(b[:sbUsed])
	f.Fuzz(func(t *testing.T, in []byte) {
		b := fixSum(in, 16)
		sb, err := DecodeSuperblock(b)
		if err != nil {
			return
		}
		out := make([]byte, blockSize)
		sb.Encode(out)
		if !bytes.Equal(out, b) {
			t.Fatalf("not the same when encoded again: %v", sb)
		}
	})
}

func FuzzHeader(f *testing.F) {
	b := make([]byte, blockSize)
	h := goldenHeader()
	h.Encode(b)
	f.Add(b[:headerSums+24])
	f.Add(b[:100])
	f.Fuzz(func(t *testing.T, in []byte) {
		var h Header
		b := fixSum(in, 16)
		if err := h.Decode(b); err != nil {
			return
		}
		out := make([]byte, blockSize)
		h.Encode(out)
		out[8] = b[8] // version 1 is not written any more
		putUint64(out[16:], sumWithout(out, 16))
		if !bytes.Equal(out, b) {
			t.Fatalf("not the same when encoded again: %v", &h)
		}
		_ = h.String()
	})
}

// fixSum makes a block of in with a right checksum, or the fuzzer would stop at that.
func fixSum(in []byte, off int) []byte {
	b := make([]byte, blockSize)
	copy(b, in)
	putUint64(b[off:], sumWithout(b, off))
	return b
}

func putUint64(b []byte, v uint64) {
	for i := range 8 {
		b[i] = byte(v >> (8 * i))
	}
}

func FuzzRecords(f *testing.F) {
	rec := goldenRecord()
	f.Add(rec.append(nil))
	f.Add(encodeRest(rec.runs, 71))
	f.Add(mark{71, 1e10}.encode([16]byte{1, 2, 3}))
	sb := goldenSuperblock()
	f.Add(metaOf(&sb).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeFragRecord(b); err == nil && !bytes.Equal(r.append(nil), b) {
			t.Fatalf("%+v", r)
		}
		if rs, commit, err := decodeRest(b); err == nil && b[0] == restVersion && !bytes.Equal(encodeRest(rs, commit), b) {
			t.Fatalf("%+v", rs)
		}
		if m, boot, err := decodeMark(make([]byte, 8), b); err == nil && !bytes.Equal(m.encode(boot), b) {
			t.Fatalf("%+v", m)
		}
		if m, err := decodeMeta(b); err == nil && !bytes.Equal(m.encode(), b) {
			t.Fatalf("%+v", m)
		}
	})
}
