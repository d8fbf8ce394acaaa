package router

import (
	"context"
	"slices"
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/edge/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/link"
	"vstor/dataplane/sum"
	"vstor/dataplane/wire"
)

// request is one request from its header until its answer has left. It comes from the vDisk's free list; one in steady
// state allocates nothing.
type request struct {
	frame link.Frame // the answer
	s     *session
	size  int64 // bytes that it carries or asks for
	body  []byte
	next  *request // free

	req     block.Request // reads and questions
	extents []block.Extent
	mut     block.Mutation // changes
	write   proto.Write
	seq     ids.Seq // when it was begun
	sums    []uint32

	rng  proto.Range // of a look-up
	locs proto.Locations

	object proto.Object // of a manifest
	enc    []byte
	err    error
}

// begin makes a request of a header that came in.
func (s *session) begin(h *wire.Header) *request {
	d := s.d
	r := d.free
	if r == nil {
		r = new(request)
		r.frame.Done, r.req.Done, r.mut.Done = r, r, r
	} else {
		d.free = r.next
	}
	r.s, r.size = s, 0
	r.frame.Type, r.frame.ID, r.frame.Arg = h.Type|wire.Reply, h.ID, 0
	s.unanswered++
	s.link.Retain()
	return r
}

// takeBack undoes begin, for a frame that has to wait.
func (s *session) takeBack(r *request) {
	s.unanswered--
	r.put()
	s.link.Release()
}

func (r *request) put() {
	d := r.s.d
	r.s, r.err, r.enc = nil, nil, nil
	r.next, d.free = d.free, r
}

// fits takes n bytes of the connection's share; false: FrameSent resumes it.
func (r *request) fits(n int64) bool {
	s := r.s
	if s.bytes > 0 && s.bytes+n > s.d.opt.Bytes {
		return false
	}
	s.bytes += n
	r.size = n
	return true
}

// reply sends the answer, whose body and data are made.
func (r *request) reply() {
	r.frame.Body = r.body
	r.s.link.Send(&r.frame)
}

// fail answers with an error.
func (r *request) fail(k errs.Kind, why string) {
	r.frame.Arg = uint32(k)
	r.body = proto.AppendText(r.body[:0], why)
	r.reply()
}

// ack answers what has no other answer.
func (r *request) ack() {
	r.body = proto.AppendAck(r.body[:0], r.s.d.opt.Driver.Sequence())
	r.reply()
}

// FrameSent is the end of a request (link.Sent).
func (r *request) FrameSent(*link.Frame, bool) {
	s := r.s
	s.d.loop.Pool().ReleaseVec(&r.frame.Data)
	s.unanswered--
	s.bytes -= r.size
	r.put()
	s.link.Resume()
	s.link.Release()
}

// over answers a request whose session is over meanwhile.
func (r *request) over() bool {
	if !r.s.seat.fenced {
		return false
	}
	r.s.d.Stats.Refused.Inc()
	r.fail(errs.Refused, "the session is over")
	return true
}

// inside reports whether a range lies in the vDisk; if not it is answered.
func (r *request) inside() bool {
	size := uint64(r.s.d.opt.Device.Info().Size) >> ids.BlockShift
	if uint64(r.rng.Addr) < size && r.rng.Count <= size-uint64(r.rng.Addr) {
		return true
	}
	r.fail(errs.Invalid, "the range lies beyond the vDisk's end")
	return false
}

// read begins a Read: it climbs the ladder that this process's own reads climb.
func (s *session) read(r *request, body []byte) link.Verdict {
	if err := r.rng.Decode(proto.TRead, body, proto.BlocksMax); err != nil {
		return s.bad(r, err)
	}
	switch {
	case !r.inside():
		return link.Next
	case !r.fits(int64(r.rng.Count) << ids.BlockShift):
		return link.Stall
	}
	s.d.Stats.Reads.Inc()
	r.submit(block.Read)
	return link.Next
}

// submit hands the range to the device. The sequence is taken before: the answer includes it at least.
func (r *request) submit(op block.Op) {
	d := r.s.d
	r.seq = d.opt.Driver.Sequence()
	r.req.Op, r.req.Flags, r.req.Err = op, 0, errs.OK
	r.req.Off, r.req.Len = int64(r.rng.Addr)<<ids.BlockShift, uint32(r.rng.Count<<ids.BlockShift)
	r.req.Extents = r.extents[:0]
	d.opt.Device.Submit(&r.req)
}

// Completed answers what the device did (block.Completer).
func (r *request) Completed(q *block.Request) {
	d := r.s.d
	switch {
	case q.Err != errs.OK:
		d.loop.Pool().ReleaseVec(&q.Data)
		r.fail(ownKind(q.Err), q.Err.String())
	case r.s.seat.fenced:
		d.loop.Pool().ReleaseVec(&q.Data)
		r.over()
	case q.Op == block.Read:
		r.sums = r.sums[:0]
		for _, seg := range q.Data.Segs {
			r.sums = appendSums(r.sums, d.loop.Pool().SegBytes(seg))
		}
		r.frame.Data, q.Data = q.Data, r.frame.Data
		r.body = proto.AppendRead(r.body[:0], r.seq, r.sums)
		d.Stats.ReadBytes.Add(uint64(q.Len))
		r.reply()
	case q.Op == block.Extents:
		r.body = proto.AppendExtents(r.body[:0], r.seq, q.Extents)
		r.reply()
	default:
		r.ack()
	}
}

func appendSums(sums []uint32, b []byte) []uint32 {
	at := len(sums)
	sums = slices.Grow(sums, len(b)/ids.BlockSize)[:at+len(b)/ids.BlockSize]
	sum.Blocks(sums[at:], b)
	return sums
}

// look begins Extents and Warm.
func (s *session) look(r *request, t uint8, body []byte) link.Verdict {
	if err := r.rng.Decode(t, body, proto.RangeMax); err != nil {
		return s.bad(r, err)
	}
	if !r.inside() {
		return link.Next
	}
	op := block.Extents
	if t == proto.TWarm {
		op = block.Cache
	} else if r.extents == nil { // four kilobytes, which most requests can do without
		r.extents = make([]block.Extent, 0, proto.ExtentsMax)
	}
	r.submit(op)
	return link.Next
}

// locations begins a look-up. Only the holder is told locations.
func (s *session) locations(r *request, body []byte) link.Verdict {
	if err := r.rng.Decode(proto.TLocations, body, proto.BlocksMax); err != nil {
		return s.bad(r, err)
	}
	s.d.Stats.Lookups.Inc()
	if r.inside() {
		r.locate()
	}
	return link.Next
}

// locate answers with what holds now: look-up and answer are one step, so answers leave in the order of what they say.
func (r *request) locate() {
	s, d := r.s, r.s.d
	if !d.table.Holds(&s.seat) {
		s.deny(r)
		return
	}
	n := int(r.rng.Count)
	if cap(r.locs.Blocks) < n {
		r.locs.Blocks = make([]layout.Location, proto.BlocksMax)
	}
	r.locs.Blocks = r.locs.Blocks[:n]
	if !d.opt.Driver.Locate(r.rng.Addr, r.locs.Blocks, r) {
		return
	}
	r.locs.Seq, r.locs.Spaces = d.opt.Driver.Sequence(), r.locs.Spaces[:0]
	for i := range r.locs.Blocks {
		if loc := &r.locs.Blocks[i]; !loc.Hole() {
			r.nameSpace(loc)
		}
	}
	r.body = r.locs.Append(r.body[:0])
	r.reply()
}

// nameSpace turns a location's namespace into an index into the message's own.
func (r *request) nameSpace(loc *layout.Location) {
	ns := r.s.d.opt.Driver.Namespace(*loc)
	for i, x := range r.locs.Spaces {
		if x == ns {
			loc.NS = uint16(i)
			return
		}
	}
	if len(r.locs.Spaces) == proto.SpacesMax {
		*loc = proto.Asked
		return
	}
	loc.NS = uint16(len(r.locs.Spaces))
	r.locs.Spaces = append(r.locs.Spaces, ns)
}

// MapLoaded goes on with a look-up that lacked a page of the map (block.Loaded).
func (r *request) MapLoaded(k errs.Kind) {
	if k != errs.OK {
		r.fail(ownKind(k), "the map cannot be read")
		return
	}
	r.locate()
}

// manifestTimeout bounds how long a manifest is looked for.
const manifestTimeout = 10 * time.Second

// manifest begins a Manifest: the metadata store may block, so a goroutine asks it.
func (s *session) manifest(r *request, body []byte) link.Verdict {
	if err := r.object.Decode(body); err != nil {
		return s.bad(r, err)
	}
	s.d.Stats.Manifests.Inc()
	d := s.d
	go func() {
		ctx, cancel := context.WithTimeout(d.ctx, manifestTimeout)
		defer cancel()
		m, err := d.opt.Objects.Manifest(ctx, r.object.NS, r.object.SCO)
		if r.err = err; err == nil {
			r.enc = m.Append(nil)
		}
		d.loop.PostFunc(r.found)
	}()
	return link.Next
}

// found answers it. Its few pages may come from what is kept for reads: somebody's read waits for them.
func (r *request) found() {
	pool := r.s.d.loop.Pool()
	n := (len(r.enc) + buf.PageSize - 1) / buf.PageSize
	switch {
	case r.err != nil:
		r.fail(ownKind(errs.Of(r.err)), r.err.Error())
		return
	case len(r.enc) > proto.ManifestMax:
		r.fail(errs.Unsupported, "the manifest is too long")
		return
	case !pool.AllocReserved(&r.frame.Data, n):
		r.fail(errs.Busy, "no memory")
		return
	}
	pool.CopyIn(&r.frame.Data, 0, r.enc)
	last := &r.frame.Data.Segs[len(r.frame.Data.Segs)-1]
	last.Len -= uint32(n*buf.PageSize - len(r.enc))
	r.ack()
}
