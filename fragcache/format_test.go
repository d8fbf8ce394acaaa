package fragcache

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// golden compares bytes with testdata/name: hex, 32 bytes a line, rows of zeros left out.
func golden(t *testing.T, name string, b []byte) {
	t.Helper()
	var sb strings.Builder
	for off := 0; off < len(b); off += 32 {
		if row := b[off:min(off+32, len(b))]; !zeros(row) {
			sb.WriteString(hex.EncodeToString([]byte{byte(off >> 8), byte(off)}) + ": " + hex.EncodeToString(row) + "\n")
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

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func goldenSuper() Superblock {
	return Superblock{UUID: [16]byte{1, 2, 3}, Deployment: [16]byte{4, 5}, Incarnation: 6, Size: 1 << 30,
		Segment: 16 << 20, Segments: 63}
}

func goldenHeader() Header {
	return Header{UUID: [16]byte{1, 2, 3},
		Key:   layout.FragKey{Namespace: 1, SCO: 2, Put: 3, Chunk: 4, Frag: 5, Version: 6},
		Place: Place{Segment: 7, Block: 8, Generation: 9<<32 | 1, Seq: 9<<32 | 2}, Len: 2*layout.RegionSize + 4096,
		Sums: []uint64{11, 12, 13}}
}

func goldenFooter() Footer {
	k := layout.FragKey{Namespace: 1, SCO: 2, Put: 3, Chunk: 4, Frag: 5, Version: 6}
	f := Footer{UUID: [16]byte{1, 2, 3}, Segment: 7, Generation: 9<<32 | 1}
	for i := range 3 {
		k.Frag++
		f.List = append(f.List, Listed{Key: k, Block: uint32(40 * i), Len: uint32(4096 * (1 + i)),
			Seq: uint64(9<<32 + 2 + i)})
	}
	return f
}

func encodeFooter(f *Footer) []byte {
	b := make([]byte, footerBytes(len(f.List)))
	f.Encode(b)
	return b
}

func TestGolden(t *testing.T) {
	b := make([]byte, blockSize)
	sb := goldenSuper()
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
	if !reflect.DeepEqual(got, h) {
		t.Fatal(got.String(), h.String())
	}
	f := goldenFooter()
	fb := encodeFooter(&f)
	golden(t, "footer.hex", fb)
	if got, err := DecodeFooter(fb, 1000); err != nil || !reflect.DeepEqual(got, f) {
		t.Fatal(got, err)
	}
	long := Footer{UUID: f.UUID, Generation: 1}
	for i := range 500 {
		long.List = append(long.List, Listed{Key: layout.FragKey{SCO: 1, Put: 1, Chunk: uint16(i)}, Block: uint32(2 * i),
			Len: 4096, Seq: uint64(i + 1)})
	}
	if got, err := DecodeFooter(encodeFooter(&long), 2000); err != nil || !reflect.DeepEqual(got, long) {
		t.Fatal(len(got.List), err)
	}
	if _, err := DecodeFooter(encodeFooter(&long), 999); errs.Of(err) != errs.Corrupt {
		t.Fatalf("a footer lists fragments behind the end of its segment: %v", err)
	}
}

// Every bit of the formats counts: a flip anywhere is seen.
func TestEveryBitCounts(t *testing.T) {
	sb, hb := make([]byte, blockSize), make([]byte, blockSize)
	s, h, f := goldenSuper(), goldenHeader(), goldenFooter()
	s.Encode(sb)
	h.Encode(hb)
	fb := encodeFooter(&f)
	var got Header
	for i := range blockSize * 8 {
		for _, b := range [][]byte{sb, hb, fb} {
			b[i/8] ^= 1 << (i % 8)
		}
		if _, err := DecodeSuperblock(sb); err == nil || errs.Of(err) == errs.Version {
			t.Fatalf("superblock: bit %d: %v", i, err)
		}
		if err := got.Decode(hb); err == nil || errs.Of(err) == errs.Version {
			t.Fatalf("header: bit %d: %v", i, err)
		}
		if _, err := DecodeFooter(fb, 1000); err == nil || errs.Of(err) == errs.Version {
			t.Fatalf("footer: bit %d: %v", i, err)
		}
		for _, b := range [][]byte{sb, hb, fb} {
			b[i/8] ^= 1 << (i % 8)
		}
	}
}

func FuzzSuperblock(f *testing.F) {
	b := make([]byte, blockSize)
	s := goldenSuper()
	s.Encode(b)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := DecodeSuperblock(reseal(b, 16)); err == nil {
			out := make([]byte, blockSize)
			s.Encode(out)
			if !bytes.Equal(out, b[:blockSize]) {
				t.Fatalf("%+v encodes to something else", s)
			}
		}
	})
}

func FuzzHeader(f *testing.F) {
	b := make([]byte, blockSize)
	h := goldenHeader()
	h.Encode(b)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var h Header
		if h.Decode(reseal(b, 16)) == nil {
			out := make([]byte, blockSize)
			h.Encode(out)
			if !bytes.Equal(out, b[:blockSize]) {
				t.Fatalf("%v encodes to something else", &h)
			}
		}
	})
}

func FuzzFooter(f *testing.F) {
	foot := goldenFooter()
	f.Add(encodeFooter(&foot), uint32(1000))
	f.Fuzz(func(t *testing.T, b []byte, blocks uint32) {
		if len(b) >= footerTail {
			at := len(b) - footerTail + 16
			copy(b[at:], le64(footerSum(b, at)))
		}
		if foot, err := DecodeFooter(b, blocks); err == nil {
			if !bytes.Equal(encodeFooter(&foot), b) {
				t.Fatalf("%+v encodes to something else", foot)
			}
		}
	})
}

func le64(v uint64) []byte {
	b := make([]byte, 8)
	for i := range b {
		b[i] = byte(v >> (8 * i))
	}
	return b
}

// reseal gives a block the checksum that it should have, so that the fuzzer comes past it.
func reseal(b []byte, at int) []byte {
	if len(b) >= blockSize {
		copy(b[at:], le64(sumWithout(b[:blockSize])))
	}
	return b
}
