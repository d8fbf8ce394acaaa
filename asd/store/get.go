package store

import (
	"context"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
)

// maxRead is the longest single read from the drive, in bytes.
const maxRead = 1 << 20

// target is a pinned fragment being read.
type target struct {
	s    *Store
	key  layout.FragKey
	pin  Pin
	runs []run
	len  uint32
}

func (s *Store) pinned(key layout.FragKey) (target, error) {
	k := packKey(key)
	sh := &s.shards[k.shard()]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e, ok := sh.frags[k]
	if !ok {
		return target{}, errs.New(errs.Absent, "store: ASD %d has no fragment %v", s.sb.ID, key)
	}
	e.pins++
	sh.frags[k] = e
	return target{s: s, key: key, pin: Pin{key: k, start: e.start()}, runs: sh.runsOf(k, e),
		len: uint32(e.payload() << blockShift)}, nil
}

// Get fills dst with payload bytes [off, off+len(dst)) of a fragment and verifies what it read: the
// header's identity, and the checksum of every region it touches, in full. It blocks; not for loops. A
// page-aligned dst is read into directly where it covers whole regions.
//
// errs.Absent: no such fragment; errs.Corrupt: what is there is not what was put, dst holds rubbish;
// errs.Invalid: beyond the end; errs.IO: the drive did not answer.
func (s *Store) Get(ctx context.Context, key layout.FragKey, off uint32, dst []byte) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	s.count.gets.Add(1)
	t, err := s.pinned(key)
	if err != nil {
		return err
	}
	defer s.Unpin(t.pin)
	if len(dst) == 0 || uint64(off)+uint64(len(dst)) > uint64(t.len) {
		return errs.New(errs.Invalid, "store: get %v: bytes %d+%d of a payload of %d", key, off, len(dst),
			t.len)
	}
	c, err := s.getScratch(ctx)
	if err != nil {
		return err
	}
	defer s.putScratch(c)
	if err := t.readHeader(c); err != nil {
		return err
	}
	return t.readVerified(ctx, c, off, dst)
}

// Verify reads all of a fragment and answers as Get does. It blocks; not for loops.
func (s *Store) Verify(ctx context.Context, key layout.FragKey) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	return s.verify(ctx, key)
}

func (s *Store) verify(ctx context.Context, key layout.FragKey) error {
	t, err := s.pinned(key)
	if err != nil {
		return err
	}
	defer s.Unpin(t.pin)
	c, err := s.getScratch(ctx)
	if err != nil {
		return err
	}
	defer s.putScratch(c)
	if err := t.readHeader(c); err != nil {
		return err
	}
	return t.readVerified(ctx, c, 0, nil)
}

// Describe appends the descriptor that a fragment was put with, as the drive has it, to dst; nothing if
// there was none. The header it lies in is verified. It blocks; not for loops. Errors as Get has them.
func (s *Store) Describe(ctx context.Context, key layout.FragKey, dst []byte) ([]byte, error) {
	if err := s.enter(); err != nil {
		return dst, err
	}
	defer s.leave()
	t, err := s.pinned(key)
	if err != nil {
		return dst, err
	}
	defer s.Unpin(t.pin)
	c, err := s.getScratch(ctx)
	if err != nil {
		return dst, err
	}
	defer s.putScratch(c)
	if err := t.readHeader(c); err != nil {
		return dst, err
	}
	return append(dst, c.head.Desc...), nil
}

// readHeader reads and checks the header into c.head.
func (t *target) readHeader(c *scratch) error {
	s := t.s
	if err := s.read(c.hbuf, int64(t.pin.start)<<blockShift); err != nil {
		return err
	}
	err := c.head.Decode(c.hbuf)
	h := &c.head
	ours := err == nil && h.UUID == s.sb.UUID && h.FormatNonce == s.sb.FormatNonce && h.Key == t.key &&
		h.Self == int64(t.pin.start)<<blockShift
	if ours && !h.Dead && h.Len == t.len && sameRuns(h.Extents, t.runs) {
		return nil
	}
	if now, _, ok := s.lookup(t.pin.key); (ours && h.Dead) || !ok || now.start() != t.pin.start {
		return errs.New(errs.Absent, "store: fragment %v on ASD %d is being deleted", t.key, s.sb.ID)
	}
	s.count.corrupt.Add(1)
	return errs.New(errs.Corrupt, "store: ASD %d: the header of fragment %v at %d is not its own", s.sb.ID,
		t.key, int64(t.pin.start)<<blockShift)
}

func sameRuns(es []layout.Extent, rs []run) bool {
	if len(es) != len(rs) {
		return false
	}
	for i, e := range es {
		if uint64(e.Off)>>blockShift != rs[i].start || uint64(e.Len)>>blockShift != rs[i].n {
			return false
		}
	}
	return true
}

// readVerified reads every region that [off, off+len(dst)) touches, checks it against the header in
// c.head, and fills dst. A nil dst checks the whole payload.
func (t *target) readVerified(ctx context.Context, c *scratch, off uint32, dst []byte) error {
	end := off + uint32(len(dst))
	if dst == nil {
		end = t.len
	}
	for at := off / layout.RegionSize * layout.RegionSize; at < end; {
		if ctx.Err() != nil {
			return errs.Wrap(errs.Canceled, ctx.Err(), "store: read of %v was given up", t.key)
		}
		p := t.into(off, end, at, dst)
		direct := p != nil
		if !direct {
			p = c.body[:min(len(c.body), int(t.len-at))]
			if last := (end + layout.RegionSize - 1) / layout.RegionSize * layout.RegionSize; last < t.len {
				p = p[:min(len(p), int(last-at))]
			}
		}
		if err := t.readPayload(p, at); err != nil {
			return err
		}
		for i := 0; i < layout.Regions(len(p)); i++ {
			if xxhash.Sum64(regionOf(p, i)) != c.head.Sums[int(at)/layout.RegionSize+i] {
				t.s.count.corrupt.Add(1)
				return errs.New(errs.Corrupt, "store: ASD %d: region %d of fragment %v fails its checksum",
					t.s.sb.ID, int(at)/layout.RegionSize+i, t.key)
			}
		}
		next := at + uint32(len(p))
		if dst != nil && !direct {
			from := max(at, off)
			copy(dst[from-off:], p[from-at:min(next, end)-at])
		}
		at = next
	}
	return nil
}

// into is the part of dst that region at and those behind it can be read into, or nil.
func (t *target) into(off, end, at uint32, dst []byte) []byte {
	if dst == nil || at < off {
		return nil
	}
	n := min(end-at, maxRead)
	if at+n < t.len {
		n = n / layout.RegionSize * layout.RegionSize
	}
	p := dst[at-off : at-off+n]
	if n == 0 || !aligned(p) {
		return nil
	}
	return p
}

// readPayload reads payload bytes from off on; both are whole blocks.
func (t *target) readPayload(p []byte, off uint32) error {
	var ext [maxExtents]layout.Extent
	for _, e := range appendExtents(ext[:0], t.runs, off, uint32(len(p))) {
		if err := t.s.read(p[:e.Len], e.Off); err != nil {
			return err
		}
		p = p[e.Len:]
	}
	return nil
}

func (s *Store) read(p []byte, off int64) error {
	if err := s.data.ReadAt(p, off); err != nil {
		s.count.readErrors.Add(1)
		return errs.Wrap(errs.IO, err, "store: ASD %d: cannot read %d bytes at %d", s.sb.ID, len(p), off)
	}
	return nil
}

// Range is a part of a fragment to read. Off is a multiple of 4096, Dst is page aligned and whole
// blocks long. Err is set to how it went.
type Range struct {
	Key layout.FragKey
	Off uint32
	Dst []byte
	Err errs.Kind
}

// ReadRanges reads several ranges as they are on the drive, unverified: for callers that have a checksum
// per block. Each gets its own result; the error is that of the first that failed. It blocks; not for
// loops, which use Locate and their ring.
func (s *Store) ReadRanges(ctx context.Context, rs []Range) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	var first error
	for i := range rs {
		err := s.readRange(ctx, &rs[i])
		rs[i].Err = errs.Of(err)
		if first == nil {
			first = err
		}
	}
	return first
}

func (s *Store) readRange(ctx context.Context, r *Range) error {
	if ctx.Err() != nil {
		return errs.Wrap(errs.Canceled, ctx.Err(), "store: read was given up")
	}
	if len(r.Dst) == 0 || r.Off%blockSize != 0 || !aligned(r.Dst) {
		return errs.New(errs.Invalid, "store: range %d+%d of %v is not whole aligned blocks", r.Off,
			len(r.Dst), r.Key)
	}
	t, err := s.pinned(r.Key)
	if err != nil {
		return err
	}
	defer s.Unpin(t.pin)
	if uint64(r.Off)+uint64(len(r.Dst)) > uint64(t.len) {
		return errs.New(errs.Invalid, "store: range %d+%d of %v, which has %d bytes", r.Off, len(r.Dst),
			r.Key, t.len)
	}
	return t.readPayload(r.Dst, r.Off)
}
