package store

import (
	"context"
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/errs"
	"vstor/dataplane/invariants"
	"vstor/dataplane/layout"
)

// maxWrite is the longest single write to the drive, in bytes: a payload of 1 MiB goes with its header.
const maxWrite = 1<<20 + layout.FragHeaderSize

// PutDone is told the end of a put that PutThen began: exactly once, by any goroutine. It must not wait for IO.
type PutDone interface{ PutDone(err error) }

// Put stores a fragment and returns when it is durable. It blocks; any number of goroutines may call
// it and share a Sync; not for loops. p.Buf belongs to the store until Put returns, its headroom is
// overwritten, its payload is not. Once warm it allocates nothing.
//
// Putting what is there already is OK, if what is there verifies; other content under the same key is
// errs.Refused, and so is an epoch below the highest seen. errs.Full: the class's share of the space is
// used up. errs.IO: the drive refused. errs.Canceled: ctx ended before the commit began. After an error
// but Refused and Full the fragment may be there or not, and never in part.
func (s *Store) Put(ctx context.Context, p *layout.FragPut) error {
	w := s.waiters.get()
	s.PutThen(ctx, p, w)
	err := <-w.end
	s.waiters.give(w)
	return err
}

// PutThen is Put for those who have better to do than to wait for the commit: it writes the fragment and
// returns, and then is told when it is durable, or why not. That may happen before PutThen returns. p and all
// that it names belong to the store until then. It blocks; not for loops.
func (s *Store) PutThen(ctx context.Context, p *layout.FragPut, then PutDone) {
	err := checkPut(p)
	if err == nil {
		err = s.enter()
	}
	if err != nil {
		then.PutDone(err)
		return
	}
	t := s.puts.get()
	t.s, t.p, t.then = s, p, then
	if posted, err := t.begin(ctx); !posted {
		t.finish(err)
	}
}

// begin brings t to the committer, who calls committed; or it is over already.
func (t *putting) begin(ctx context.Context) (posted bool, err error) {
	s, p := t.s, t.p
	if err := s.healthy(); err != nil {
		return false, err
	}
	ns := p.Key.Namespace
	if err := checkEpoch(ns, p.Epoch, s.HighestEpoch(ns), p.Class); err != nil {
		return false, err
	}
	if err := s.busy.lock(ctx, t); err != nil {
		return false, err
	}
	if there, err := s.putAgain(ctx, p); there || err != nil {
		return false, err
	}
	rs, err := s.allocate(t.runs[:0], uint64(len(p.Buf))>>blockShift, p.Class)
	if err != nil {
		return false, err
	}
	t.setHeader(rs)
	h := &t.head
	h.Encode(p.Buf)
	if err := s.writeFragment(ctx, p.Buf, rs); err != nil {
		s.abandon(p, h, rs, errs.Of(err) == errs.IO)
		return false, err
	}
	t.op = op{kind: opPut, key: t.key, frag: p.Key, class: p.Class, put: t,
		rec: fragRecord{runs: rs, class: p.Class, len: h.Len, sum: h.Sum, epoch: p.Epoch, time: h.Time}}
	s.commits.post(&t.op)
	return true, nil
}

// committed is the committer's answer.
func (t *putting) committed(err error) {
	if errs.Of(err) == errs.Refused {
		t.s.abandon(t.p, &t.head, t.rec.runs, false)
	}
	t.finish(err) // after a failed commit the space stays taken: nobody knows whose it is
}

// finish ends t, which is not the caller's any more.
func (t *putting) finish(err error) {
	s, then := t.s, t.then
	s.busy.unlock(t)
	s.puts.give(t)
	then.PutDone(err)
	s.leave()
}

func checkPut(p *layout.FragPut) error {
	n := len(p.Buf) - layout.FragHeaderSize
	switch {
	case n <= 0 || n%blockSize != 0 || n > MaxPayload:
		return errs.New(errs.Invalid, "store: put %v: payload of %d bytes; it must be 1 to %d blocks of %d",
			p.Key, n, MaxPayload/blockSize, blockSize)
	case len(p.Sums) != layout.Regions(n):
		return errs.New(errs.Invalid, "store: put %v: %d region sums for %d regions", p.Key, len(p.Sums),
			layout.Regions(n))
	case p.Key.SCO == 0:
		return errs.New(errs.Invalid, "store: put %v: SCO 0 is no SCO", p.Key)
	case p.Class > layout.ClassRepair:
		return errs.New(errs.Invalid, "store: put %v: class %d is none", p.Key, p.Class)
	case len(p.Desc) > layout.DescMax:
		return errs.New(errs.Invalid, "store: put %v: a descriptor of %d bytes; at most %d fit the header", p.Key,
			len(p.Desc), layout.DescMax)
	case !aligned(p.Buf):
		return errs.New(errs.Invalid, "store: put %v: the buffer is not page aligned", p.Key)
	}
	if invariants.Enabled {
		for i, sum := range p.Sums {
			r := regionOf(p.Buf[layout.FragHeaderSize:], i)
			invariants.Assert(xxhash.Sum64(r) == sum, "store: put %v: sum of region %d is wrong", p.Key, i)
		}
	}
	return nil
}

// regionOf is region i of a payload.
func regionOf(payload []byte, i int) []byte {
	return payload[i*layout.RegionSize : min((i+1)*layout.RegionSize, len(payload))]
}

// putAgain deals with a key that is there already: true if it holds the same content, whole. One that
// is damaged, or whose delete a crash cut off, makes way for the new copy, because a key never names
// two contents.
func (s *Store) putAgain(ctx context.Context, p *layout.FragPut) (bool, error) {
	if _, _, ok := s.lookup(packKey(p.Key)); !ok {
		return false, nil
	}
	v, err := s.get(fragDBKey(p.Key))
	if err != nil || v == nil {
		return false, err // v == nil: deleted just now
	}
	rec, err := decodeFragRecord(v)
	if err != nil {
		return false, err
	}
	if int(rec.len) != len(p.Buf)-layout.FragHeaderSize || rec.sum != sumOfSums(p.Sums) {
		return false, errs.New(errs.Refused, "store: fragment %v exists with other content", p.Key)
	}
	switch err := s.verify(ctx, p.Key); errs.Of(err) {
	case errs.OK:
		if p.Epoch > s.HighestEpoch(p.Key.Namespace) {
			err = s.commits.do(&op{kind: opFence, ns: p.Key.Namespace, rec: fragRecord{epoch: p.Epoch}})
		}
		return true, err
	case errs.Corrupt, errs.Absent:
		return false, s.delete(ctx, []layout.FragKey{p.Key})
	default:
		return false, err
	}
}

func sumOfSums(sums []uint64) uint64 {
	var d xxhash.Digest
	d.Reset()
	var b [8]byte
	for _, sum := range sums {
		binary.LittleEndian.PutUint64(b[:], sum)
		d.Write(b[:])
	}
	return d.Sum64()
}

func (t *putting) setHeader(rs []run) {
	s, p := t.s, t.p
	t.head = Header{
		UUID: s.sb.UUID, Key: p.Key, Epoch: p.Epoch, Class: p.Class,
		Self:        int64(rs[0].start) << blockShift,
		Incarnation: s.sb.Incarnation, Seq: s.seq.Add(1), FormatNonce: s.sb.FormatNonce,
		Time: s.opts.Now().UnixNano(), Len: uint32(len(p.Buf) - layout.FragHeaderSize), Sums: p.Sums,
		Desc:    p.Desc,
		Extents: t.extents[:len(rs)],
	}
	for i, r := range rs {
		t.extents[i] = layout.Extent{Off: int64(r.start) << blockShift, Len: uint32(r.n << blockShift)}
	}
}

// writeFragment writes b, header and payload, to its extents, in writes of like size of at most
// maxWrite: a rest of one block would cost as much as a write of half a megabyte.
func (s *Store) writeFragment(ctx context.Context, b []byte, rs []run) error {
	for _, r := range rs {
		part := b[:r.n<<blockShift]
		b = b[len(part):]
		off := int64(r.start) << blockShift
		blocks := int(r.n)
		for pieces := (len(part) + maxWrite - 1) / maxWrite; pieces > 0; pieces-- {
			if ctx.Err() != nil {
				return errs.Wrap(errs.Canceled, ctx.Err(), "store: put was given up")
			}
			n := (blocks + pieces - 1) / pieces
			if err := s.data.WriteAt(part[:n<<blockShift], off); err != nil {
				s.count.writeErrors.Add(1)
				return errs.Wrap(errs.IO, err, "store: ASD %d: cannot write %d bytes at %d", s.sb.ID,
					n<<blockShift, off)
			}
			part, off, blocks = part[n<<blockShift:], off+int64(n)<<blockShift, blocks-n
		}
	}
	return nil
}

// abandon gives the space of a put back that will not be. Its header may be on the drive, and a rebuild
// would believe it: it is overwritten first. That write is not synced; power loss before the next Sync
// leaves what a crash in the middle of the put could have left as well.
func (s *Store) abandon(p *layout.FragPut, h *Header, rs []run, aside bool) {
	if s.writeDead(p.Buf[:layout.FragHeaderSize], h) != nil {
		aside = true
	}
	s.giveBack(rs, aside)
}

// writeDead overwrites the header of h on the drive, by way of b, a page-aligned block.
func (s *Store) writeDead(b []byte, h *Header) error {
	dead := Header{UUID: h.UUID, Key: h.Key, Epoch: h.Epoch, Class: h.Class, Dead: true, Self: h.Self,
		Incarnation: h.Incarnation, Seq: h.Seq, Time: h.Time, FormatNonce: h.FormatNonce}
	dead.Encode(b)
	if err := s.data.WriteAt(b, h.Self); err != nil {
		s.count.writeErrors.Add(1)
		return errs.Wrap(errs.IO, err, "store: ASD %d: cannot write a header at %d", s.sb.ID, h.Self)
	}
	return nil
}
