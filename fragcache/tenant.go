package fragcache

import (
	"maps"
	"sync/atomic"

	"vstor/dataplane/ids"
)

// QuotaDefault as a vDisk's own quota means the default of all.
const QuotaDefault = -1

// tenant is a vDisk's namespace. A clone's reads of blocks that its parent wrote count for the parent.
type tenant struct {
	ns  ids.NamespaceID
	at  uint32 // in Cache.tenants
	off atomic.Bool

	// Counted by whoever reads or fills. The connections to a vDisk live on one loop, so the lines stay there.
	hits, misses, hitBytes, fills, fillBytes, evicted atomic.Uint64

	// Guarded by Cache.mu.
	quota int64 // own
	used  int64
	frags int
	list  chain
}

// Tenant is a vDisk in the cache.
type Tenant struct {
	Namespace ids.NamespaceID
	Enabled   bool
	Quota     int64 // bytes; 0 = no limit
	OwnQuota  bool  // not the default
	Share     int64 // bytes that it may keep while all others want theirs
	Used      int64 // bytes with headers
	Fragments int

	Hits, HitBytes   uint64 // reads
	Misses           uint64
	Fills, FillBytes uint64
	Evicted          uint64 // fragments that went for room or quota
}

// tenantOf finds a vDisk; nil if nothing of it was ever here. Any goroutine, a loop too.
func (c *Cache) tenantOf(ns ids.NamespaceID) *tenant { return (*c.byNS.Load())[ns] }

// tenantMade finds a vDisk or makes it. REQUIRES: mu.
func (c *Cache) tenantMade(ns ids.NamespaceID) *tenant {
	if t := c.tenantOf(ns); t != nil {
		return t
	}
	t := &tenant{ns: ns, quota: QuotaDefault}
	for i, old := range c.tenants {
		if i > 0 && old == nil {
			t.at = uint32(i)
		}
	}
	if t.at == 0 {
		t.at = uint32(len(c.tenants))
		c.tenants = append(c.tenants, nil)
	}
	c.tenants[t.at] = t
	m := maps.Clone(*c.byNS.Load())
	m[ns] = t
	c.byNS.Store(&m)
	return t
}

// quotaOf is what a vDisk may take; 0 = no limit. REQUIRES: mu.
func (c *Cache) quotaOf(t *tenant) int64 {
	if t.quota == QuotaDefault {
		return c.quota
	}
	return t.quota
}

// enforce takes the oldest fragments of a vDisk out until it is within its quota. REQUIRES: mu.
func (c *Cache) enforce(t *tenant) {
	if q := c.quotaOf(t); q > 0 {
		c.shrink(t, q)
	}
}

// shrink takes the oldest fragments of a vDisk out until it takes at most so many bytes. REQUIRES: mu.
func (c *Cache) shrink(t *tenant, most int64) {
	for t.used > most {
		c.evict(t.list.head)
	}
}

// evict removes an entry and counts it. REQUIRES: mu.
func (c *Cache) evict(slot uint32) {
	e := &c.index.slab[slot]
	c.tenants[e.tenant].evicted.Add(1)
	c.count.evicted.Add(1)
	c.count.evictedBytes.Add(uint64(e.size()))
	c.remove(slot)
}

// SetQuota gives a vDisk a quota of its own in bytes, 0 for no limit, or QuotaDefault. It holds when the call
// returns: what exceeds it is gone. It blocks for as long as that takes in RAM; not for loops, as none of
// what follows here.
func (c *Cache) SetQuota(ns ids.NamespaceID, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.tenantMade(ns)
	t.quota = max(bytes, QuotaDefault)
	c.enforce(t)
	c.kick()
}

// SetDefaultQuota changes the quota of all vDisks without one of their own.
func (c *Cache) SetDefaultQuota(bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.quota = max(bytes, 0)
	for _, t := range c.tenants {
		if t != nil {
			c.enforce(t)
		}
	}
	c.kick()
}

// SetEnabled turns the cache on or off for a vDisk. Off, it holds nothing of it.
func (c *Cache) SetEnabled(ns ids.NamespaceID, on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.tenantMade(ns)
	t.off.Store(!on)
	if !on {
		c.shrink(t, 0)
		c.kick()
	}
}

// Drop forgets a vDisk, its fragments and its settings.
func (c *Cache) Drop(ns ids.NamespaceID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.tenantOf(ns)
	if t == nil {
		return
	}
	c.shrink(t, 0)
	m := maps.Clone(*c.byNS.Load())
	delete(m, ns)
	c.byNS.Store(&m)
	c.tenants[t.at] = nil
	c.kick()
}

// EachTenant calls f for every vDisk that is known here, outside of all locks.
func (c *Cache) EachTenant(f func(Tenant)) {
	c.mu.Lock()
	list := make([]Tenant, 0, len(c.tenants))
	shares := c.weighInto(nil)
	for i, t := range c.tenants {
		if t == nil {
			continue
		}
		list = append(list, Tenant{Namespace: t.ns, Enabled: !t.off.Load(), Quota: c.quotaOf(t), Share: shares[i],
			OwnQuota: t.quota != QuotaDefault, Used: t.used, Fragments: t.frags,
			Hits: t.hits.Load(), HitBytes: t.hitBytes.Load(), Misses: t.misses.Load(),
			Fills: t.fills.Load(), FillBytes: t.fillBytes.Load(), Evicted: t.evicted.Load()})
	}
	c.mu.Unlock()
	for _, t := range list {
		f(t)
	}
}

// weigh computes every vDisk's share of the room there is: its quota, or all of it without one, cut down in
// proportion if the vDisks that hold anything have more together. The slice is by Tenant.at. REQUIRES: mu.
func (c *Cache) weigh() []int64 {
	c.shares = c.weighInto(c.shares[:0])
	return c.shares
}

func (c *Cache) weighInto(shares []int64) []int64 {
	room := c.room() / c.sb.Segment * c.filledTo()
	var sum int64
	for _, t := range c.tenants {
		w := int64(0)
		if t != nil && t.used > 0 {
			if w = c.quotaOf(t); w == 0 || w > room {
				w = room
			}
		}
		shares = append(shares, w)
		sum += w
	}
	if sum > room {
		for i, w := range shares {
			shares[i] = int64(float64(w) * float64(room) / float64(sum))
		}
	}
	return shares
}
