package layout

import (
	"bytes"
	"encoding/hex"
	"os"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// sample is a manifest with a different value in every field.
func sample(size int64, p Policy, maxFrag uint32) *Manifest {
	m := &Manifest{Namespace: 0x1122334455667788, SCO: 7, Put: 1025, Epoch: 3, Commit: 9, Kind: KindWrite,
		SeqFirst: 100, SeqLast: 250, Size: size, Plain: size, MaxFrag: maxFrag, Policy: p, Version: 2}
	g := m.Geometry()
	m.Targets = make([]Target, p.N())
	for i := range m.Targets {
		m.Targets[i] = ASDTarget(ids.ASDID(10 + i))
	}
	m.Frags = make([]Frag, g.Chunks*p.N())
	for i := range m.Frags {
		m.Frags[i] = Frag{State: FragPresent, Sum: FragSum([]uint64{uint64(i), 1})}
	}
	return m
}

func TestManifestIsSmall(t *testing.T) {
	m := sample(64<<20, Policy{8, 2, 9, 1}, 4<<20)
	if n := len(m.Append(nil)); n > 1024 || n != m.EncodedSize() || n != 464 {
		t.Fatalf("%d bytes", n)
	}
}

func TestManifestGolden(t *testing.T) {
	m := sample(3*4096+5, Policy{2, 1, 2, 1}, 4096)
	m.Targets[1] = ObjectTarget(5, 0xabcdef)
	m.Targets[2] = Target{}
	for c := range 2 {
		for f := range 3 {
			if Slot(c, f, 3) == 2 {
				m.Frag(c, f).State = FragMissing
			}
		}
	}
	m.Frag(1, 0).Version = 4
	got := m.Append(nil)
	text, err := os.ReadFile("testdata/manifest.hex")
	if err != nil {
		t.Fatal(err)
	}
	want, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("the format changed:\n%s", hex.Dump(got))
	}
	back, err := ParseManifest(want)
	if err != nil || !reflect.DeepEqual(back, m) {
		t.Fatalf("%v\n%+v\n%+v", err, back, m)
	}
	if len(back.Missing()) != 2 || back.Whole() || back.PresentIn(0) != 2 {
		t.Fatal(back.Missing())
	}
	if k := back.FragKey(1, 0); k != (FragKey{m.Namespace, 7, 1025, 1, 0, 4}) {
		t.Fatal(k)
	}
}

// Every bit of a manifest is covered: a flip anywhere is found.
func TestManifestEveryFlipIsFound(t *testing.T) {
	b := sample(64<<20, Policy{4, 2, 5, 1}, 4<<20).Append(nil)
	for i := range b {
		for bit := range 8 {
			b[i] ^= 1 << bit
			if _, err := ParseManifest(b); err == nil {
				t.Fatalf("flip of bit %d in byte %d was not found", bit, i)
			}
			b[i] ^= 1 << bit
		}
	}
	for n := range b {
		if _, err := ParseManifest(b[:n]); errs.Of(err) != errs.Corrupt {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
}

func TestManifestFromTheFuture(t *testing.T) {
	b := sample(4096, Policy{1, 0, 1, 1}, 4096).Append(nil)
	b[4]++
	if _, err := ParseManifest(b); errs.Of(err) != errs.Version {
		t.Fatal(err)
	}
}

func TestManifestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := rapid.IntRange(1, 12).Draw(t, "k")
		m := rapid.IntRange(0, 4).Draw(t, "m")
		man := sample(rapid.Int64Range(1, 128<<20).Draw(t, "size"), Policy{uint8(k), uint8(m), uint8(k + m), 1},
			uint32(rapid.IntRange(64, 2048).Draw(t, "frag"))*4096)
		gone := rapid.IntRange(0, k+m-1).Draw(t, "gone")
		n := 0
		for c := range man.Geometry().Chunks {
			for f := range k + m {
				if Slot(c, f, k+m) == gone {
					man.Frag(c, f).State = FragMissing
					n++
				}
			}
		}
		man.Targets[gone] = Target{}
		back, err := ParseManifest(man.Append(nil))
		if err != nil || !reflect.DeepEqual(back, man) || !reflect.DeepEqual(man.Clone(), man) {
			t.Fatal(err)
		}
		if len(back.Missing()) != n {
			t.Fatalf("%d missing, want %d", len(back.Missing()), n)
		}
	})
}

func TestFragSum(t *testing.T) {
	// 130 sums cross the buffer of 64 twice; the digest must not see the seams.
	sums := make([]uint64, 130)
	for i := range sums {
		sums[i] = uint64(i) * 0x9e3779b97f4a7c15
	}
	seen := map[uint64]bool{}
	for n := range sums {
		seen[FragSum(sums[:n])] = true
	}
	if len(seen) != len(sums) {
		t.Fatal("two prefixes hash alike")
	}
	if FragSum(nil) != 0xef46db3751d8e999 { // XXH64 of nothing
		t.Fatalf("%#x", FragSum(nil))
	}
	if n := testing.AllocsPerRun(100, func() { FragSum(sums) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add(sample(64<<20, Policy{4, 2, 5, 1}, 4<<20).Append(nil))
	f.Add(sample(1, Policy{1, 0, 1, 1}, 4096).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= manifestHead { // let the fuzzer past the checksum
			b = bytes.Clone(b)
			sum := manifestSum(b)
			b[12], b[13], b[14], b[15] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
		}
		m, err := ParseManifest(b)
		if err != nil {
			return
		}
		if !bytes.Equal(m.Append(nil), b) {
			t.Fatal("a manifest that decodes does not encode to the same bytes")
		}
	})
}
