package node

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"vstor/dataplane/api"
	"vstor/dataplane/block"
	"vstor/dataplane/errs"
	"vstor/dataplane/stat"
	"vstor/fragcache"
)

// newCached is a vDisk of 4 MiB on a node with a fragment cache, written and sealed.
func newCached(t *testing.T) *model {
	t.Helper()
	m := &model{t: t, rng: rand.New(rand.NewPCG(1, 2)), host: newMemHost(), log: io.Discard, size: 4 << 20,
		fragCache: 16 << 20}
	m.flat, m.maybe = make([]byte, m.size), make([][]byte, m.size/4096)
	m.step.Store("")
	m.start(true)
	t.Cleanup(func() {
		if err := m.n.Close(); err != nil {
			t.Error(err)
		}
	})
	for off := int64(0); off < 2<<20; off += 128 << 10 {
		o := &op{req: block.Request{Op: block.Write, Off: off, Len: 128 << 10}, data: make([]byte, 128<<10)}
		fill(o.data, m.rng)
		m.submit(o)
		o.wait()
		m.note([]*op{o})
	}
	m.d.rig.loop.Call(m.d.vol.Seal)
	m.until("all is sealed", func() bool { return m.d.vol.Stats.Queue.Load() == 0 })
	m.until("all is cached", func() bool { return m.n.frag.cache.Stats().Fragments >= 16 })
	return m
}

func (m *model) until(what string, ok func() bool) {
	m.t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			m.t.Fatalf("never: %s", what)
		}
	}
}

// again stops the node as change wants it, and starts it on what change made of the machine.
func (m *model) again(change func(*memHost)) {
	m.t.Helper()
	old, n := m.host, m.n
	m.host = old.crash(m.rng, false)
	n.Close()
	change(m.host)
	m.start(false)
}

// What was written is cached as it was written; after a kill it is still there, and serves although half of the drives
// are gone, which is more than the code can lose.
func TestFragmentCacheOutlivesDrives(t *testing.T) {
	m := newCached(t)
	m.check()
	if s := m.n.frag.cache.Stats(); s.Hits == 0 || s.Corrupt != 0 {
		t.Fatalf("%+v", s)
	}
	m.again(func(h *memHost) {
		for _, i := range []int{1, 3, 5} {
			h.hidden[m.n.drivePath(i)+"/data"] = true
		}
	})
	m.check()
	s := m.n.frag.cache.Stats()
	if s.Hits == 0 || s.Corrupt != 0 {
		t.Fatalf("%+v", s)
	}
	c := m.n.rigs[0].client.Stats()
	if c.Cached.Load() == 0 || c.CacheFailed.Load() != 0 {
		t.Fatalf("%d ranges from the cache, %d failed", c.Cached.Load(), c.CacheFailed.Load())
	}
	m.again(func(h *memHost) { clear(h.hidden) })
	m.check()
}

// Bits of the cache's file flip: what is read is right, counted as the cache's damage, fetched anew, and no fragment of
// an ASD is taken for rotten.
func TestFragmentCacheRots(t *testing.T) {
	m := newCached(t)
	want := m.n.frag.cache.Stats().Fragments
	for range 40 {
		m.flipCaches()
	}
	m.check()
	s := m.n.frag.cache.Stats()
	if s.Corrupt == 0 {
		t.Fatalf("40 times some bits were flipped, and nothing was found: %+v", s)
	}
	c := m.n.corruption()
	if c["cache"] != s.Corrupt || c["data"] != 0 || m.n.rigs[0].client.Stats().Rebuilds.Load() != 0 {
		t.Fatalf("%v; %d rebuilds", c, m.n.rigs[0].client.Stats().Rebuilds.Load())
	}
	m.until("what was dropped is back", func() bool { return m.n.frag.cache.Stats().Fragments == want })
	if n := m.n.proxy.Counters().Repaired; n != 0 {
		t.Fatalf("%d fragments were repaired", n)
	}
	m.check()
}

// A vDisk's quota and switch hold while it runs; a vDisk that goes takes its fragments along. Metrics and status say
// what there is.
func TestFragmentCacheSettings(t *testing.T) {
	ctx := context.Background()
	m := newCached(t)
	quota := int64(3 * (128<<10 + 4096))
	set := func(vdisk string, on bool, quota int64) error {
		_, err := m.n.SetVDisk(ctx, vdisk, api.VDiskSettings{Cache: &on, FragCacheQuota: &quota})
		return err
	}
	if err := set("v", true, quota); err != nil {
		t.Fatal(err)
	}
	used := func() (used int64) {
		m.n.frag.cache.EachTenant(func(x fragcache.Tenant) { used += x.Used })
		return used
	}
	if u := used(); u == 0 || u > quota {
		t.Fatalf("%d bytes used, with a quota of %d", u, quota)
	}
	var p stat.Page
	m.n.WriteMetrics(&p)
	var out bytes.Buffer
	p.WriteTo(&out)
	for _, want := range []string{"vstor_fragment_cache_fills_total ",
		"vstor_fragment_cache_vdisk_quota_bytes{vdisk=\"v\"} 405504\n",
		"vstor_fragment_cache_bypassed 0\n", "vstor_corrupt_found_total{place=\"cache\"} 0\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the metrics lack %q", want)
		}
	}
	s, err := m.n.Status(ctx)
	if err != nil || len(s.Warnings) != 0 {
		t.Fatalf("%+v %v", s, err)
	}
	if mem := m.n.memory(); !slices.ContainsFunc(mem.Pools, func(p api.Pool) bool {
		return p.Name == "fragment cache" && p.BoundBytes > 0
	}) {
		t.Fatalf("the memory sum lacks it: %+v", mem)
	}
	l, err := m.n.ListCaches(ctx)
	if err != nil || len(l) != 1 || l[0].Cache != "fragments" || l[0].QuotaBytes != quota || l[0].UsedBytes != used() {
		t.Fatalf("%+v %v", l, err)
	}
	if err := set("v", false, 0); err != nil || used() != 0 {
		t.Fatal(err, used())
	}
	if err := set("w", false, 0); errs.Of(err) != errs.Absent {
		t.Fatal(err)
	}
	m.check()
	if err := set("v", true, 0); err != nil {
		t.Fatal(err)
	}
	if err := m.n.RemoveVDisk(ctx, "v"); err != nil {
		t.Fatal(err)
	}
	m.until("it is forgotten", func() bool {
		n := 0
		m.n.frag.cache.EachTenant(func(fragcache.Tenant) { n++ })
		return n == 0
	})
}

// Another size makes the file anew; a file that does not open costs the cache alone, and the status says so; no cache
// is fine, and one that is too small is refused.
func TestFragmentCacheSizes(t *testing.T) {
	m := newCached(t)
	m.fragCache = 24 << 20
	m.again(func(*memHost) {})
	if n := m.n.frag.cache.Stats().Fragments; n != 0 || m.host.files["/d/cache/fragments"].Size() != 24<<20 {
		t.Fatalf("%d fragments in a file of %d bytes", n, m.host.files["/d/cache/fragments"].Size())
	}
	m.check()
	m.again(func(h *memHost) { h.files["/d/cache/fragments"].Mem.Close() })
	s, err := m.n.Status(context.Background())
	if err != nil || m.n.frag.cache != nil ||
		!strings.Contains(strings.Join(s.Warnings, "\n"), "fragment cache does not open") {
		t.Fatalf("%v, %v", s.Warnings, err)
	}
	m.check()
	m.fragCache = 0
	m.again(func(*memHost) {})
	if m.n.frag.cache != nil {
		t.Fatal("a cache that nobody wants")
	}
	m.check()
	m.fragCache = 1 << 20
	_, err = Start(Options{Config: m.config(), Log: m.n.log, Host: newMemHost(), Fresh: true, NoNBD: true})
	if errs.Of(err) != errs.Invalid || !strings.Contains(err.Error(), "fragment-cache is 1M") {
		t.Fatal(err)
	}
	m.fragCache = 0
}
