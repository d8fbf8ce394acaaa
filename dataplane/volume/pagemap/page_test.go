package pagemap

import (
	"bytes"
	"encoding/hex"
	"flag"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

var rewrite = flag.Bool("rewrite", false, "rewrite testdata")

func genPage(t *rapid.T) *Page {
	p := &Page{Map: MapID(rapid.Uint64().Draw(t, "map")), No: PageNo(rapid.IntRange(0, 1<<26-1).Draw(t, "no")),
		Commit: ids.CommitNum(rapid.Uint64().Draw(t, "commit"))}
	bits := rapid.SampledFrom([]int{0, 1, 7, 14, 16, 31, 32})
	wSCO, wOff, wNS := bits.Draw(t, "wSCO"), min(16, bits.Draw(t, "wOff")), min(16, bits.Draw(t, "wNS"))
	rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
	holes := rapid.SampledFrom([]int{0, 1, 2, 255, 256}).Draw(t, "holes")
	kinds := rapid.IntRange(1, 3).Draw(t, "kinds")
	for i := range p.Locs {
		if rng.IntN(256) < holes {
			p.Locs[i] = layout.Location{Off: uint16(rng.IntN(kinds))}
			continue
		}
		p.Locs[i] = layout.Location{SCO: ids.SCONum(max(1, rng.Uint32()&(1<<wSCO-1))),
			Off: uint16(rng.Uint32() & (1<<wOff - 1)), NS: uint16(rng.Uint32() & (1<<wNS - 1)), Sum: rng.Uint32()}
	}
	return p
}

func TestPageRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := genPage(t)
		b := p.Append([]byte("before"))[6:]
		if len(b) > pageMax {
			t.Fatalf("%d bytes", len(b))
		}
		var got Page
		if err := ParsePage(b, &got); err != nil {
			t.Fatal(err)
		}
		if got != *p {
			t.Fatal("another page came back")
		}
		at := rapid.IntRange(0, len(b)*8-1).Draw(t, "bit")
		b[at/8] ^= 1 << (at % 8)
		if err := parsePageOf(b, p.Map, p.No, &got); errs.Of(err) != errs.Corrupt && errs.Of(err) != errs.Version {
			t.Fatalf("flipped bit %d: %v", at, err)
		}
	})
}

func TestPageIdentity(t *testing.T) {
	p := Page{Map: 3, No: 4}
	b := p.Append(nil)
	for _, c := range []struct {
		id MapID
		no PageNo
	}{{3, 5}, {4, 4}} {
		if err := parsePageOf(b, c.id, c.no, &p); errs.Of(err) != errs.Corrupt {
			t.Errorf("page 4 of map 3 passes as page %d of map %d: %v", c.no, c.id, err)
		}
	}
	if err := ParsePage(Checkpoint{}.append(nil, 3), &p); errs.Of(err) != errs.Corrupt {
		t.Errorf("a checkpoint passes as a page: %v", err)
	}
}

// randomLocation is as random writes to a 100 GiB vDisk make them.
func randomLocation(rng *rand.Rand) layout.Location {
	return layout.Location{SCO: 5000 + ids.SCONum(rng.IntN(1600)), Off: uint16(rng.IntN(16300)), Sum: rng.Uint32()}
}

// TestPageSize holds the figures of the format's comment.
func TestPageSize(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var random, run Page
	for i := range random.Locs {
		random.Locs[i] = randomLocation(rng)
		run.Locs[i] = layout.Location{SCO: 5000, Off: uint16(700 + i), Sum: rng.Uint32()}
	}
	if r, s := len(random.Append(nil)), len(run.Append(nil)); r > 1900 || s > 1400 {
		t.Errorf("randomly written page %d bytes, sequentially written %d", r, s)
	}
	if n := reflect.TypeFor[node]().Size(); n != 64 {
		t.Errorf("a node has %d bytes", n)
	}
	if l, m := reflect.TypeFor[leaf]().Size(), reflect.TypeFor[mid]().Size(); l != leafBytes || m != midBytes {
		t.Errorf("leaf %d and mid %d bytes, counted as %d and %d", l, m, leafBytes, midBytes)
	}
}

// records has one of each kind, small enough to read.
func records() map[string][]byte {
	p := Page{Map: 7, No: 9, Commit: 11}
	for i := range p.Locs {
		p.Locs[i] = layout.Location{Off: layout.OffTrimmed}
	}
	p.Locs[0] = layout.Location{SCO: 0x101, Off: 5, Sum: 0xaabbccdd}
	p.Locs[1] = layout.Location{SCO: 0x102, Off: 6, Sum: 0x11223344}
	p.Locs[2] = layout.Location{Off: layout.OffZero}
	p.Locs[255] = layout.Location{SCO: 0x104, Off: 4, NS: 1, Sum: 0x55667788}
	hole := Page{Map: 7, No: 10, Commit: 12}
	fill(hole.Locs[:], layout.OffZero)
	var counts [groupSCOs]uint32
	counts[1], counts[255] = 16300, 1
	return map[string][]byte{
		"page":       p.Append(nil),
		"hole":       hole.Append(nil),
		"checkpoint": Checkpoint{Commit: 12, Seq: 3456, Size: 1 << 18}.append(nil, 7),
		"sco":        SCO{Num: 0x101, Commit: 4, Blocks: 16300, First: 100, Last: 20000}.append(nil, 7),
		"counts":     appendCounts(nil, 7, 1, &counts),
		"database":   seal(appendFrame(nil, magicDB, 0, 0, 0)),
	}
}

func TestGolden(t *testing.T) {
	for name, b := range records() {
		file := "testdata/" + name + ".hex"
		if *rewrite {
			if err := os.WriteFile(file, []byte(hex.Dump(b)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.Dump(b); got != string(want) {
			t.Errorf("%s was\n%sis\n%s", name, want, got)
		}
		text, err := Dump(b)
		if err != nil || !strings.Contains(text, name) && name != "hole" && name != "sco" {
			t.Errorf("dump of %s: %q, %v", name, text, err)
		}
	}
}

func FuzzRecord(f *testing.F) {
	for _, b := range records() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= frameSize {
			b = seal(bytes.Clone(b)) // or nothing gets past the checksum
		}
		_, _ = Dump(b)
		var p, q Page
		if ParsePage(b, &p) != nil {
			return
		}
		if err := ParsePage(p.Append(nil), &q); err != nil || p != q {
			t.Fatalf("a page that parses does not survive: %v", err)
		}
	})
}
