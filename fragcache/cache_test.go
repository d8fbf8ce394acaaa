package fragcache

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"

	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
)

func TestFillAndRead(t *testing.T) {
	c := open(t, testOptions(dio.NewMem(8<<20)))
	defer c.Close()
	r := c.NewReader()
	for i, n := range []int{4096, 64 << 10, 68 << 10, testFrag} {
		key := fragKey(1, i)
		if _, kind := locate(t, r, key, 0, 4096); kind != errs.Absent {
			t.Fatalf("before it was filled: %v", kind)
		}
		want := fill(t, c, key, n)
		if !has(t, c, key, n) {
			t.Fatalf("%d bytes were filled and are not here", n)
		}
		for _, off := range []int{0, n / 2 &^ 4095, n - 4096} {
			if b, kind := locate(t, r, key, off, 4096); kind != errs.OK || !bytes.Equal(b, want[off:off+4096]) {
				t.Fatalf("block at %d of %d bytes: %v", off, n, kind)
			}
		}
		if _, _, kind := r.Locate(key, uint32(n-4096), 8192, nil); kind != errs.Invalid {
			t.Fatalf("beyond the end: %v", kind)
		}
		got := make([]byte, min(n, 5000))
		for _, off := range []int{1, n - len(got)} {
			if off+len(got) > n {
				continue
			}
			if !c.Get(context.Background(), key, sumOf(want), int64(off), got) || !bytes.Equal(got, want[off:off+len(got)]) {
				t.Fatalf("bytes from %d on of %d", off, n)
			}
		}
		if offer(c, key, want) {
			t.Fatal("it was taken twice")
		}
	}
	for _, n := range []int{0, 100, testFrag + 4096} {
		if c.Room(fragKey(1, 100), n) != nil {
			t.Fatalf("room for %d bytes", n)
		}
	}
	if p := c.Room(fragKey(1, 101), 4096); p == nil {
		t.Fatal("no room")
	} else {
		c.Fill(p, false)
	}
	settle(t, c)
	if has(t, c, fragKey(1, 101), 4096) {
		t.Fatal("what was not kept is here")
	}
	s := c.Stats()
	if s.Fills != 4 || s.Fragments != 4 || s.Hits == 0 || s.Misses == 0 || s.TooLarge != 3 || s.Corrupt != 0 {
		t.Fatalf("%+v", s)
	}
	check(t, c)
}

// A fragment that the manifest vouches for with another checksum is not given out, and dropped.
func TestStaleIsDropped(t *testing.T) {
	c := open(t, testOptions(dio.NewMem(8<<20)))
	defer c.Close()
	key := fragKey(1, 1)
	b := fill(t, c, key, 8192)
	if c.Get(context.Background(), key, sumOf(b)+1, 0, make([]byte, 4096)) {
		t.Fatal("given out")
	}
	if s := c.Stats(); s.Stale != 1 || s.Corrupt != 0 || has(t, c, key, 8192) {
		t.Fatalf("%+v", s)
	}
	fill(t, c, key, 8192)
	check(t, c)
}

func flip(t testing.TB, f dio.File, off int64) {
	t.Helper()
	b, err := dio.AlignedBuf(4096)
	must(t, err)
	defer dio.FreeBuf(b)
	must(t, f.ReadAt(b, off&^4095))
	b[off&4095] ^= 4
	must(t, f.WriteAt(b, off&^4095))
}

// Every bit that is flipped in header or payload is met: never given out, the entry dropped, asked for anew.
func TestFlipsAreNeverServed(t *testing.T) {
	f := dio.NewMem(8 << 20)
	c := open(t, testOptions(f))
	defer c.Close()
	const n = 68 << 10
	rng := rand.New(rand.NewPCG(3, 3))
	for i := range 200 {
		key := fragKey(1, i)
		want := fill(t, c, key, n)
		e := &c.index.slab[c.index.find(packKey(key))]
		off := rng.Int64N(blockSize + n)
		flip(t, f, c.at(e.seg, e.block)+off)
		if i%2 == 0 && off >= blockSize { // as PRACC meets it
			r := c.NewReader()
			at := int(off-blockSize) &^ 4095
			b, kind := locate(t, r, key, at, 4096)
			if kind != errs.OK || bytes.Equal(b, want[at:at+4096]) {
				t.Fatalf("the flip at %d is not there: %v", off, kind)
			}
			r.Served(key, 4096, 1, errs.Corrupt)
		} else if has(t, c, key, n) {
			t.Fatalf("served with a flip at %d", off)
		}
		if c.index.find(packKey(key)) != 0 {
			t.Fatal("the entry is still here")
		}
		if w := <-c.Wanted(); w != key {
			t.Fatalf("%v is wanted instead of %v", w, key)
		}
	}
	if s := c.Stats(); s.Corrupt != 200 {
		t.Fatalf("%+v", s)
	}
	check(t, c)
}

// A file that fails reads loses the entry; one that fails writes gets a rest, and keeps what it has.
func TestIOErrors(t *testing.T) {
	mem := dio.NewMem(8 << 20)
	f := dio.NewFaulty(mem, 1)
	c := open(t, testOptions(f))
	defer c.Close()
	fill(t, c, fragKey(1, 1), 8192)
	fill(t, c, fragKey(1, 2), 8192)
	f.Set(dio.Rule{On: dio.Reads, Do: dio.FailIO, Nth: 1})
	if has(t, c, fragKey(1, 1), 8192) {
		t.Fatal("read without the file")
	}
	r := c.NewReader()
	f.Set(dio.Rule{On: dio.Reads, Do: dio.FailIO, Nth: 1})
	if _, kind := locate(t, r, fragKey(1, 2), 0, 4096); kind != errs.IO {
		t.Fatal(kind)
	}
	if s := c.Stats(); s.ReadErrors != 2 || s.Corrupt != 0 || c.index.find(packKey(fragKey(1, 2))) != 0 {
		t.Fatalf("%+v", s)
	}
	f.Set(dio.Rule{On: dio.Writes, Do: dio.TornWrite, Nth: 1})
	if !offer(c, fragKey(1, 3), content(fragKey(1, 3), 8192)) {
		t.Fatal("no room")
	}
	eventually(t, "the write fails", func() bool { return c.Stats().WriteErrors == 1 })
	eventually(t, "the file rests", c.resting.Load)
	if offer(c, fragKey(1, 4), content(fragKey(1, 4), 8192)) {
		t.Fatal("taken while the file rests")
	}
	c.resting.Store(false)
	fill(t, c, fragKey(1, 4), 8192)
	if has(t, c, fragKey(1, 3), 8192) || !has(t, c, fragKey(1, 4), 8192) {
		t.Fatal("what was torn is here, or what came after is not")
	}
	check(t, c)
}

// A full house of fills neither waits nor grows: what finds no buffer is dropped.
func TestFillNeverWaits(t *testing.T) {
	f := dio.NewFaulty(dio.NewMem(8<<20), 1)
	c := open(t, testOptions(f))
	f.Set(dio.Rule{On: dio.Writes, Do: dio.Stall, Chance: 1})
	taken := 0
	for i := range 50 {
		if offer(c, fragKey(1, i), content(fragKey(1, i), testFrag)) {
			taken++
		}
	}
	if s := c.Stats(); taken != 4 || s.DroppedBusy != 46 {
		t.Fatalf("%d taken; %+v", taken, s)
	}
	eventually(t, "the writer stalls", func() bool { return f.Stalled() == 1 })
	f.Set() // not before: a writer that comes by later would find no rule
	f.Release()
	settle(t, c)
	for i := range 4 {
		if !has(t, c, fragKey(1, i), testFrag) {
			t.Fatalf("fragment %d was taken and is not here", i)
		}
	}
	check(t, c)
	c.Close()
}

func TestValidate(t *testing.T) {
	least := MinSize(testFrag)
	for _, o := range []Options{
		{MaxFragment: 0, File: dio.NewMem(8 << 20)},
		{MaxFragment: 5000, File: dio.NewMem(8 << 20)},
		{MaxFragment: MaxPayload + 4096, File: dio.NewMem(1 << 30)},
		{MaxFragment: testFrag, File: dio.NewMem(least - 4096)},
		{MaxFragment: testFrag, File: dio.NewMem(8 << 20), Quota: -1},
	} {
		if _, err := New(o); errs.Of(err) != errs.Invalid {
			t.Errorf("%+v: %v", o, err)
		}
	}
	c := open(t, Options{MaxFragment: testFrag, File: dio.NewMem(least)})
	for i := range 40 {
		fill(t, c, fragKey(1, i), testFrag)
	}
	if !has(t, c, fragKey(1, 39), testFrag) {
		t.Fatal("the smallest cache does not hold one fragment")
	}
	check(t, c)
	c.Close()
}

// Locate and its Unpin allocate nothing, hit or miss.
func TestLocateAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("SKIPPED: the race detector allocates itself")
	}
	o := testOptions(dio.NewMem(8 << 20))
	o.OnRead = true
	c := open(t, o)
	defer c.Close()
	r := c.NewReader()
	key, other := fragKey(1, 1), fragKey(1, 2)
	fill(t, c, key, 64<<10)
	exts := make([]layout.Extent, 0, 2)
	n := testing.AllocsPerRun(1000, func() {
		_, pin, kind := r.Locate(key, 8192, 4096, exts)
		if kind != errs.OK {
			t.Fatal(kind)
		}
		r.Unpin(pin)
		r.Served(key, 4096, 100, errs.OK)
		if _, _, kind := r.Locate(other, 0, 4096, exts); kind != errs.Absent {
			t.Fatal(kind)
		}
		r.Passed(other, 4096, 100)
	})
	if n > 0 {
		t.Fatalf("%v allocations", n)
	}
}

// What is read N times in a window is asked for, once.
func TestWantedOnReads(t *testing.T) {
	o := testOptions(dio.NewMem(8 << 20))
	o.OnRead, o.ReadsWanted = true, 3
	c := open(t, o)
	defer c.Close()
	r := c.NewReader()
	for range 10 {
		r.Passed(fragKey(1, 1), 4096, 100)
	}
	r.Passed(fragKey(1, 2), 4096, 100)
	r.Passed(fragKey(1, 2), 4096, 100)
	c.window.Add(1)
	r.Passed(fragKey(1, 2), 4096, 100)
	c.SetEnabled(2, false)
	for range 10 {
		r.Passed(fragKey(2, 3), 4096, 100)
	}
	if n := len(c.wanted); n != 1 {
		t.Fatalf("%d are wanted", n)
	}
	if k := <-c.Wanted(); k != fragKey(1, 1) {
		t.Fatal(k)
	}
	for i := range 2 * wantedMax {
		for range 3 {
			r.Passed(fragKey(3, i), 4096, 100)
		}
	}
	if s := c.Stats(); len(c.wanted) != wantedMax || s.WantedLost != wantedMax {
		t.Fatalf("%d are wanted; %+v", len(c.wanted), s)
	}
}
