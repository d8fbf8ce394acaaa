package layout

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"os"
	"strings"
	"testing"

	"vstor/dataplane/errs"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

func TestDescriptorGolden(t *testing.T) {
	m := sample(3*4096+5, Policy{2, 1, 2, 1}, 4096)
	m.Plain, m.Compression, m.Encryption, m.Key, m.Head = 99, 1, 2, 3, 4
	got := m.AppendDescriptor(nil, 1, 2)
	const path = "testdata/descriptor.hex"
	if *rewrite {
		if err := os.WriteFile(path, []byte(hex.EncodeToString(got)+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%v; the format changed:\n%s", err, hex.Dump(got))
	}
	d, err := ParseDescriptor(want)
	if err != nil || d.Chunk != 1 || len(d.Sums) != 3 {
		t.Fatal(err, d)
	}
	again, err := ParseDescriptor(m.AppendDescriptor(nil, 0, 0))
	if err != nil || !d.Same(again) {
		t.Fatal("descriptors of one put differ", err)
	}
	whole := d.Object
	whole.Commit, whole.Version, whole.Targets, whole.Frags = m.Commit, m.Version, m.Targets, m.Frags
	if !bytes.Equal(whole.Append(nil), m.Append(nil)) {
		t.Fatalf("a manifest made from the descriptor is another: %+v", whole)
	}
}

// A flip anywhere is found, and so is every cut.
func TestDescriptorEveryFlipIsFound(t *testing.T) {
	b := sample(64<<20, Policy{4, 2, 5, 1}, 4<<20).AppendDescriptor(nil, 3, 1)
	for i := range b {
		for bit := range 8 {
			b[i] ^= 1 << bit
			if _, err := ParseDescriptor(b); errs.Of(err) != errs.Corrupt {
				t.Fatalf("bit %d of byte %d: %v", bit, i, err)
			}
			b[i] ^= 1 << bit
		}
	}
	for n := 1; n < len(b); n++ {
		if _, err := ParseDescriptor(b[:n]); errs.Of(err) != errs.Corrupt {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
	if _, err := ParseDescriptor(nil); errs.Of(err) != errs.Absent {
		t.Fatal(err)
	}
	b[4]++
	binary.LittleEndian.PutUint32(b[8:], descSum(b))
	if _, err := ParseDescriptor(b); errs.Of(err) != errs.Version {
		t.Fatal(err)
	}
}

// Any k fragments that are not all neighbours know the checksums of all, also of the widest policy.
func TestDescriptorOfManyFragments(t *testing.T) {
	m := sample(1<<20, Policy{40, 24, 40, 1}, 1<<20)
	known := map[int]bool{}
	for _, frag := range []int{0, 63} {
		b := m.AppendDescriptor(nil, 0, frag)
		if len(b) > DescMax {
			t.Fatalf("%d bytes", len(b))
		}
		d, err := ParseDescriptor(b)
		if err != nil {
			t.Fatal(err)
		}
		for f := range 64 {
			if s, ok := d.Sum(f); ok {
				known[f] = true
				if s != m.Frag(0, f).Sum {
					t.Fatalf("sum of %d from %d", f, frag)
				}
			}
		}
	}
	if len(known) != 49 || !known[63] || known[48] {
		t.Fatal(len(known))
	}
}

func TestDescriptorAllocatesNothing(t *testing.T) {
	m := sample(64<<20, Policy{4, 2, 5, 1}, 4<<20)
	b := make([]byte, 0, DescMax)
	if n := testing.AllocsPerRun(100, func() { b = m.AppendDescriptor(b[:0], 1, 2) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func FuzzParseDescriptor(f *testing.F) {
	f.Add(sample(64<<20, Policy{4, 2, 5, 1}, 4<<20).AppendDescriptor(nil, 3, 1))
	f.Add(sample(1<<20, Policy{40, 24, 40, 1}, 1<<20).AppendDescriptor(nil, 0, 63))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 12 { // or the fuzzer would stop at the checksum
			binary.LittleEndian.PutUint32(b[8:], descSum(b))
		}
		d, err := ParseDescriptor(b)
		if err != nil {
			return
		}
		m := d.Object
		n := m.Policy.N()
		m.Targets, m.Frags = make([]Target, n), make([]Frag, m.Geometry().Chunks*n)
		for i := range n {
			m.Frag(int(d.Chunk), i).Sum, _ = d.Sum(i)
		}
		if out := m.AppendDescriptor(nil, int(d.Chunk), int(d.First)); !bytes.Equal(out, b) {
			t.Fatalf("not the same when encoded again:\n%x\n%x", out, b)
		}
	})
}
