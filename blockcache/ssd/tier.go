package ssd

import (
	"math/bits"

	"vstor/blockcache/policy"
	"vstor/dataplane/buf"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/ring"
	"vstor/dataplane/stat"
)

// Slot is the place of a block: the n-th of all blocks of all regions.
type Slot uint32

// Stats counts what a Tier did. The loop writes, anyone reads.
type Stats struct {
	WrittenBytes stat.Counter // wear: all bytes that went to the drive
	Written      stat.Counter // regions
	Stored       stat.Counter // blocks
	Refused      stat.Counter // blocks that were not kept: both regions full, quota, index
	Washed       stat.Counter // blocks lost because their region was overwritten, not by policy
	WriteErrors  stat.Counter
	Recovered    stat.Counter // blocks found by Open
	Failed       stat.Gauge   // 1 once the drive failed so often that it is left alone
}

// Tier is an open cache file. See the package comment.
type Tier struct {
	f     dio.File
	opts  Options
	shape shape
	pol   *policy.Policy
	Stats Stats

	mask  []uint64 // by entry: the parts it has
	place []uint32 // by entry and part: the Slot
	owner []uint32 // by Slot: the entry, 0 = a hole

	incarnation uint64
	seq         uint64   // of the last region written
	seqs        []uint64 // by region: what was written there, 0 = nothing, or it is being overwritten
	live        []uint32 // by region: blocks that are not holes
	hand        int      // where the search for holes goes on

	// On the loop.
	loop   *ring.Loop
	pool   *buf.Pool
	fill   *staging
	flying *staging // nil = none is being written
	spare  *staging
	op     ring.Op
	out    buf.Vec
	fails  int // writes in a row
	closed func()
}

// staging is a region that fills or is being written.
type staging struct {
	region int // -1: none chosen yet
	n      int
	pages  []buf.Page
	sums   []uint32
	hdr    buf.Vec
}

// failsMax is how many writes in a row fail before the drive is left alone.
const failsMax = 4

// Attach gives the Tier to a loop. It takes a few pages of the loop's pool for headers. Loop only, like all below.
func (t *Tier) Attach(l *ring.Loop) error {
	t.loop, t.pool = l, l.Pool()
	t.op.Done = t
	st := [2]*staging{}
	for i := range st {
		s := &staging{region: -1, pages: make([]buf.Page, t.shape.blocks), sums: make([]uint32, t.shape.blocks)}
		if !t.pool.AllocReserved(&s.hdr, t.shape.headers) {
			if i == 1 {
				t.pool.ReleaseVec(&st[0].hdr)
			}
			return errs.New(errs.Full, "blockcache: no pages for the headers of regions")
		}
		st[i] = s
	}
	t.fill, t.spare = st[0], st[1]
	return nil
}

// Policy is who decides what stays.
func (t *Tier) Policy() *policy.Policy { return t.pol }

// BlockBytes is the size of a cache block; Bytes what the tier can hold.
func (t *Tier) BlockBytes() int { return t.opts.BlockBytes }
func (t *Tier) Bytes() int64    { return t.pol.Bytes() }

// Usable reports whether the drive is still worth asking.
func (t *Tier) Usable() bool { return t.loop != nil && t.closed == nil && t.Stats.Failed.Load() == 0 }

// Fail has the drive left alone from now on.
func (t *Tier) Fail() { t.Stats.Failed.Set(1) }

// Find looks a cache block up, 0 if nothing of it is here; Mask says which parts are.
func (t *Tier) Find(k policy.Key) policy.Entry { return t.pol.Find(k) }
func (t *Tier) Mask(e policy.Entry) uint64     { return t.mask[e] }

// Slot is where a part lies. REQUIRES: Mask has it.
func (t *Tier) Slot(e policy.Entry, part int) Slot { return Slot(t.place[int(e)*t.shape.parts+part]) }

// Staged is the page of a slot whose region is not on the drive yet, with the block's checksum.
func (t *Tier) Staged(s Slot) (buf.Page, uint32, bool) {
	r, i := t.where(s)
	for _, st := range [2]*staging{t.fill, t.flying} {
		if st != nil && st.region == r && i < st.n {
			return st.pages[i], st.sums[i], true
		}
	}
	return 0, 0, false
}

// Sequence says which writing of its region a slot belongs to: if it has changed when a read has ended, the read
// may have seen another block, and it is nobody's fault.
func (t *Tier) Sequence(s Slot) uint64 {
	r, _ := t.where(s)
	return t.seqs[r]
}

// Joins reports whether b lies right behind a.
func (t *Tier) Joins(a, b Slot) bool {
	return b == a+1 && int(b)%t.shape.blocks != 0
}

// Read fills v from the blocks from s on; they lie in one region, and are not staged. It is not verified yet.
func (t *Tier) Read(op *ring.Op, v *buf.Vec, s Slot) {
	r, i := t.where(s)
	t.f.ReadV(t.loop, op, v, t.shape.offset(r)+int64(t.shape.headers+i)*pageSize)
}

// Forget drops a part that is not what it should be.
func (t *Tier) Forget(e policy.Entry, part int) {
	if t.mask[e]&(1<<part) == 0 {
		return
	}
	t.vacate(t.Slot(e, part))
	if t.mask[e] &^= 1 << part; t.mask[e] == 0 {
		t.pol.Remove(e)
		return
	}
	t.pol.Lose(e, ids.BlockSize)
}

// Evicted is the policy's: the entry's slots become holes.
func (t *Tier) Evicted(e policy.Entry, _ bool) {
	for m := t.mask[e]; m != 0; m &= m - 1 {
		t.vacate(t.Slot(e, bits.TrailingZeros64(m)))
	}
	t.mask[e] = 0
}

// vacate makes a slot a hole.
func (t *Tier) vacate(s Slot) {
	r, _ := t.where(s)
	t.owner[s] = 0
	t.live[r]--
}

func (t *Tier) where(s Slot) (region, i int) { return int(s) / t.shape.blocks, int(s) % t.shape.blocks }

// staged reports whether a region is filling or being written.
func (t *Tier) staged(r int) bool {
	return t.fill != nil && t.fill.region == r || t.flying != nil && t.flying.region == r
}
