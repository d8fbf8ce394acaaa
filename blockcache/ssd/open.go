package ssd

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"sync"

	"vstor/blockcache/policy"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// readers is how many regions' headers are read at once.
const readers = 16

// Open reads a cache file and has its index again, or makes it an empty cache if it is none, or another's. It
// blocks: for a goroutine.
func Open(f dio.File, o Options) (*Tier, error) {
	o.ensureDefaults(f.Size())
	if err := o.validate(f.Size()); err != nil {
		return nil, err
	}
	t := &Tier{f: f, opts: o, shape: o.shape(f.Size())}
	if err := t.makeTables(); err != nil {
		t.Free()
		return nil, err
	}
	b, err := dio.AlignedBuf(pageSize)
	if err != nil {
		t.Free()
		return nil, err
	}
	defer dio.FreeBuf(b)
	want := Superblock{UUID: o.UUID, Size: f.Size(), RegionBytes: uint32(o.RegionBytes), Regions: uint32(t.shape.regions),
		BlockBytes: uint32(o.BlockBytes)}
	if sb, err := readSuper(f, b); err == nil {
		want.Incarnation = sb.Incarnation
		if sb == want {
			t.incarnation = sb.Incarnation
			t.recover()
			return t, nil
		}
	}
	want.Incarnation = rand.Uint64()
	want.Encode(b)
	if err = f.WriteAt(b, 0); err == nil {
		err = f.Sync()
	}
	if err != nil {
		t.Free()
		return nil, errs.Wrap(errs.IO, err, "blockcache: cannot write the superblock of the cache file")
	}
	t.incarnation = want.Incarnation
	t.hand = t.shape.regions - 1
	return t, nil
}

func readSuper(f dio.File, b []byte) (Superblock, error) {
	if err := f.ReadAt(b, 0); err != nil {
		return Superblock{}, errs.Wrap(errs.IO, err, "blockcache: cannot read the superblock of the cache file")
	}
	return DecodeSuperblock(b)
}

func (t *Tier) makeTables() (err error) {
	s, n := &t.shape, t.opts.Entries
	t.seqs, t.live = make([]uint64, s.regions), make([]uint32, s.regions)
	t.pol, err = policy.New(policy.Options{Bytes: int64(s.kept()) * ids.BlockSize, Entries: n, Owner: t})
	if err != nil {
		t.pol = &policy.Policy{}
		return err
	}
	if t.mask, err = policy.NewTable[uint64](n + 1); err != nil {
		return err
	}
	if t.place, err = policy.NewTable[uint32]((n + 1) * s.parts); err != nil {
		return err
	}
	t.owner, err = policy.NewTable[uint32](s.regions * s.blocks)
	return err
}

// recover reads the headers of all regions, twice: first for their sequences alone, then in that order for what they
// name, so that what was written last is evicted last. All records at once would be more memory than the index.
func (t *Tier) recover() {
	t.eachHeader(t.all(), 1, func(r int, h *Header) {
		t.seqs[r] = h.Sequence
		t.seq = max(t.seq, h.Sequence)
	})
	order := slices.DeleteFunc(t.all(), func(r int) bool { return t.seqs[r] == 0 })
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(t.seqs[a], t.seqs[b]) })
	t.eachHeader(order, t.shape.headers, func(r int, h *Header) {
		if h.Sequence != t.seqs[r] {
			return // torn: this page is of another writing than the first
		}
		for i, rec := range h.Records[:h.Count] {
			t.found(Slot(r*t.shape.blocks+int(h.Page)*RecordsMax+i), rec)
		}
	})
}

func (t *Tier) all() []int {
	order := make([]int, t.shape.regions)
	for i := range order {
		order[i] = i
	}
	return order
}

// eachHeader calls f with the first n header pages of each region of a list that are whole and belong there, in
// order. What cannot be read or decoded is left out: it is a cache.
func (t *Tier) eachHeader(list []int, n int, f func(r int, h *Header)) {
	bufs := make([][]byte, readers)
	for i := range bufs {
		b, err := dio.AlignedBuf(n * pageSize)
		if err != nil {
			return
		}
		defer dio.FreeBuf(b)
		bufs[i] = b
	}
	fails := make([]error, readers)
	var h Header
	for len(list) > 0 {
		batch := list[:min(readers, len(list))]
		list = list[len(batch):]
		var wg sync.WaitGroup
		for i, r := range batch {
			wg.Go(func() { fails[i] = t.f.ReadAt(bufs[i], t.shape.offset(r)) })
		}
		wg.Wait()
		for i, r := range batch {
			for page := 0; page < n && fails[i] == nil; page++ {
				err := h.Decode(bufs[i][page*pageSize:])
				if err != nil || h.Incarnation != t.incarnation || int(h.Region) != r || int(h.Page) != page ||
					page*RecordsMax+int(h.Count) > t.shape.blocks {
					continue
				}
				f(r, &h)
			}
		}
	}
}

// found books a record of the file. A block that is named twice lies where it was written last.
func (t *Tier) found(slot Slot, r Record) {
	k := policy.Key{NS: r.NS, SCO: r.SCO, Block: uint32(r.Off) / uint32(t.shape.parts)}
	part := int(r.Off) % t.shape.parts
	e := t.pol.Find(k)
	switch {
	case e == 0:
		a := t.pol.Departed(r.Owner)
		e = t.pol.Insert(a, k, ids.BlockSize, 0)
		t.pol.Retire(a)
	case t.mask[e]&(1<<part) != 0:
		old := t.Slot(e, part)
		t.owner[old] = 0
		region, _ := t.where(old)
		t.live[region]--
	case !t.pol.Grow(e, ids.BlockSize, 0):
		return
	}
	if e == 0 {
		return
	}
	t.settle(e, part, slot)
	t.Stats.Recovered.Inc()
}
