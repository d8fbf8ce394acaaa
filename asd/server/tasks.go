package server

import (
	"context"

	"github.com/cespare/xxhash/v2"

	"vstor/asd/proto"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
	"vstor/dataplane/link"
	"vstor/dataplane/wire"
)

// Each request that a worker carries out has two halves: the loop parses it and takes memory for it, the
// worker does it.

func pagesOf(n int) int { return (n + buf.PageSize - 1) / buf.PageSize }

// delete receives keys.
func (c *conn) delete(r *request, h *wire.Header, body []byte, in *buf.Vec) link.Verdict {
	sum, err := proto.DecodeSum(proto.TDelete, body)
	if err == nil && (h.Data == 0 || h.Data%layout.FragKeySize != 0 || h.Data > proto.DeleteMax*layout.FragKeySize) {
		err = errs.New(errs.Invalid, "asd server: delete with %d bytes; 1 to %d keys of %d bytes would be right", h.Data,
			proto.DeleteMax, layout.FragKeySize)
	}
	if err != nil {
		return c.refuse(r, err)
	}
	if !c.k.takePages(c, &r.pages, pagesOf(int(h.Data))) {
		return link.Stall
	}
	r.sum, r.size = sum, 0
	r.charge(int64(h.Data))
	subVec(in, &r.pages, 0, h.Data)
	c.receiving = r
	return link.Next
}

func (r *request) runDelete(w *worker) {
	w.buf = w.buf[:0]
	left := int(r.size)
	for _, s := range r.pages.Segs {
		n := min(left, int(s.Len))
		w.buf = append(w.buf, w.pool.SegBytes(s)[:n]...)
		left -= n
	}
	keys, err := proto.DecodeDelete(nil, proto.AppendSum(nil, r.sum), w.buf)
	if err == nil {
		err = w.store.Delete(context.Background(), keys)
	}
	if err != nil {
		r.failed(err)
	}
}

// get takes a buffer for verified bytes.
func (c *conn) get(r *request, body []byte) link.Verdict {
	rng, err := proto.DecodeRange(proto.TGet, body)
	if err == nil && (rng.Len == 0 || rng.Len > proto.ReadMax) {
		err = errs.New(errs.Invalid, "asd server: get of %d bytes of %v; 1 to %d would be right", rng.Len,
			rng.Key, proto.ReadMax)
	}
	if err != nil {
		return c.refuse(r, err)
	}
	if !c.fits(int64(rng.Len)) || c.gets >= getBuffers/2 { // who does not take its replies leaves the others some
		return link.Stall
	}
	run, ok := c.k.gets.take(c)
	if !ok {
		return link.Stall
	}
	c.gets++
	r.run, r.hasRun, r.rng = run, true, rng
	r.charge(int64(rng.Len))
	c.k.srv.work.add(r)
	return link.Next
}

func (r *request) runGet(w *worker) {
	dst := w.pool.SegBytes(r.run)[:r.rng.Len]
	if err := w.store.Get(context.Background(), r.rng.Key, r.rng.Off, dst); err != nil {
		r.failed(err)
		return
	}
	r.text = proto.AppendSum(r.text, xxhash.Sum64(dst))
	r.frame.Data.Add(buf.Seg{Page: r.run.Page, Len: r.rng.Len})
}

// list takes pages for as many entries as are wanted.
func (c *conn) list(r *request, body []byte) link.Verdict {
	if err := r.list.Decode(body); err != nil {
		return c.refuse(r, err)
	}
	r.list.Limit = min(r.list.Limit, proto.ListMax)
	if r.list.Limit == 0 {
		return c.refuse(r, errs.New(errs.Invalid, "asd server: a list of 0 fragments; 1 to %d would be right",
			proto.ListMax))
	}
	n := int(r.list.Limit) * proto.FragmentSize
	if !c.k.takePages(c, &r.pages, pagesOf(n)) {
		return link.Stall
	}
	c.k.srv.work.add(r)
	return link.Next
}

func (r *request) runList(w *worker) {
	var found []layout.FragInfo
	var err error
	if r.list.Namespace == 0 {
		found, err = w.store.List(r.list.After, int(r.list.Limit))
	} else {
		found, err = w.store.ListNamespace(r.list.Namespace, r.list.After, int(r.list.Limit))
	}
	if err != nil {
		r.failed(err)
		return
	}
	w.buf = w.buf[:0]
	for i := range found {
		f := proto.Fragment(found[i])
		w.buf = f.Append(w.buf)
	}
	r.reply(w, w.buf)
}

// reply copies data to the pages that r took, and names its sum.
func (r *request) reply(w *worker, data []byte) {
	r.text = proto.AppendSum(r.text, xxhash.Sum64(data))
	for _, s := range r.pages.Segs {
		if len(data) == 0 {
			return
		}
		s.Len = uint32(copy(w.pool.SegBytes(s), data))
		r.frame.Data.Add(s)
		data = data[s.Len:]
	}
}

// describe takes a page.
func (c *conn) describe(r *request, body []byte) link.Verdict {
	var err error
	if r.rng, err = proto.DecodeRange(proto.TDescribe, body); err != nil {
		return c.refuse(r, err)
	}
	if !c.k.takePages(c, &r.pages, 1) {
		return link.Stall
	}
	c.k.srv.work.add(r)
	return link.Next
}

func (r *request) runDescribe(w *worker) {
	d, err := w.store.Describe(context.Background(), r.rng.Key, w.buf[:0])
	if err != nil {
		r.failed(err)
		return
	}
	w.buf = d
	r.reply(w, d)
}

func (c *conn) verify(r *request, body []byte) link.Verdict {
	var err error
	if r.rng, err = proto.DecodeRange(proto.TVerify, body); err != nil {
		return c.refuse(r, err)
	}
	c.k.srv.work.add(r)
	return link.Next
}

func (r *request) runVerify(w *worker) {
	if err := w.store.Verify(context.Background(), r.rng.Key); err != nil {
		r.failed(err)
	}
}

func (c *conn) fence(r *request, body []byte) link.Verdict {
	var err error
	if r.ns, r.epoch, err = proto.DecodeEpoch(proto.TFence, body); err != nil {
		return c.refuse(r, err)
	}
	c.k.srv.work.add(r)
	return link.Next
}

// fault hands text to those who make faults, where the operator allowed it.
func (c *conn) fault(r *request, body []byte) link.Verdict {
	if !c.k.opts.AllowFaults {
		return c.refuse(r, errs.New(errs.Unsupported, "this ASD was started without --allow-faults"))
	}
	r.fault = string(body)
	c.k.srv.work.add(r)
	return link.Next
}
