package volume

import (
	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/block"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/ring"
	"vstor/dataplane/volume/journal"
)

// logRead is a read of blocks that are in the journal only.
type logRead struct {
	v    *Volume
	f    *block.Fetch
	op   ring.Op
	next *logRead
}

// ReadLogged reads blocks that lie together in the journal, from f.Off on, a Pos. What is read is
// verified: the space may have been reused since it was looked up. On the loop.
func (v *Volume) ReadLogged(f *block.Fetch) {
	r := v.freeReads
	if r == nil {
		r = &logRead{v: v}
		r.op.Done = r
	} else {
		v.freeReads = r.next
	}
	r.f = f
	v.jrn.File().ReadV(v.loop, &r.op, f.Dst, v.jrn.Offset(journal.Pos(f.Off)))
}

// RingDone verifies and ends the read.
func (r *logRead) RingDone(_ *ring.Op, res int32) {
	f, v := r.f, r.v
	r.f = nil
	r.next, v.freeReads = v.freeReads, r
	f.Err, f.Via = errs.OK, block.FromJournal
	if res < 0 {
		f.Err = errs.IO
	} else if !verify(v, f) {
		f.Err = errs.Corrupt
		v.Stats.LoggedRot.Add(1)
	}
	f.Done.FetchDone(f)
}

func verify(v *Volume, f *block.Fetch) bool {
	i := 0
	for _, s := range f.Dst.Segs {
		for b := v.pool.SegBytes(s); len(b) > 0; b = b[ids.BlockSize:] {
			if uint32(xxhash.Sum64(b[:ids.BlockSize])) != f.Sums[i] {
				return false
			}
			i++
		}
	}
	return true
}
