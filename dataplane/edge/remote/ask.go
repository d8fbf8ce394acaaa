package remote

import (
	"context"
	"slices"

	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/edge/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/invariants"
	"vstor/dataplane/layout"
	"vstor/dataplane/link"
	"vstor/dataplane/ring"
	"vstor/dataplane/sum"
	"vstor/dataplane/wire"
)

// asked is a read by way of the router: one call, or several.
type asked struct {
	r     *Remote
	f     *block.Fetch
	left  int
	err   errs.Kind
	later ring.Op
	next  *asked
}

// ReadLogged reads what Resolve said is Asked. Its pages are filled as answers come.
func (r *Remote) ReadLogged(f *block.Fetch) {
	invariants.Assert(f.Kind == block.Asked, "edge: a read of kind %d by way of the router", f.Kind)
	a := r.freeAsked
	if a == nil {
		a = &asked{r: r}
		a.later.Done = a
	} else {
		r.freeAsked = a.next
	}
	a.f, a.err = f, r.over()
	if a.err != errs.OK {
		r.loop.Defer(&a.later, 0)
		return
	}
	n := int(f.Count)
	a.left = (n + proto.BlocksMax - 1) / proto.BlocksMax
	for from := 0; from < n; from += proto.BlocksMax {
		take := min(n-from, proto.BlocksMax)
		c := r.newCall(proto.TRead, f.Addr+ids.BlockAddr(from), uint64(take))
		c.asked, c.at, c.size = a, from*ids.BlockSize, int64(take)*ids.BlockSize
		c.body = (&proto.Range{Addr: c.addr, Count: c.count}).Append(c.body)
		r.enqueue(c)
	}
}

// RingDone is the deferred end of a read that was not taken.
func (a *asked) RingDone(*ring.Op, int32) { a.end() }

func (a *asked) end() {
	f, r := a.f, a.r
	f.Err, f.Via = a.err, block.FromDriver
	a.f = nil
	a.next, r.freeAsked = r.freeAsked, a
	f.Done.FetchDone(f)
}

// readAnswered names the pages that the data goes to.
func (r *Remote) readAnswered(c *call, h *wire.Header, body []byte, in *buf.Vec) link.Verdict {
	var err error
	if _, c.sums, err = proto.DecodeRead(c.sums[:0], body, uint32(c.count)); err != nil || int64(h.Data) != c.size {
		return r.nonsense("a read reply of %d and %d bytes", h.Body, h.Data)
	}
	in.AppendRange(c.asked.f.Dst, c.at, int(c.size))
	r.landing = c
	return link.Next
}

// FrameData is the end of an answer's data (link.Handler).
func (r *Remote) FrameData(whole bool) {
	c := r.landing
	r.landing = nil
	if !whole {
		r.pool.ReleaseVec(&c.data)
		return // it is asked again on the next connection
	}
	if c.Type == proto.TManifest {
		r.manifestCame(c)
		return
	}
	if !r.right(c) {
		r.Stats.Corrupt.Inc()
		if c.broken++; c.broken <= brokenMax {
			r.nonsense("data that is not what its checksums say")
			return
		}
		r.unsend(c)
		r.readEnded(c, errs.Corrupt)
		r.sendNext()
		return
	}
	r.unsend(c)
	r.readEnded(c, errs.OK)
	r.sendNext()
}

// brokenMax is how often an answer is asked for again whose data was wrong.
const brokenMax = 3

// right verifies what has arrived.
func (r *Remote) right(c *call) bool {
	r.scratch.Reset()
	r.scratch.AppendRange(c.asked.f.Dst, c.at, int(c.size))
	var batch sum.Batch
	want, good := c.sums, true
	compare := func() {
		var out [sum.BatchSize]uint32
		got := batch.Sums(&out)
		good = good && slices.Equal(got, want[:len(got)])
		want = want[len(got):]
	}
	for _, s := range r.scratch.Segs {
		for b := r.pool.SegBytes(s); len(b) > 0; b = b[ids.BlockSize:] {
			if batch.Add(b) {
				compare()
			}
		}
	}
	compare()
	return good
}

func (r *Remote) readEnded(c *call, k errs.Kind) {
	a := c.asked
	r.putCall(c)
	if k != errs.OK {
		a.err = k
	}
	if a.left--; a.left == 0 {
		a.end()
	}
}

// extentsWork is what a question costs of the pass's share, in the units of edge.Driver.
const extentsWork = 100

// Extents tells what blocks are. The first call asks the router and says that it must wait; l is told when the
// answer is there, and calls again from inside that.
func (r *Remote) Extents(addr ids.BlockAddr, n int, _ bool, out *[]block.Extent, work *int,
	l block.Loaded) (int, bool) {
	*work -= extentsWork
	if c := r.answer; c != nil && c.loaded == l && c.addr == addr {
		r.answer = nil
		return takeExtents(out, c.extents, n), true
	}
	c := r.newCall(proto.TExtents, addr, uint64(min(n, proto.RangeMax)))
	c.loaded = l
	if k := r.over(); k != errs.OK {
		r.refuseLater(c)
		return 0, false
	}
	c.body = (&proto.Range{Addr: c.addr, Count: c.count}).Append(c.body)
	r.enqueue(c)
	return 0, false
}

// takeExtents appends what was told, as far as there is room, and returns of how many blocks.
func takeExtents(out *[]block.Extent, from []block.Extent, n int) (got int) {
	for _, e := range from {
		e.Len = min(e.Len, uint32(n-got)<<ids.BlockShift)
		o := *out
		switch k := len(o); {
		case e.Len == 0:
			return got
		case k > 0 && o[k-1].State == e.State:
			o[k-1].Len += e.Len
		case k == cap(o):
			return got
		default:
			*out = append(o, e)
		}
		got += int(e.Len >> ids.BlockShift)
	}
	return got
}

func (r *Remote) extentsAnswered(c *call, body []byte) (err error) {
	if _, c.extents, err = proto.DecodeExtents(c.extents[:0], body, c.count); err != nil {
		return err
	}
	r.unsend(c)
	r.answer = c
	c.loaded.MapLoaded(errs.OK)
	r.answer = nil
	r.putCall(c)
	r.sendNext()
	return nil
}

// Warm has the router warm its map, and looks up here what is there.
func (r *Remote) Warm(addr ids.BlockAddr, n int, l block.Loaded) {
	c := r.newCall(proto.TWarm, addr, uint64(min(max(n, 1), proto.RangeMax)))
	c.loaded = l
	if k := r.over(); k != errs.OK {
		r.refuseLater(c)
		return
	}
	c.body = (&proto.Range{Addr: c.addr, Count: c.count}).Append(c.body)
	r.enqueue(c)
	if r.Holds() {
		r.lookupAll(groupOf(addr), groupOf(addr+ids.BlockAddr(c.count-1))+1)
	}
}

// refuseLater ends a question that is not taken, not inside the call that asked it.
func (r *Remote) refuseLater(c *call) {
	r.loop.PostFunc(func() { r.failed(c, errs.Closed) })
}

// wanted is somebody who waits for a manifest.
type wanted struct {
	done chan struct{}
	m    *layout.Manifest
	kind errs.Kind
}

// Manifest finds a committed object's: PRACC's source of them. It blocks; any goroutine but the loop.
func (r *Remote) Manifest(ctx context.Context, ns ids.NamespaceID, n ids.SCONum) (*layout.Manifest, error) {
	w := &wanted{done: make(chan struct{})}
	if !r.loop.PostFunc(func() { r.want(w, proto.Object{NS: ns, SCO: n}) }) {
		return nil, errs.Closed
	}
	select {
	case <-w.done:
	case <-ctx.Done():
		return nil, errs.Wrap(errs.Unreachable, ctx.Err(), "the router does not say where SCO %d of vDisk %s lies", n,
			r.opt.VDisk)
	}
	if w.kind != errs.OK {
		return nil, errs.New(w.kind, "the manifest of SCO %d of vDisk %s cannot be had: %v", n, r.opt.VDisk, w.kind)
	}
	return w.m, nil
}

func (r *Remote) want(w *wanted, o proto.Object) {
	if k := r.over(); k != errs.OK {
		w.kind = errs.Unreachable
		close(w.done)
		return
	}
	r.askManifest(o, w)
}

func (r *Remote) askManifest(o proto.Object, w *wanted) *call {
	c := r.newCall(proto.TManifest, 0, 0)
	c.object, c.wanted = o, w
	c.body = o.Append(c.body)
	r.enqueue(c)
	return c
}

// fetchingMax bounds the manifests that are fetched ahead at a time.
const fetchingMax = 8

// fetchAhead has the manifest of an object come of which a location is known now: a read of it shall not need the
// router.
func (r *Remote) fetchAhead(o proto.Object) {
	if r.opt.Objects == nil || len(r.fetching) >= fetchingMax || r.opt.Objects.Known(o.NS, o.SCO) {
		return
	}
	for _, c := range r.fetching {
		if c.object == o {
			return
		}
	}
	r.fetching = append(r.fetching, r.askManifest(o, nil))
}

// manifestAnswered makes room for the manifest.
func (r *Remote) manifestAnswered(c *call, h *wire.Header, in *buf.Vec) link.Verdict {
	n := (int(h.Data) + buf.PageSize - 1) / buf.PageSize
	if h.Data == 0 || h.Data > proto.ManifestMax {
		return r.nonsense("a manifest of %d bytes", h.Data)
	}
	if !r.pool.AllocReserved(&c.data, n) {
		r.unsend(c)
		r.manifestEnded(c, nil, errs.Busy)
		r.sendNext()
		return link.Skip
	}
	in.AppendRange(&c.data, 0, int(h.Data))
	c.at = int(h.Data)
	r.landing = c
	return link.Next
}

func (r *Remote) manifestCame(c *call) {
	b := make([]byte, 0, c.at)
	for _, s := range c.data.Segs {
		p := r.pool.SegBytes(s)
		b = append(b, p[:min(len(p), c.at-len(b))]...)
	}
	r.unsend(c)
	m, err := layout.ParseManifest(b)
	if err == nil && (m.Namespace != c.object.NS || m.SCO != c.object.SCO) {
		err = errs.New(errs.Corrupt, "the manifest of SCO %d came for SCO %d", m.SCO, c.object.SCO)
	}
	r.manifestEnded(c, m, errs.Of(err))
	r.sendNext()
}

func (r *Remote) manifestEnded(c *call, m *layout.Manifest, k errs.Kind) {
	w := c.wanted
	r.dropAhead(c)
	switch {
	case w == nil && k == errs.OK:
		r.opt.Objects.Install(m)
	case w != nil:
		if k != errs.OK && k != errs.Absent {
			k = errs.Unreachable
		}
		w.m, w.kind = m, k
		close(w.done)
	}
}
