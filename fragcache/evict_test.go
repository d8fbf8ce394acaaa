package fragcache

import (
	"fmt"
	"testing"

	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
)

// Many times the cache's size goes through it: no fill is dropped for want of space, what came last is here, and
// memory stays where it is.
func TestEvictionKeepsUp(t *testing.T) {
	for _, n := range []int{testFrag, 68 << 10, 4096} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			o := testOptions(dio.NewMem(8 << 20))
			c := open(t, o)
			defer c.Close()
			slab := len(c.index.slab)
			count := 10 * (8 << 20) / (n + 4096)
			if raceEnabled {
				count /= 4
			}
			for i := range count {
				fill(t, c, fragKey(1, i), n)
			}
			s := c.Stats()
			if s.DroppedFull != 0 || s.Fills != uint64(count) || s.WriteErrors != 0 {
				t.Fatalf("%+v", s)
			}
			if s.Refiled != 0 {
				t.Fatalf("%d fragments that nobody reads were filed again", s.Refiled)
			}
			if c.Stats().Used < s.Size/8*7 || len(c.index.slab) != slab {
				t.Fatalf("%d bytes of %d are used", s.Used, s.Size)
			}
			for i := count - int(s.Size/2/int64(n+4096)); i < count; i++ {
				if !has(t, c, fragKey(1, i), n) {
					t.Fatalf("fragment %d of %d is gone, with a cache of %d", i, count, s.Size)
				}
			}
			if has(t, c, fragKey(1, 0), n) {
				t.Fatal("the first one is still here")
			}
			check(t, c)
		})
	}
}

// The index has no entry left: the oldest go.
func TestIndexIsBounded(t *testing.T) {
	o := testOptions(dio.NewMem(8 << 20))
	o.EntriesMax = 200
	c := open(t, o)
	defer c.Close()
	for i := range 1000 {
		fill(t, c, fragKey(1, i), 4096)
		if n := c.Stats().Fragments; n > 200 {
			t.Fatalf("%d fragments", n)
		}
	}
	if !has(t, c, fragKey(1, 999), 4096) && !has(t, c, fragKey(1, 998), 4096) {
		t.Fatal("the last ones are not here")
	}
	check(t, c)
}

// What is read stays, by the second chance, while what is not flows by.
func TestSecondChance(t *testing.T) {
	c := open(t, testOptions(dio.NewMem(8<<20)))
	defer c.Close()
	const hot = 4
	for i := range hot {
		fill(t, c, fragKey(1, i), 64<<10)
	}
	for i := range 300 {
		fill(t, c, fragKey(1, 100+i), 64<<10)
		for h := range hot {
			if !has(t, c, fragKey(1, h), 64<<10) {
				t.Fatalf("fragment %d, which is read all the time, is gone after %d others", h, i)
			}
		}
	}
	if s := c.Stats(); s.Refiled == 0 || s.Refiled > s.Fills {
		t.Fatalf("%+v", s)
	}
	check(t, c)
}

// Everything is read all the time: the price of second chances stays bounded, and eviction goes on.
func TestSecondChanceIsBounded(t *testing.T) {
	c := open(t, testOptions(dio.NewMem(8<<20)))
	defer c.Close()
	for i := range 300 {
		fill(t, c, fragKey(1, i), testFrag)
		for j := max(0, i-60); j <= i; j += 3 {
			has(t, c, fragKey(1, j), testFrag)
		}
	}
	s := c.Stats()
	if s.DroppedFull != 0 || s.Fills != 300 || s.Refiled > s.Fills || s.PassedOver == 0 {
		t.Fatalf("%+v", s)
	}
	check(t, c)
}

// A pin keeps a segment's bytes through any amount of eviction, and not for ever.
func TestPinsKeepBytes(t *testing.T) {
	c := open(t, testOptions(dio.NewMem(8<<20)))
	defer c.Close()
	r := c.NewReader()
	key := fragKey(1, 0)
	want := fill(t, c, key, testFrag)
	exts, pin, kind := r.Locate(key, 0, testFrag, nil)
	if kind != errs.OK {
		t.Fatal(kind)
	}
	for i := range 300 {
		fill(t, c, fragKey(1, 1+i), testFrag)
	}
	if has(t, c, key, testFrag) {
		t.Fatal("the fragment was not evicted: the test shows nothing")
	}
	b, err := dio.AlignedBuf(testFrag)
	must(t, err)
	defer dio.FreeBuf(b)
	must(t, r.File().ReadAt(b, exts[0].Off))
	if string(b) != string(want) {
		t.Fatal("the bytes changed under a pin")
	}
	r.Unpin(pin)
	for i := range 100 {
		fill(t, c, fragKey(1, 1000+i), testFrag)
	}
	if len(c.draining) != 0 {
		t.Fatal("the segment never came back")
	}
	check(t, c)
}

func tenantOf(t testing.TB, c *Cache, ns int) (out Tenant) {
	t.Helper()
	c.EachTenant(func(x Tenant) {
		if int(x.Namespace) == ns {
			out = x
		}
	})
	return out
}

// A quota holds at every moment, for its vDisk alone, and the oldest go.
func TestQuota(t *testing.T) {
	o := testOptions(dio.NewMem(8 << 20))
	o.Quota = 10 * (64<<10 + 4096)
	c := open(t, o)
	defer c.Close()
	for i := range 40 {
		fill(t, c, fragKey(1, i), 64<<10)
		if i < 20 {
			fill(t, c, fragKey(2, i), 64<<10)
		}
		check(t, c)
	}
	for i := range 40 {
		if has(t, c, fragKey(1, i), 64<<10) != (i >= 30) {
			t.Fatalf("fragment %d of 40, with a quota of 10", i)
		}
	}
	c.SetQuota(1, 3*(64<<10+4096)) // a smaller one, at once
	if x := tenantOf(t, c, 1); x.Fragments != 3 || !x.OwnQuota || x.Evicted != 37 {
		t.Fatalf("%+v", x)
	}
	if !has(t, c, fragKey(1, 39), 64<<10) || tenantOf(t, c, 2).Fragments != 10 {
		t.Fatal("the youngest are gone, or another's")
	}
	c.SetQuota(1, QuotaDefault)
	c.SetDefaultQuota(5 * (64<<10 + 4096))
	if x := tenantOf(t, c, 2); x.Fragments != 5 || x.OwnQuota {
		t.Fatalf("%+v", x)
	}
	c.SetQuota(1, 4096) // less than any fragment
	if offer(c, fragKey(1, 100), content(fragKey(1, 100), 4096)) {
		settle(t, c)
	}
	if x := tenantOf(t, c, 1); x.Fragments != 0 || has(t, c, fragKey(1, 100), 4096) {
		t.Fatalf("%+v", x)
	}
	c.SetQuota(1, 0)
	for i := range 20 {
		fill(t, c, fragKey(1, 200+i), 64<<10)
	}
	if x := tenantOf(t, c, 1); x.Fragments != 20 {
		t.Fatalf("%+v", x)
	}
	check(t, c)
}

// Quotas that leave nearly all of the file dead do not stop fills: what is dead comes back.
func TestDeadSpaceComesBack(t *testing.T) {
	o := testOptions(dio.NewMem(8 << 20))
	o.Quota = 2 * (testFrag + 4096)
	c := open(t, o)
	defer c.Close()
	for i := range 400 {
		fill(t, c, fragKey(1+i%3, i), testFrag)
	}
	if s := c.Stats(); s.DroppedFull != 0 || s.Fragments != 6 {
		t.Fatalf("%+v", s)
	}
	check(t, c)
}

// Quotas are promised twice over. One vDisk streams, two others sit within their shares and are not even read:
// they keep what they have.
func TestSharesDecide(t *testing.T) {
	c := open(t, testOptions(dio.NewMem(16<<20)))
	defer c.Close()
	size := c.Stats().Size
	for ns := 1; ns <= 3; ns++ {
		c.SetQuota(fragKey(ns, 0).Namespace, size)
	}
	quiet := int(size/4) / (testFrag + 4096) // below a third, which is their share
	for i := range quiet {
		fill(t, c, fragKey(2, i), testFrag)
		fill(t, c, fragKey(3, i), testFrag)
		fill(t, c, fragKey(1, i), testFrag) // mixed into the same segments
	}
	for i := range 1000 {
		fill(t, c, fragKey(1, 1000+i), testFrag)
	}
	for ns := 2; ns <= 3; ns++ {
		if x := tenantOf(t, c, ns); x.Fragments < quiet*3/4 {
			t.Errorf("namespace %d has %d of %d fragments left", ns, x.Fragments, quiet)
		}
	}
	s := c.Stats()
	if x := tenantOf(t, c, 1); x.Used < size/3 {
		t.Errorf("who streams has %d bytes of %d", x.Used, size)
	}
	if s.DroppedFull != 0 || s.Fills != uint64(1000+3*quiet) {
		t.Errorf("%+v", s)
	}
	t.Logf("of %d fragments each: %d and %d; filed again %d, passed over %d", quiet, tenantOf(t, c, 2).Fragments,
		tenantOf(t, c, 3).Fragments, s.Refiled, s.PassedOver)
	check(t, c)
}

func TestEnabledDropForget(t *testing.T) {
	c := open(t, testOptions(dio.NewMem(8<<20)))
	defer c.Close()
	for i := range 10 {
		fill(t, c, fragKey(1, i), 8192)
		fill(t, c, fragKey(2, i), 8192)
	}
	c.SetEnabled(1, false)
	if x := tenantOf(t, c, 1); x.Enabled || x.Fragments != 0 || offer(c, fragKey(1, 20), content(fragKey(1, 20), 4096)) {
		t.Fatalf("%+v", x)
	}
	r := c.NewReader()
	if _, kind := locate(t, r, fragKey(1, 1), 0, 4096); kind != errs.Absent {
		t.Fatal(kind)
	}
	c.SetEnabled(1, true)
	fill(t, c, fragKey(1, 20), 8192)
	c.Forget(append(keys(2, 3), fragKey(9, 9)))
	for i := range 10 {
		if has(t, c, fragKey(2, i), 8192) != (i >= 3) {
			t.Fatalf("fragment %d", i)
		}
	}
	c.SetQuota(2, 1<<20)
	c.Drop(2)
	c.Drop(2)
	if x := tenantOf(t, c, 2); x.Namespace != 0 || has(t, c, fragKey(2, 5), 8192) || !has(t, c, fragKey(1, 20), 8192) {
		t.Fatalf("%+v", x)
	}
	fill(t, c, fragKey(3, 1), 8192) // takes the place of the one that went
	if x := tenantOf(t, c, 3); x.Fragments != 1 || x.OwnQuota {
		t.Fatalf("%+v", x)
	}
	check(t, c)
}
