package blockcache

import (
	"math/bits"
	"time"

	"vstor/blockcache/policy"
	"vstor/blockcache/ssd"
	"vstor/dataplane/buf"
	"vstor/dataplane/ids"
	"vstor/dataplane/invariants"
	"vstor/dataplane/ring"
)

// Cache is the block cache of one loop. See the package comment.
type Cache struct {
	loop  *ring.Loop
	pool  *buf.Pool
	below Fetcher
	tier  *ssd.Tier
	opts  Options
	now   func() int64
	shift uint // log2 of the parts of a cache block
	Stats Stats

	// RAM, by entry of the policy.
	pol   *policy.Policy
	valid []uint64 // parts that are there
	slots []slot   // by entry and part

	door     door
	gate     gate
	shedding bool // what is evicted goes nowhere

	flight   flight
	freeX    *fetch
	freeRun  *run
	reading  runList // reads of the SSD that are waited for, oldest first
	failures int     // reads of the SSD that failed, in a row
	ssdReads int     // reads of the SSD under way, late ones too
	late     ring.Timer

	tenants  []*Tenant
	trimming []*Tenant
	trim     ring.Timer
	publish  ring.Timer
	closed   func()
}

// slot is a part in RAM.
type slot struct {
	page buf.Page
	sum  uint32
}

// New makes an empty RAM tier in front of o.Below. Call it on the loop, like everything else here.
func New(l *ring.Loop, o Options) (*Cache, error) {
	o.ensureDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	c := &Cache{loop: l, pool: l.Pool(), below: o.Below, tier: o.SSD, opts: o, now: o.Now,
		shift: uint(bits.TrailingZeros(uint(o.parts())))}
	if c.now == nil {
		c.now = l.Now
	}
	c.late.Fire, c.trim.Fire, c.publish.Fire = c.checkLate, c.trimSome, c.Publish
	if err := c.makeTables(); err != nil {
		c.freeTables()
		return nil, err
	}
	if c.tier != nil {
		if err := c.tier.Attach(l); err != nil {
			c.freeTables()
			return nil, err
		}
	}
	c.Publish()
	return c, nil
}

func (c *Cache) makeTables() error {
	n := c.opts.entries()
	pol, err := policy.New(policy.Options{Bytes: c.opts.RAMBytes, Entries: n, Owner: c})
	if err != nil {
		return err
	}
	c.pol = pol
	if c.valid, err = policy.NewTable[uint64](n + 1); err != nil {
		return err
	}
	if c.slots, err = policy.NewTable[slot]((n + 1) << c.shift); err != nil {
		return err
	}
	if c.tier != nil {
		words, err := policy.NewTable[uint64](int(c.opts.doorBytes(c.tier.Bytes()) / 8))
		if err != nil {
			return err
		}
		c.door = makeDoor(words)
	}
	return nil
}

func (c *Cache) freeTables() {
	if c.pol != nil {
		c.pol.Free()
	}
	policy.FreeTable(c.valid)
	policy.FreeTable(c.slots)
	policy.FreeTable(c.door.words)
	c.valid, c.slots, c.door.words = nil, nil, nil
}

// key names the cache block that holds block off of an object, and says which part of it that is.
func (c *Cache) key(ns ids.NamespaceID, sco ids.SCONum, off uint32) (policy.Key, int) {
	return policy.Key{NS: ns, SCO: sco, Block: off >> c.shift}, int(off & (1<<c.shift - 1))
}

func (c *Cache) slot(e policy.Entry, part int) *slot { return &c.slots[int(e)<<c.shift+part] }

// partsMask is n bits from part on.
func partsMask(part, n int) uint64 { return ^uint64(0) >> (64 - n) << part }

// Evicted is the policy's: an entry leaves RAM. Its pages go to the SSD if that is worth it, and back to the pool.
func (c *Cache) Evicted(e policy.Entry, proven bool) {
	c.Stats.Evicted.Inc()
	k := c.pol.Key(e)
	keep := c.worthKeeping(k, proven)
	acct := policy.Account(0)
	if keep {
		acct = c.tier.Policy().Departed(c.pol.ID(c.pol.AccountOf(e)))
	}
	for m := c.valid[e]; m != 0; m &= m - 1 {
		part := bits.TrailingZeros64(m)
		s := c.slot(e, part)
		if keep {
			c.tier.Append(acct, k, part, s.page, s.sum)
		}
		c.pool.Release(s.page)
	}
	c.valid[e] = 0
	if keep {
		c.tier.Policy().Retire(acct)
	}
	c.changed()
}

func (c *Cache) worthKeeping(k policy.Key, proven bool) bool {
	if c.tier == nil || c.shedding || !c.tier.Usable() {
		return false
	}
	// Ask the door in any case: it is to remember.
	if again := c.door.pass(k.Hash()); !again && !proven {
		return false
	}
	if c.gate.slow(c.now()) {
		c.Stats.WritesSkipped.Inc()
		return false
	}
	return true
}

// drop takes one part out of RAM.
func (c *Cache) drop(e policy.Entry, part int) {
	c.pool.Release(c.slot(e, part).page)
	if c.valid[e] &^= 1 << part; c.valid[e] == 0 {
		c.pol.Remove(e)
		return
	}
	c.pol.Lose(e, ids.BlockSize)
}

// Shrink gives pages back to the pool at once, n of them if there are as many that nobody else holds. It returns
// how many came free. What it evicts is not written to the SSD, which would keep the pages.
func (c *Cache) Shrink(n int) int {
	before := c.pool.Free()
	c.shedding = true
	for c.pool.Free()-before < n && c.pol.Evict() {
		c.Stats.Shed.Inc()
	}
	c.shedding = false
	return c.pool.Free() - before
}

// changed has the gauges told soon.
func (c *Cache) changed() {
	if !c.publish.Armed() && c.closed == nil {
		c.loop.After(&c.publish, publishEvery)
	}
}

const publishEvery = 100 * time.Millisecond

// Close ends the use of the cache and tells done: what waits for the SSD is written, all pages are given back. All
// tenants are closed; those that still have a Fetch under way are waited for. What is on the SSD stays for the next
// start.
func (c *Cache) Close(done func()) {
	for _, t := range c.tenants {
		invariants.Assert(t.leaving, "blockcache: vDisk %d is open", t.id)
	}
	c.closed = done
	c.finishClose()
}

func (c *Cache) finishClose() {
	if c.closed != nil && c.ssdReads == 0 && len(c.tenants) == 0 {
		c.end()
	}
}

// end is the rest of Close, once no read of the SSD is under way.
func (c *Cache) end() {
	for _, t := range [3]*ring.Timer{&c.late, &c.trim, &c.publish} {
		c.loop.StopTimer(t)
	}
	c.shedding = true
	for c.pol.Evict() {
	}
	c.freeTables()
	if c.tier == nil {
		c.closed()
		return
	}
	c.tier.Close(c.closed)
}
