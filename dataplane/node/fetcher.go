package node

import (
	"vstor/dataplane/block"
	"vstor/pracc"
)

// fetcher is PRACC as the Edge needs it, on one loop.
type fetcher struct {
	client *pracc.Client
	free   *fetch
}

// fetch joins the two sides' records of one read; pooled.
type fetch struct {
	pracc.Fetch
	f    *fetcher
	out  *block.Fetch
	next *fetch
}

// Fetch reads blocks out of an object.
func (f *fetcher) Fetch(out *block.Fetch) {
	q := f.free
	if q == nil {
		q = &fetch{f: f}
		q.Done = q
	} else {
		f.free = q.next
	}
	q.out = out
	q.NS, q.SCO, q.Off, q.Blocks, q.Sums = out.NS, out.SCO, out.Off, out.Count, out.Sums
	q.Dst.Segs = append(q.Dst.Segs[:0], out.Dst.Segs...)
	f.client.Fetch(&q.Fetch)
}

// FetchDone hands the result back.
func (q *fetch) FetchDone(*pracc.Fetch) {
	out := q.out
	out.Err, out.Via = q.Err, q.Via
	out.Dst.Segs = append(out.Dst.Segs[:0], q.Dst.Segs...) // pages may have been exchanged for others
	q.out, q.Sums = nil, nil
	q.next, q.f.free = q.f.free, q
	out.Done.FetchDone(out)
}
