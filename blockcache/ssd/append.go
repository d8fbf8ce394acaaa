package ssd

import (
	"syscall"

	"vstor/blockcache/policy"
	"vstor/dataplane/buf"
	"vstor/dataplane/ids"
	"vstor/dataplane/ring"
)

// Append keeps one part of a cache block, charged to account a; it retains the page for as long as it needs it.
// False means that it was not kept: the block is read from the backend again.
func (t *Tier) Append(a policy.Account, k policy.Key, part int, page buf.Page, sum uint32) bool {
	if e := t.pol.Find(k); e != 0 && t.mask[e]&(1<<part) != 0 {
		return true
	}
	if !t.Usable() || !t.room() {
		t.Stats.Refused.Inc()
		return false
	}
	e := t.pol.Find(k) // again: making room may have taken it
	if e == 0 {
		e = t.pol.Insert(a, k, ids.BlockSize, 1<<part)
	} else if !t.pol.Grow(e, ids.BlockSize, 1<<part) {
		e = 0
	}
	if e == 0 {
		t.Stats.Refused.Inc()
		return false
	}
	// Making room may have taken the last blocks of the region that fills, but not the region.
	s := t.fill
	slot := Slot(s.region*t.shape.blocks + s.n)
	t.settle(e, part, slot)
	t.pool.Retain(page)
	s.pages[s.n], s.sums[s.n] = page, sum
	off := k.Block*uint32(t.shape.parts) + uint32(part)
	hdr := t.header(s, s.n/RecordsMax)
	if s.n%RecordsMax == 0 {
		begin(hdr, headerMagic)
	}
	owner := t.pol.ID(t.pol.AccountOf(e))
	putRecord(hdr, s.n%RecordsMax, Record{NS: k.NS, Owner: owner, SCO: k.SCO, Off: uint16(off), Sum: sum})
	s.n++
	t.Stats.Stored.Inc()
	if s.n == t.shape.blocks && t.flying == nil {
		t.write()
	}
	return true
}

// settle books that a part lies in a slot.
func (t *Tier) settle(e policy.Entry, part int, slot Slot) {
	t.place[int(e)*t.shape.parts+part] = uint32(slot)
	t.mask[e] |= 1 << part
	t.owner[slot] = uint32(e)
	r, _ := t.where(slot)
	t.live[r]++
}

func (t *Tier) header(s *staging, i int) []byte {
	return t.pool.Bytes(s.hdr.PageAt(i * pageSize))
}

// room sees to it that the region that fills can take one more block; false while both regions are full.
func (t *Tier) room() bool {
	if t.fill.n == t.shape.blocks {
		return false
	}
	if t.fill.region < 0 {
		t.fill.region = t.choose()
	}
	return true
}

// searchMax is how many regions are looked at for the one with the most holes. Of many regions the best of a thousand
// is about as empty as the best of all, and takes a few microseconds to find.
const searchMax = 1024

// choose takes the region that is to be overwritten next, and drops what is left in it. One that is all holes is
// taken at once, so a fresh file fills from front to end.
func (t *Tier) choose() int {
	best := -1
	for range min(searchMax, t.shape.regions) {
		t.hand = (t.hand + 1) % t.shape.regions
		if t.staged(t.hand) {
			continue
		}
		if best < 0 || t.live[t.hand] < t.live[best] {
			best = t.hand
		}
		if t.live[best] == 0 {
			break
		}
	}
	t.wash(best)
	t.seqs[best] = 0
	return best
}

// wash drops every block of a region.
func (t *Tier) wash(r int) {
	for i := range t.shape.blocks {
		slot := Slot(r*t.shape.blocks + i)
		e := policy.Entry(t.owner[slot])
		if e == 0 {
			continue
		}
		for part := range t.shape.parts {
			if t.mask[e]&(1<<part) != 0 && t.Slot(e, part) == slot {
				t.Forget(e, part)
				break
			}
		}
		t.Stats.Washed.Inc()
	}
}

// write sends the region that fills on its way. REQUIRES: it holds something, and none is under way.
func (t *Tier) write() {
	s := t.fill
	t.flying, t.fill, t.spare = s, t.spare, nil
	t.seq++
	t.out.Reset()
	pages := (s.n + RecordsMax - 1) / RecordsMax
	for i := range t.shape.headers {
		b := t.header(s, i)
		if i >= pages {
			begin(b, headerMagic)
		}
		sealHeader(b, t.incarnation, t.seq, s.region, i, max(0, min(s.n-i*RecordsMax, RecordsMax)))
		t.out.Add(buf.Seg{Page: s.hdr.PageAt(i * pageSize), Len: pageSize})
	}
	for _, p := range s.pages[:s.n] {
		t.out.Add(buf.Seg{Page: p, Len: pageSize})
	}
	t.f.WriteV(t.loop, &t.op, &t.out, t.shape.offset(s.region))
}

// RingDone is the end of a region's write.
func (t *Tier) RingDone(_ *ring.Op, res int32) {
	s := t.flying
	if res > 0 {
		t.seqs[s.region] = t.seq
		t.fails = 0
		t.Stats.Written.Inc()
		t.Stats.WrittenBytes.Add(uint64(res))
	} else {
		t.wash(s.region)
		t.Stats.WriteErrors.Inc()
		if t.fails++; t.fails >= failsMax && res != -int32(syscall.ECANCELED) {
			t.Stats.Failed.Set(1)
		}
	}
	t.flying, t.spare = nil, s
	t.reset(s)
	if t.closed != nil {
		t.finish()
	} else if t.fill.n == t.shape.blocks {
		t.write()
	}
}

// reset gives back the pages of a region that was written.
func (t *Tier) reset(s *staging) {
	for _, p := range s.pages[:s.n] {
		t.pool.Release(p)
	}
	s.region, s.n = -1, 0
}

// Close writes what waits, so that the next Open finds it, and tells done, perhaps at once. The owner has waited
// for its reads, and closes the file afterwards.
func (t *Tier) Close(done func()) {
	t.closed = done
	if t.flying == nil {
		t.finish()
	}
}

// finish writes the region that fills, gives everything back and tells. REQUIRES: no write is under way.
func (t *Tier) finish() {
	if t.fill.n > 0 && t.Stats.Failed.Load() == 0 {
		t.write()
		return
	}
	for _, s := range [2]*staging{t.fill, t.spare} {
		t.reset(s)
		t.pool.ReleaseVec(&s.hdr)
	}
	t.fill, t.spare = nil, nil
	t.Free()
	t.closed()
}

// Free gives back the tables of a Tier that is not attached.
func (t *Tier) Free() {
	t.pol.Free()
	policy.FreeTable(t.mask)
	policy.FreeTable(t.place)
	policy.FreeTable(t.owner)
	t.mask, t.place, t.owner = nil, nil, nil
}
