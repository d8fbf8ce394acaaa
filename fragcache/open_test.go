package fragcache

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"vstor/dataplane/dio"
	"vstor/dataplane/layout"
)

func keys(ns, n int) (out []layout.FragKey) {
	for i := range n {
		out = append(out, fragKey(ns, i))
	}
	return out
}

// A clean restart keeps all, a kill what was written, in the order of age.
func TestRestart(t *testing.T) {
	for _, clean := range []bool{true, false} {
		f := dio.NewMem(8 << 20)
		c := open(t, testOptions(f))
		const n = 30
		for i := range n {
			fill(t, c, fragKey(1+i%2, i), 64<<10)
		}
		var after *dio.Mem
		if clean {
			c.Close()
			after = f.Clone()
		} else {
			after = f.Clone()
			c.Close()
		}
		c = open(t, testOptions(after))
		for i := range n {
			if !has(t, c, fragKey(1+i%2, i), 64<<10) {
				t.Fatalf("clean %v: fragment %d is gone", clean, i)
			}
		}
		check(t, c)
		c.SetQuota(1, 3*(64<<10+4096))
		for i := 0; i < n; i += 2 {
			if has(t, c, fragKey(1, i), 64<<10) != (i >= n-6) {
				t.Fatalf("clean %v: the quota does not go by age: %d", clean, i)
			}
		}
		for i := range 200 { // it goes on
			fill(t, c, fragKey(3, i), 64<<10)
		}
		check(t, c)
		c.Close()
	}
}

// Many restarts with little in between do not eat up segments.
func TestRestartsDoNotWaste(t *testing.T) {
	f := dio.NewMem(8 << 20)
	for i := range 60 {
		c := open(t, testOptions(f))
		fill(t, c, fragKey(1, i), 4096)
		check(t, c)
		if i%2 == 0 {
			f = f.Clone() // killed
		}
		c.Close()
	}
	c := open(t, testOptions(f))
	defer c.Close()
	for i := range 60 {
		if !has(t, c, fragKey(1, i), 4096) {
			t.Fatalf("fragment %d is gone", i)
		}
	}
	if c.sealed.n > 4 { // a segment is written on while the longest fragment fits
		t.Fatalf("60 fragments of 4 KiB take %d segments", c.sealed.n)
	}
}

// Power is lost: whatever comes back, nothing reads as anything but what it is.
func TestPowerLoss(t *testing.T) {
	kept := 0
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		f := dio.NewMem(4 << 20)
		o := testOptions(f)
		o.SegmentBytes = 1
		c := open(t, o)
		n := 20 + rng.IntN(100)
		for i := range n {
			fill(t, c, fragKey(1, i), 4096*(1+rng.IntN(32)))
		}
		after := f.CrashClone(rng, dio.CrashOptions{Lose: 1 + rng.IntN(30)})
		c.Close()
		o.File = after
		c = open(t, o)
		rng = rand.New(rand.NewPCG(seed, 1))
		rng.IntN(100)
		for i := range n {
			if has(t, c, fragKey(1, i), 4096*(1+rng.IntN(32))) {
				kept++
			}
		}
		check(t, c)
		c.Close()
	}
	if kept == 0 {
		t.Fatal("nothing ever survived: the test shows nothing")
	}
}

// Another deployment's file, one that was made for another size, or rubbish, is made anew.
func TestForeignFile(t *testing.T) {
	f := dio.NewMem(8 << 20)
	c := open(t, testOptions(f))
	fill(t, c, fragKey(1, 1), 8192)
	c.Close()
	o := testOptions(f)
	o.Deployment[0]++
	c = open(t, o)
	if has(t, c, fragKey(1, 1), 8192) || c.Stats().Fragments != 0 {
		t.Fatal("another deployment's fragment")
	}
	fill(t, c, fragKey(1, 2), 8192)
	c.Close()
	c = open(t, testOptions(f))
	if c.Stats().Fragments != 0 {
		t.Fatal("headers of an earlier format are taken")
	}
	fill(t, c, fragKey(1, 3), 8192)
	c.Close()
	for _, off := range []int64{superA, superB} { // one superblock is enough, none is a fresh start
		flip(t, f, off+60)
		c = open(t, testOptions(f))
		want := 1
		if off == superB && c.sb.Incarnation == 1 {
			want = 0
		}
		if n := c.Stats().Fragments; n != want {
			t.Fatalf("flip at %d, incarnation %d: %d fragments", off, c.sb.Incarnation, n)
		}
		c.Close()
	}
	o = testOptions(f)
	o.MaxFragment = 2 * testFrag // fits the segments that are there
	c = open(t, o)
	fill(t, c, fragKey(1, 4), 2*testFrag)
	c.Close()
	o.MaxFragment = 5 * testFrag // does not
	c = open(t, o)
	if c.Stats().Fragments != 0 {
		t.Fatal("segments that are too short for the fragments")
	}
	fill(t, c, fragKey(1, 5), 5*testFrag)
	c.Close()
}

// A footer of an earlier lap does not speak for what was written over it.
func TestOldFooter(t *testing.T) {
	f := dio.NewMem(8 << 20)
	c := open(t, testOptions(f))
	for i := range 100 {
		fill(t, c, fragKey(1, i), testFrag)
	}
	after := f.Clone() // killed: the open segment has the footer of its last lap
	c.mu.Lock()
	open1, n := c.open, 0
	if open1 >= 0 {
		n = c.segs[open1].written
	}
	c.mu.Unlock()
	if n == 0 {
		t.Fatal("no segment is open: the test shows nothing")
	}
	before := c.Stats()
	c.Close()
	c = open(t, testOptions(after))
	defer c.Close()
	if s := c.Stats(); s.Fragments > before.Fragments+8 || s.Fragments < before.Fragments {
		t.Fatalf("%d fragments before the kill, %d after", before.Fragments, s.Fragments)
	}
	for i := range 100 {
		has(t, c, fragKey(1, i), testFrag)
	}
	if s := c.Stats(); s.Corrupt != 0 {
		t.Fatalf("%d entries were not what the index says", s.Corrupt)
	}
}

func TestDump(t *testing.T) {
	f := dio.NewMem(8 << 20)
	var out bytes.Buffer
	if err := Dump(&out, f); err == nil {
		t.Fatal("rubbish was printed")
	}
	c := open(t, testOptions(f))
	fill(t, c, fragKey(77, 1), 8192)
	must(t, Dump(&out, f))
	c.Close()
	must(t, Dump(&out, f))
	if n := strings.Count(out.String(), "fragment 77/2/2/1/1.0, 8192 bytes"); n != 2 {
		t.Fatal(out.String())
	}
}
