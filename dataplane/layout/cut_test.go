package layout

import (
	"testing"

	"pgregory.net/rapid"

	"vstor/dataplane/ids"
)

func TestCutTable(t *testing.T) {
	const M = 1 << 20
	for _, c := range []struct {
		size    int64
		k       int
		maxFrag int64
		chunks  int
		frag    int64
	}{
		{64 * M, 8, 4 * M, 2, 4 * M}, // the design's example
		{64 * M, 4, 4 * M, 4, 4 * M},
		{64 * M, 5, 4 * M, 4, 3358720}, // 16 MiB / 5, rounded up to 4 KiB
		{1, 1, 4 * M, 1, 4096},
		{4096, 4, 4 * M, 1, 4096},
		{20480, 4, 4 * M, 1, 8192},
		{4*4*M + 1, 4, 4 * M, 2, 2*M + 4096},
		{256 * M, 1, 4 * M, 64, 4 * M},
	} {
		g := Cut(c.size, c.k, c.maxFrag)
		if g.Chunks != c.chunks || g.FragLen != c.frag || g.ChunkLen != c.frag*int64(c.k) {
			t.Errorf("%+v: %+v", c, g)
		}
	}
}

func TestCutProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := rapid.IntRange(1, 32).Draw(t, "k")
		maxFrag := int64(ids.BlockSize * rapid.IntRange(1, 1024).Draw(t, "frag"))
		size := rapid.Int64Range(1, 256<<20).Draw(t, "size")
		g := Cut(size, k, maxFrag)
		per := min(int64(k)*maxFrag, size)
		if int64(g.Chunks) != (size+per-1)/per {
			t.Fatalf("%+v: the formula says %d chunks", g, (size+per-1)/per)
		}
		if g.FragLen > maxFrag || g.FragLen%ids.BlockSize != 0 || g.ChunkLen != g.FragLen*int64(k) {
			t.Fatalf("%+v", g)
		}
		if int64(g.Chunks)*g.ChunkLen < size || int64(g.Chunks-1)*g.ChunkLen >= size {
			t.Fatalf("%+v: chunks do not cover the object exactly", g)
		}
		off := rapid.Int64Range(0, size-1).Draw(t, "off")
		c, f, o := g.Place(off)
		if int64(c)*g.ChunkLen+int64(f)*g.FragLen+o != off || c >= g.Chunks || f >= k || o >= g.FragLen {
			t.Fatalf("%d lies at %d/%d+%d of %+v", off, c, f, o, g)
		}
	})
}

func TestSlotRotates(t *testing.T) {
	for chunk := range 7 {
		seen := map[int]bool{}
		for f := range 6 {
			seen[Slot(chunk, f, 6)] = true
		}
		if len(seen) != 6 {
			t.Fatalf("chunk %d uses %d slots", chunk, len(seen))
		}
	}
	if Slot(0, 5, 6) == Slot(1, 5, 6) {
		t.Fatal("parity stays on one slot")
	}
}

func TestFragKeyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gen := rapid.Custom(func(t *rapid.T) FragKey {
			return FragKey{ids.NamespaceID(rapid.Uint64Range(0, 3).Draw(t, "ns")), ids.SCONum(rapid.Uint32().Draw(t, "sco")),
				ids.PutID(rapid.Uint32Range(0, 300).Draw(t, "put")), rapid.Uint16().Draw(t, "chunk"),
				rapid.Uint8().Draw(t, "frag"), rapid.Uint8().Draw(t, "version")}
		})
		a, b := gen.Draw(t, "a"), gen.Draw(t, "b")
		ea, eb := string(a.Append(nil)), string(b.Append(nil))
		back, ok := ParseFragKey([]byte(ea))
		if !ok || back != a || len(ea) != FragKeySize {
			t.Fatal("key does not read back")
		}
		if (ea < eb) != (a.Compare(b) < 0) || (ea == eb) != (a == b) {
			t.Fatalf("%v and %v order differently", a, b)
		}
	})
}
