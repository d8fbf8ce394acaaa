package store

import (
	"encoding/binary"
	"slices"
	"sync"

	"vstor/dataplane/errs"
	"vstor/dataplane/invariants"
	"vstor/dataplane/layout"
)

const shardCount = 64

// ramKey is a FragKey without its padding: 20 bytes where the struct has 24.
type ramKey [5]uint32

func packKey(k layout.FragKey) ramKey {
	return ramKey{uint32(k.Namespace >> 32), uint32(k.Namespace), uint32(k.SCO), uint32(k.Put),
		uint32(k.Chunk)<<16 | uint32(k.Frag)<<8 | uint32(k.Version)}
}

func (k ramKey) unpack() layout.FragKey {
	var b [layout.FragKeySize]byte
	for i, w := range k {
		binary.BigEndian.PutUint32(b[i*4:], w)
	}
	fk, _ := layout.ParseFragKey(b[:])
	return fk
}

func (k ramKey) shard() uint8 {
	h := uint64(k[1])*0x9e3779b97f4a7c15 ^ uint64(k[2])*0xc2b2ae3d27d4eb4f ^
		uint64(k[3])*0x165667b19e3779f9 ^ uint64(k[4])*0x27d4eb2f165667c5
	h ^= h >> 32
	return uint8(h*0x9e3779b97f4a7c15>>56) % shardCount
}

// entry is where a fragment lies, in 12 bytes beside its key: the first block (40 bits), the blocks of
// payload (23 bits), whether it has several extents (1 bit), and how many pins it has.
type entry struct{ lo, hi, pins uint32 }

const entryMulti = 1 << 63

func makeEntry(start, payload uint64, multi bool) entry {
	v := start | payload<<blockNumberBits
	if multi {
		v |= entryMulti
	}
	return entry{lo: uint32(v), hi: uint32(v >> 32)}
}

func (e entry) word() uint64    { return uint64(e.hi)<<32 | uint64(e.lo) }
func (e entry) start() uint64   { return e.word() & (1<<blockNumberBits - 1) }
func (e entry) payload() uint64 { return e.word() &^ entryMulti >> blockNumberBits }
func (e entry) multi() bool     { return e.word()&entryMulti != 0 }

// shard is a part of the index in RAM. Its mutex is held for a few map accesses and never across IO,
// so a loop may take it.
type shard struct {
	mu    sync.Mutex
	frags map[ramKey]entry
	multi map[ramKey][]run // the extents of those that have several
	// orphans counts the pins of fragments that are deleted, by their first block.
	orphans map[uint64]uint32
	_       [32]byte // shards do not share a cache line
}

// Pin keeps the extents of a fragment from being used again until Unpin. The zero Pin holds nothing.
type Pin struct {
	key   ramKey
	start uint64 // first block; 0 = nothing, as block 0 holds a superblock
}

// Locate says where bytes [off, off+n) of a fragment's payload lie on the drive: it appends the
// extents, in order, to dst and pins them. It never waits for IO, and allocates nothing if dst has
// room (one extent nearly always, at most 8): a loop may call it. The caller calls Unpin exactly once
// after OK. errs.Absent: no such fragment; errs.Invalid: beyond its end; errs.Closed: the store is
// closed. The bytes read from there are not verified.
func (s *Store) Locate(key layout.FragKey, off, n uint32, dst []layout.Extent) (
	[]layout.Extent, Pin, errs.Kind) {

	if s.closed.Load() {
		return dst, Pin{}, errs.Closed
	}
	k := packKey(key)
	sh := &s.shards[k.shard()]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e, ok := sh.frags[k]
	if !ok {
		return dst, Pin{}, errs.Absent
	}
	if n == 0 || uint64(off)+uint64(n) > e.payload()<<blockShift {
		return dst, Pin{}, errs.Invalid
	}
	e.pins++
	sh.frags[k] = e
	pin := Pin{key: k, start: e.start()}
	if !e.multi() {
		at := int64(e.start()+1)<<blockShift + int64(off)
		return append(dst, layout.Extent{Off: at, Len: n}), pin, errs.OK
	}
	return appendExtents(dst, sh.multi[k], off, n), pin, errs.OK
}

// appendExtents appends the drive's bytes of payload [off, off+n) of a fragment that lies in rs, the
// header at its front.
func appendExtents(dst []layout.Extent, rs []run, off, n uint32) []layout.Extent {
	skip := int64(off) + layout.FragHeaderSize
	left := int64(n)
	for _, r := range rs {
		size := int64(r.n) << blockShift
		if skip >= size {
			skip -= size
			continue
		}
		take := min(left, size-skip)
		dst = append(dst, layout.Extent{Off: int64(r.start)<<blockShift + skip, Len: uint32(take)})
		skip = 0
		if left -= take; left == 0 {
			break
		}
	}
	if left != 0 { // the arguments of Assert would be boxed on every call
		invariants.Assert(false, "store: extents %v end %d bytes early", rs, left)
	}
	return dst
}

// Unpin gives back what Locate pinned. Any goroutine may call it, a loop too, also after Close.
func (s *Store) Unpin(p Pin) {
	if p.start == 0 {
		return
	}
	sh := &s.shards[p.key.shard()]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if e, ok := sh.frags[p.key]; ok && e.start() == p.start {
		if e.pins == 0 {
			invariants.Assert(false, "store: unpin of fragment %v, which has no pin", p.key.unpack())
		}
		e.pins--
		sh.frags[p.key] = e
		return
	}
	n := sh.orphans[p.start]
	if n == 0 {
		invariants.Assert(false, "store: unpin of deleted fragment %v, which has no pin", p.key.unpack())
	}
	if n == 1 {
		delete(sh.orphans, p.start)
		return
	}
	sh.orphans[p.start] = n - 1
}

// lookup returns the entry and all extents of a fragment.
func (s *Store) lookup(k ramKey) (entry, []run, bool) {
	sh := &s.shards[k.shard()]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e, ok := sh.frags[k]
	if !ok {
		return e, nil, false
	}
	return e, sh.runsOf(k, e), true
}

// runsOf is the extents of e. The caller holds the mutex; the slice is not changed by anybody.
func (sh *shard) runsOf(k ramKey, e entry) []run {
	if e.multi() {
		return sh.multi[k]
	}
	return []run{{e.start(), e.payload() + 1}}
}

// publish makes a fragment visible; rs stays the caller's. The committer alone adds and removes.
func (s *Store) publish(k ramKey, rs []run) {
	sh := &s.shards[k.shard()]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if _, ok := sh.frags[k]; ok {
		invariants.Fail("store: fragment %v published twice", k.unpack())
	}
	sh.frags[k] = makeEntry(rs[0].start, runsLen(rs)-1, len(rs) > 1)
	if len(rs) > 1 {
		sh.multi[k] = slices.Clone(rs)
	}
}

// withdraw removes the fragment that starts at block start and returns its extents; its pins become
// orphans.
func (s *Store) withdraw(k ramKey, start uint64) []run {
	sh := &s.shards[k.shard()]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e, ok := sh.frags[k]
	invariants.Assert(ok && e.start() == start, "store: fragment %v vanished", k.unpack())
	rs := sh.runsOf(k, e)
	delete(sh.frags, k)
	delete(sh.multi, k)
	if e.pins > 0 {
		sh.orphans[start] = e.pins
	}
	return rs
}

// orphaned reports whether a deleted fragment still has pins.
func (s *Store) orphaned(k ramKey, start uint64) bool {
	sh := &s.shards[k.shard()]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.orphans[start] > 0
}
