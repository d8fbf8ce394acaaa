package store

import (
	"cmp"
	"context"
	"encoding/binary"
	"slices"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// scanSize is how much of the drive is looked at with one read, in bytes.
const scanSize = 1 << 20

// RebuildReport is what RebuildIndex found.
type RebuildReport struct {
	Fragments int
	Bytes     int64 // of payload
	Dead      int   // headers of deleted fragments
	// Damaged are fragments of which the header is whole and the rest is not: rot, or puts that a
	// crash cut off and deletes whose space is used by others. They are not in the index; what was
	// acknowledged of them, repair rewrites. At most 1000 are named.
	Damaged      []layout.FragKey
	DamagedCount int
	Unreadable   int64 // bytes that the drive would not read
}

// rebuild is one scan. claims are the later extents of fragments found, which lie ahead, by address.
type rebuild struct {
	opts   *Options
	sb     Superblock
	c      *scratch
	buf    []byte
	found  map[ramKey]foundFrag
	claims []claim
	report RebuildReport
}

type claim struct {
	run
	key ramKey
}

type foundFrag struct {
	rec      fragRecord
	inc, seq uint64
}

// RebuildIndex makes a new index from the fragments' headers and moves the old one, if there is one, to
// Dir.old. It reads the whole drive and believes only fragments that verify from end to end (see the
// package comment). progress, if not nil, is told bytes done and in all. The store must not be open.
//
// What headers cannot tell is lost: epochs that were fenced without a put. Space that is free then rests
// for the quarantine, because nobody knows what was deleted a moment ago. A crash leaves an index that
// Open refuses as incomplete.
func RebuildIndex(ctx context.Context, opts Options, progress func(done, total int64)) (
	*RebuildReport, error) {

	opts = opts.withDefaults()
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	sb, _, err := ReadSuperblock(opts.Data)
	if err != nil {
		return nil, err
	}
	if err := checkIdentity(&opts, &sb); err != nil {
		return nil, err
	}
	r := &rebuild{opts: &opts, sb: sb, found: map[ramKey]foundFrag{}}
	if r.c, err = newScratch(); err != nil {
		return nil, err
	}
	defer r.c.free()
	if r.buf, err = newAligned(scanSize); err != nil {
		return nil, err
	}
	defer freeAligned(r.buf)
	ix, err := r.makeRoom()
	if err != nil {
		return nil, err
	}
	if err = r.scan(ctx, progress); err == nil {
		err = r.write(ix)
	}
	if e := ix.close(); err == nil {
		err = e
	}
	if err != nil {
		return nil, err
	}
	return &r.report, nil
}

// makeRoom moves the old index away and opens an empty one. It has no first record yet, so Open refuses
// it until write has ended.
func (r *rebuild) makeRoom() (*index, error) {
	fs, dir := r.opts.FS, r.opts.Dir
	if _, err := fs.Stat(dir); err == nil {
		if err := notInUse(fs, dir); err != nil {
			return nil, err
		}
		if err := fs.RemoveAll(dir + ".old"); err != nil {
			return nil, errs.Wrap(errs.IO, err, "store: cannot remove %s.old", dir)
		}
		if err := fs.Rename(dir, dir+".old"); err != nil {
			return nil, errs.Wrap(errs.IO, err, "store: cannot move the old index to %s.old", dir)
		}
	}
	return openIndex(r.opts, true)
}

// scan looks at every block that no fragment found so far covers, by ascending address.
func (r *rebuild) scan(ctx context.Context, progress func(done, total int64)) error {
	var have int64 // first byte behind what buf holds
	var told int64
	for pos := r.sb.Start; pos < r.sb.Size; {
		for len(r.claims) > 0 && r.claims[0].start <= uint64(pos)>>blockShift {
			pos = max(pos, int64(r.claims[0].end())<<blockShift)
			r.claims = r.claims[1:]
			have = 0
		}
		if pos >= r.sb.Size {
			break
		}
		if ctx.Err() != nil {
			return errs.Wrap(errs.Canceled, ctx.Err(), "store: the rebuild was given up")
		}
		if progress != nil && pos-told >= 64<<20 {
			told = pos
			progress(pos-r.sb.Start, r.sb.Size-r.sb.Start)
		}
		if pos >= have {
			have = min(pos+scanSize, r.sb.Size)
			r.fill(pos, have)
		}
		b := r.buf[scanSize-(have-pos):][:blockSize]
		pos += r.look(b, pos)
	}
	return nil
}

// fill reads [pos, have) to the end of buf. Where the drive fails it goes block by block and leaves
// zeros for what it cannot have.
func (r *rebuild) fill(pos, have int64) {
	p := r.buf[scanSize-(have-pos):]
	if r.opts.Data.ReadAt(p, pos) == nil {
		return
	}
	for len(p) > 0 {
		if r.opts.Data.ReadAt(p[:blockSize], pos) != nil {
			clear(p[:blockSize])
			r.report.Unreadable += blockSize
		}
		p, pos = p[blockSize:], pos+blockSize
	}
}

// look looks for a fragment that begins with block b at pos and says how far to go.
func (r *rebuild) look(b []byte, pos int64) int64 {
	h := &r.c.head
	if err := h.Decode(b); err != nil || h.UUID != r.sb.UUID || h.FormatNonce != r.sb.FormatNonce ||
		h.Self != pos {
		return blockSize
	}
	if h.Dead {
		r.report.Dead++
		return blockSize
	}
	if !r.whole(h) {
		r.report.DamagedCount++
		if len(r.report.Damaged) < 1000 {
			r.report.Damaged = append(r.report.Damaged, h.Key)
		}
		return blockSize
	}
	rec := fragRecord{class: h.Class, len: h.Len, sum: h.Sum, epoch: h.Epoch, time: h.Time}
	for _, e := range h.Extents {
		rec.runs = append(rec.runs, run{uint64(e.Off) >> blockShift, uint64(e.Len) >> blockShift})
	}
	f := foundFrag{rec: rec, inc: h.Incarnation, seq: h.Seq}
	if !r.wins(packKey(h.Key), f) {
		r.bury(h.Key, f)
		return blockSize
	}
	r.found[packKey(h.Key)] = f
	for _, e := range rec.runs[1:] {
		i, _ := slices.BinarySearchFunc(r.claims, e.start, claimAt)
		r.claims = slices.Insert(r.claims, i, claim{e, packKey(h.Key)})
	}
	return int64(rec.runs[0].n) << blockShift
}

func claimAt(c claim, start uint64) int { return cmp.Compare(c.start, start) }

// wins decides between f and those found before that cannot be beside it; the later put counts. They
// are a copy of the same key, from a put that crashed and was repeated; or, where payloads are alike
// (zeros), one whose header outlived a crash and whose space f has taken in part. f's rivals go.
func (r *rebuild) wins(k ramKey, f foundFrag) bool {
	rivals := map[ramKey]foundFrag{}
	if old, ok := r.found[k]; ok {
		rivals[k] = old
	}
	for _, e := range f.rec.runs {
		i, _ := slices.BinarySearchFunc(r.claims, e.start, claimAt)
		for i = max(i-1, 0); i < len(r.claims) && r.claims[i].start < e.end(); i++ {
			if c := r.claims[i]; e.start < c.end() {
				rivals[c.key] = r.found[c.key]
			}
		}
	}
	for _, old := range rivals {
		if old.inc > f.inc || (old.inc == f.inc && old.seq > f.seq) {
			return false
		}
	}
	for key, old := range rivals {
		r.bury(key.unpack(), old)
		delete(r.found, key)
		r.claims = slices.DeleteFunc(r.claims, func(c claim) bool { return c.key == key })
	}
	return true
}

// bury overwrites the header of one that does not count. If the drive refuses, the next rebuild decides
// the same way again.
func (r *rebuild) bury(key layout.FragKey, f foundFrag) {
	dead := Header{UUID: r.sb.UUID, Key: key, Dead: true, Self: int64(f.rec.runs[0].start) << blockShift,
		Incarnation: f.inc, Seq: f.seq, FormatNonce: r.sb.FormatNonce}
	dead.Encode(r.c.hbuf)
	_ = r.opts.Data.WriteAt(r.c.hbuf, dead.Self)
}

// whole reads a fragment's payload and checks every region.
func (r *rebuild) whole(h *Header) bool {
	rs := make([]run, len(h.Extents))
	for i, e := range h.Extents {
		if e.Off+int64(e.Len) > r.sb.Size {
			return false
		}
		rs[i] = run{uint64(e.Off) >> blockShift, uint64(e.Len) >> blockShift}
	}
	var ext [maxExtents]layout.Extent
	for at := uint32(0); at < h.Len; {
		p := r.c.body[:min(uint32(len(r.c.body)), h.Len-at)]
		q := p
		for _, e := range appendExtents(ext[:0], rs, at, uint32(len(p))) {
			if r.opts.Data.ReadAt(q[:e.Len], e.Off) != nil {
				return false
			}
			q = q[e.Len:]
		}
		for i := 0; i < layout.Regions(len(p)); i++ {
			if xxhash.Sum64(regionOf(p, i)) != h.Sums[int(at)/layout.RegionSize+i] {
				return false
			}
		}
		at += uint32(len(p))
	}
	return true
}

// write fills the index. Its first record comes last.
func (r *rebuild) write(ix *index) error {
	if err := r.opts.Data.Sync(); err != nil {
		return errs.Wrap(errs.IO, err, "store: cannot sync the drive")
	}
	var used []run
	epochs := map[ids.NamespaceID]ids.Epoch{}
	b := ix.db.NewBatch()
	defer func() { b.Close() }()
	flush := func(least int) error {
		if int(b.Count()) < least {
			return nil
		}
		err := ix.commit(b, false)
		b.Close()
		b = ix.db.NewBatch()
		return err
	}
	for k, f := range r.found {
		key := k.unpack()
		b.Set(fragDBKey(key), f.rec.append(nil), nil)
		used = append(used, f.rec.runs...)
		epochs[key.Namespace] = max(epochs[key.Namespace], f.rec.epoch)
		r.report.Fragments++
		r.report.Bytes += int64(f.rec.len)
		if err := flush(1000); err != nil {
			return err
		}
	}
	for ns, e := range epochs {
		b.Set(epochDBKey(ns), binary.LittleEndian.AppendUint64(nil, uint64(e)), nil)
	}
	free, at, ok := gaps(used, uint64(r.sb.Start>>blockShift), uint64(r.sb.Size>>blockShift))
	if !ok {
		return errs.New(errs.Corrupt, "store: two whole fragments share block %d of ASD %d", at, r.sb.ID)
	}
	for _, f := range free {
		b.Set(restDBKey(f.start), encodeRest([]run{f}, r.sb.Commits), nil)
		if err := flush(1000); err != nil {
			return err
		}
	}
	b.Set([]byte{keyCommits}, binary.LittleEndian.AppendUint64(nil, r.sb.Commits), nil)
	b.Set([]byte{keyMeta}, metaOf(&r.sb).encode(), nil)
	return ix.commit(b, true)
}
