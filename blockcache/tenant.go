package blockcache

import (
	"slices"

	"vstor/blockcache/policy"
	"vstor/dataplane/ids"
	"vstor/dataplane/invariants"
	"vstor/dataplane/stat"
)

// Unlimited is a quota that bounds nothing.
const Unlimited = policy.Unlimited

// Quota is what a vDisk may have of each tier, in bytes. 0 is nothing. The sum over vDisks may exceed a tier.
type Quota struct {
	RAM, SSD int64
}

// Tenant is a vDisk's account in one Cache. It belongs to the Cache's loop.
type Tenant struct {
	c        *Cache
	id       ids.VolumeID
	quota    Quota
	off      bool
	ram, ssd policy.Account
	busy     int // fetches under way
	leaving  bool

	// Ahead finds the vDisk's sequential streams. The edge asks it.
	Ahead ReadAhead
	Stats TenantStats
}

// TenantStats counts what a vDisk did here, in blocks of 4 KiB. The loop writes, anyone reads. The hit ratio of a tier
// is hits / (hits + misses) over any span of time; what is read ahead counts in neither.
type TenantStats struct {
	RAM, SSD TierStats
	Merged   stat.Counter // misses that waited for another's read
	Bypassed stat.Counter // blocks that the SSD has and that were read from the backend
	Ahead    stat.Counter // blocks read ahead
}

// TierStats are those of one tier.
type TierStats struct {
	Hits, Misses stat.Counter
	Size         stat.Gauge // bytes of the whole tier
	Quota        stat.Gauge // bytes; MaxInt64 = unlimited
	Share        stat.Gauge // bytes it has a right to while all want theirs
	Used         stat.Gauge // bytes
}

// Stats are the Cache's own.
type Stats struct {
	Evicted       stat.Counter // entries that left RAM
	Shed          stat.Counter // entries that left because the loop ran short of pages
	Starved       stat.Counter // fills that did not happen for lack of free pages
	Mismatches    stat.Counter // blocks cached under another checksum than the reader's: dropped
	Rotten        stat.Counter // blocks of the SSD that failed their checksum: dropped
	Errors        stat.Counter // reads of the SSD that failed
	Late          stat.Counter // reads of the SSD given up on, the backend was asked
	QueueFull     stat.Counter // reads that went to the backend because too many of the SSD were under way
	Probes        stat.Counter // reads that went the slower way, to see whether it still is
	WritesSkipped stat.Counter // entries not written to the SSD because it was slow
	Slow          stat.Gauge   // 1 while the SSD is bypassed
	RAMUsed       stat.Gauge   // bytes
	RAMEntries    stat.Gauge
	SSDUsed       stat.Gauge // bytes
	SSDEntries    stat.Gauge
}

// Open makes a vDisk's account, or finds what it left here. off switches the cache off for it.
func (c *Cache) Open(id ids.VolumeID, q Quota, off bool) *Tenant {
	if i := slices.IndexFunc(c.tenants, func(t *Tenant) bool { return t.id == id }); i >= 0 {
		t := c.tenants[i]
		if !t.leaving {
			invariants.Fail("blockcache: vDisk %d is opened twice", id)
		}
		t.leaving, t.quota, t.off = false, q, off // it is back before its last fetch has ended
		t.apply()
		return t
	}
	t := &Tenant{c: c, id: id, quota: q, off: off}
	q = t.bound()
	t.ram = c.pol.Open(id, q.RAM)
	if c.tier != nil {
		t.ssd = c.tier.Policy().Open(id, q.SSD)
	}
	c.tenants = append(c.tenants, t)
	c.enforce(t)
	c.changed()
	return t
}

// bound is the quota that holds.
func (t *Tenant) bound() Quota {
	if t.off {
		return Quota{}
	}
	return t.quota
}

// Quota is what SetQuota or Open said.
func (t *Tenant) Quota() Quota { return t.quota }

// SetQuota changes what the vDisk may have. What is too much goes at once, in steps of a bounded number of entries a
// pass, and until it is gone the vDisk keeps nothing new that it does not make room for itself.
func (t *Tenant) SetQuota(q Quota) {
	t.quota = q
	t.apply()
}

// SetOff switches the cache off and on for the vDisk. Off, it drops what it has.
func (t *Tenant) SetOff(off bool) {
	t.off = off
	t.apply()
}

func (t *Tenant) apply() {
	q := t.bound()
	t.c.pol.SetQuota(t.ram, q.RAM)
	if t.c.tier != nil {
		t.c.tier.Policy().SetQuota(t.ssd, q.SSD)
	}
	t.c.enforce(t)
	t.c.changed()
}

// Close says that the vDisk goes, and no Fetch of it comes any more. It is gone once the last one that is under way has
// ended. What it has stays until others want the place, or it comes back.
func (t *Tenant) Close() {
	t.leaving = true
	t.leave()
}

// leave ends the account when it is time.
func (t *Tenant) leave() {
	c := t.c
	if !t.leaving || t.busy > 0 {
		return
	}
	c.pol.Close(t.ram)
	if c.tier != nil {
		c.tier.Policy().Close(t.ssd)
	}
	same := func(o *Tenant) bool { return o == t }
	c.tenants = slices.DeleteFunc(c.tenants, same)
	c.trimming = slices.DeleteFunc(c.trimming, same)
	c.changed()
	c.finishClose()
}

// trimEntries is how many entries of a tier leave in one step: a hundred microseconds or two.
const trimEntries = 256

// enforce brings a tenant below its quota, the first step of it now.
func (c *Cache) enforce(t *Tenant) {
	if !c.trimStep(t) && !slices.Contains(c.trimming, t) {
		c.trimming = append(c.trimming, t)
		c.loop.After(&c.trim, 0)
	}
}

func (c *Cache) trimStep(t *Tenant) bool {
	done := c.pol.Trim(t.ram, trimEntries)
	if c.tier != nil && !c.tier.Policy().Trim(t.ssd, trimEntries) {
		done = false
	}
	return done
}

// trimSome goes on with those that are above their quota.
func (c *Cache) trimSome() {
	c.trimming = slices.DeleteFunc(c.trimming, c.trimStep)
	if len(c.trimming) > 0 {
		c.loop.After(&c.trim, 0)
	}
}

// Publish sets all gauges. It happens by itself, a tenth of a second after a change.
func (c *Cache) Publish() {
	s := &c.Stats
	s.RAMUsed.Set(c.pol.Used())
	s.RAMEntries.Set(int64(c.pol.Count()))
	s.Slow.Set(0)
	if c.tier != nil {
		s.SSDUsed.Set(c.tier.Policy().Used())
		s.SSDEntries.Set(int64(c.tier.Policy().Count()))
		if c.gate.slow(c.now()) {
			s.Slow.Set(1)
		}
	}
	for _, t := range c.tenants {
		t.Stats.RAM.set(c.pol, t.ram)
		if c.tier != nil {
			t.Stats.SSD.set(c.tier.Policy(), t.ssd)
		}
	}
}

func (s *TierStats) set(p *policy.Policy, a policy.Account) {
	s.Size.Set(p.Bytes())
	s.Quota.Set(p.Quota(a))
	s.Share.Set(p.Share(a))
	s.Used.Set(p.AccountUsed(a))
}
