package fragcache

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m, nil) }

const testFrag = 128 << 10

// testOptions has no minder to speak of: on a busy day it would take a test that holds a pin for a file that hangs.
func testOptions(f dio.File) Options {
	return Options{File: f, Deployment: [16]byte{7}, MaxFragment: testFrag, SegmentBytes: 4 * (testFrag + 4096),
		BufferBytes: 4 * (testFrag + 4096), Tick: time.Hour}
}

func open(t testing.TB, o Options) *Cache {
	t.Helper()
	c, err := New(o)
	must(t, err)
	return c
}

func fragKey(ns, n int) layout.FragKey {
	return layout.FragKey{Namespace: ids.NamespaceID(ns), SCO: ids.SCONum(n + 1), Put: ids.PutID(n + 1),
		Chunk: uint16(n % 3), Frag: uint8(n % 4)}
}

// content is what a fragment holds: it follows from the key.
func content(key layout.FragKey, n int) []byte {
	b := make([]byte, n)
	rng := rand.New(rand.NewPCG(uint64(key.Namespace)<<32|uint64(key.SCO), uint64(key.Put)))
	for i := 0; i < n; i += 8 {
		copy(b[i:], le64(rng.Uint64()))
	}
	return b
}

func sumOf(b []byte) uint64 {
	var sums []uint64
	for ; len(b) > 0; b = b[min(len(b), layout.RegionSize):] {
		sums = append(sums, xxhash.Sum64(b[:min(len(b), layout.RegionSize)]))
	}
	return layout.FragSum(sums)
}

// offer fills a fragment; false if it was not taken.
func offer(c *Cache, key layout.FragKey, b []byte) bool {
	p := c.Room(key, len(b))
	if p == nil {
		return false
	}
	copy(p.Buf[layout.FragHeaderSize:], b)
	for i := range p.Sums {
		at := i * layout.RegionSize
		p.Sums[i] = xxhash.Sum64(b[at:min(len(b), at+layout.RegionSize)])
	}
	c.Fill(p, true)
	return true
}

// settle waits until the writer has nothing to do: all rooms are back, and it has looked around.
func settle(t testing.TB, c *Cache) {
	t.Helper()
	var out []*room
	for range c.rooms {
		out = append(out, <-c.idle)
	}
	for _, r := range out {
		c.idle <- r
	}
	c.mu.Lock() // the writer gives a room back before it tidies
	defer c.mu.Unlock()
}

// fill is offer for tests that need it to be there.
func fill(t testing.TB, c *Cache, key layout.FragKey, n int) []byte {
	t.Helper()
	b := content(key, n)
	for !offer(c, key, b) {
		if c.index.find(packKey(key)) != 0 {
			t.Fatalf("%v is here already", key)
		}
		settle(t, c)
	}
	settle(t, c)
	return b
}

// get reads a whole fragment by Get.
func get(c *Cache, key layout.FragKey, want []byte) (found, right bool) {
	got := make([]byte, len(want))
	if !c.Get(context.Background(), key, sumOf(want), 0, got) {
		return false, true
	}
	return true, bytes.Equal(got, want)
}

// has reports whether a fragment can be read, and fails the test if it reads as anything but what it is.
func has(t testing.TB, c *Cache, key layout.FragKey, n int) bool {
	t.Helper()
	found, right := get(c, key, content(key, n))
	if !right {
		t.Fatalf("%v reads as something else", key)
	}
	return found
}

// locate reads a range as PRACC does, and says how it went.
func locate(t testing.TB, r *Reader, key layout.FragKey, off, n int) ([]byte, errs.Kind) {
	t.Helper()
	exts, pin, kind := r.Locate(key, uint32(off), uint32(n), nil)
	if kind != errs.OK {
		return nil, kind
	}
	if len(exts) != 1 || int(exts[0].Len) != n {
		t.Fatalf("%v: %d bytes at %d: %v", key, n, off, exts)
	}
	b, err := dio.AlignedBuf(n)
	must(t, err)
	defer dio.FreeBuf(b)
	err = r.File().ReadAt(b, exts[0].Off)
	r.Unpin(pin)
	if err != nil {
		r.Served(key, uint32(n), 1, errs.IO)
		return nil, errs.IO
	}
	return bytes.Clone(b), errs.OK
}

// eventually waits for what another goroutine is about to do.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// check looks at everything that must hold between calls.
func check(t testing.TB, c *Cache) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
again:
	c.bury()
	live, used, frags, count := make([]int64, len(c.segs)), map[uint32]int64{}, map[uint32]int{}, 0
	for i := range c.index.parts {
		p := &c.index.parts[i]
		p.mu.Lock()
		for k, slot := range p.slots {
			e := &c.index.slab[slot]
			if e.key != k || c.tenants[e.tenant] == nil || c.tenants[e.tenant].ns != k.namespace() {
				t.Errorf("slot %d is not what its key says", slot)
			}
			live[e.seg] += e.size()
			used[e.tenant] += e.size()
			frags[e.tenant]++
			count++
			if end := int64(e.block)<<blockShift + e.size(); end > c.segs[e.seg].end {
				t.Errorf("%v ends at %d, its segment at %d", k.unpack(), end, c.segs[e.seg].end)
			}
		}
		p.mu.Unlock()
	}
	if c.index.deads.Load() > 0 {
		goto again // somebody found one that is no good meanwhile
	}
	if count != c.index.count {
		t.Errorf("%d entries are found, %d are there", count, c.index.count)
	}
	states := map[segState]int{}
	for i := range c.segs {
		s := &c.segs[i]
		states[s.state]++
		if s.live != live[i] || s.live > 0 && s.state != segOpen && s.state != segSealed || s.pins.Load() != 0 {
			t.Errorf("segment %d in state %d has %d bytes alive, entries %d; %d pins", i, s.state, s.live, live[i],
				s.pins.Load())
		}
	}
	if states[segFree] != len(c.free) || states[segDraining] != len(c.draining) || states[segSealed] != c.sealed.n ||
		states[segOpen] > 1 {
		t.Errorf("segments by state: %v; free %d draining %d in line %d", states, len(c.free), len(c.draining), c.sealed.n)
	}
	for at, tn := range c.tenants {
		if tn == nil {
			continue
		}
		if tn.used != used[uint32(at)] || tn.frags != frags[uint32(at)] {
			t.Errorf("namespace %d uses %d bytes in %d fragments, entries %d in %d", tn.ns, tn.used, tn.frags,
				used[uint32(at)], frags[uint32(at)])
		}
		if q := c.quotaOf(tn); q > 0 && tn.used > q {
			t.Errorf("namespace %d uses %d bytes of %d", tn.ns, tn.used, q)
		}
		if tn.off.Load() && tn.frags > 0 {
			t.Errorf("namespace %d is off and has %d fragments", tn.ns, tn.frags)
		}
	}
}
