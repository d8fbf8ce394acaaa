package server

import (
	"context"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
	"vstor/dataplane/link"
	"vstor/dataplane/sum"
	"vstor/dataplane/wire"
)

// put takes a fragment in: its data is received behind the headroom of a put buffer, which goes to the drive
// as it is.
//
//	put buffer   page 0: headroom, which the store fills in   | pages 1...: payload, from the socket
//
// A worker checks the payload and writes it, and goes on to the next put; the store's committer sends the reply.
func (c *conn) put(r *request, h *wire.Header, body []byte, in *buf.Vec) link.Verdict {
	if err := r.put.Decode(body, h.Data); err != nil {
		return c.refuse(r, err)
	}
	if int64(h.Data) > int64(c.k.opts.MaxFragment) {
		return c.refuse(r, errs.New(errs.Invalid, "asd server: put %v of %d bytes; this ASD takes at most %d", r.put.Key,
			h.Data, c.k.opts.MaxFragment))
	}
	if !c.fits(int64(h.Data)) {
		return link.Stall
	}
	run, ok := c.k.puts.take(c, layout.FragHeaderSize+int64(h.Data))
	if !ok {
		return link.Stall
	}
	r.run, r.hasRun = run, true
	r.charge(int64(h.Data))
	r.desc = append(r.desc[:0], r.put.Desc...) // the body's memory is not ours
	r.put.Desc = nil
	const head = layout.FragHeaderSize / buf.PageSize
	in.Add(buf.Seg{Page: run.Page + head, Len: h.Data})
	c.receiving = r
	return link.Next
}

// runPut checks the payload and stores it: PutDone is called once, by then or later. On a worker.
func (r *request) runPut(w *worker) {
	b := w.pool.SegBytes(r.run)[:layout.FragHeaderSize+r.size]
	payload := b[layout.FragHeaderSize:]
	if i := damaged(payload, r.put.Sums); i >= 0 {
		r.PutDone(errs.New(errs.Corrupt, "asd server: put %v: region %d does not match its checksum: it was damaged "+
			"under way", r.put.Key, i))
		return
	}
	r.frag = layout.FragPut{Key: r.put.Key, Epoch: r.put.Epoch, Class: r.put.Class, Buf: b,
		Sums: r.put.Sums, Desc: r.desc}
	// A put that has begun is carried through.
	w.store.PutThen(context.Background(), &r.frag, r)
}

// damaged is the first region that does not match, or -1.
func damaged(payload []byte, sums []uint64) int {
	var got [sum.BatchSize]uint64
	for at := 0; at < len(sums); at += len(got) {
		n := min(len(got), len(sums)-at)
		part := payload[at*layout.RegionSize : min((at+n)*layout.RegionSize, len(payload))]
		sum.Cut(got[:n], part, layout.RegionSize)
		for i := range n {
			if got[i] != sums[at+i] {
				return at + i
			}
		}
	}
	return -1
}

// PutDone sends the request back to the loop (store.PutDone).
func (r *request) PutDone(err error) {
	if err != nil {
		r.failed(err)
	}
	r.c.k.loop.Post(r)
}
