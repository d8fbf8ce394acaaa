package client

import (
	"context"

	"vstor/asd/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
	"vstor/dataplane/wire"
)

// getsMax is how many requests of one Get are under way at a time: proto.ReadMax bytes each.
const getsMax = 16

// Get reads bytes [off, off+len(dst)) of the payload, verified by the ASD and again when they arrive; any
// alignment. dst is touched no more once it returned, and holds anything after an error. Errors: Absent,
// Corrupt, Invalid, IO, Unreachable, Canceled, Closed.
func (a *ASD) Get(ctx context.Context, key layout.FragKey, off uint32, dst []byte) error {
	if uint64(off)+uint64(len(dst)) > 1<<32-1 {
		return errs.New(errs.Invalid, "asd %d: get %v: %d bytes at %d lie beyond any fragment", a.opts.ID,
			key, len(dst), off)
	}
	for len(dst) > 0 {
		n := min(len(dst), getsMax*proto.ReadMax)
		if err := a.getSome(ctx, key, off, dst[:n]); err != nil {
			return about(key, err)
		}
		off, dst = off+uint32(n), dst[n:]
	}
	return nil
}

func (a *ASD) getSome(ctx context.Context, key layout.FragKey, off uint32, dst []byte) error {
	for {
		c, err := a.begin(ctx)
		if err != nil {
			return err
		}
		if again, err := a.finish(ctx, c, proto.TGet, c.get(key, off, dst)); !again {
			return err
		}
	}
}

// piece is bytes i*ReadMax and so on of dst.
func piece(dst []byte, i int) []byte {
	return dst[i*proto.ReadMax : min(len(dst), (i+1)*proto.ReadMax)]
}

// get asks for all pieces at once and takes them in the order they come.
func (c *conn) get(key layout.FragKey, off uint32, dst []byte) error {
	const size = wire.HeaderSize + proto.RangeSize
	n := (len(dst) + proto.ReadMax - 1) / proto.ReadMax
	first := c.id + 1
	for i := range n {
		r := proto.Range{Key: key, Off: off + uint32(i*proto.ReadMax), Len: uint32(len(piece(dst, i)))}
		c.seal(r.Append(c.out[i*size:i*size+wire.HeaderSize]), proto.TGet, 0)
	}
	if err := c.write(c.out[:n*size], nil); err != nil {
		return err
	}
	var failed error
	for had := uint32(0); had != 1<<n-1; {
		h, body, err := c.head()
		if err != nil {
			return err
		}
		i := h.ID - first
		if i >= uint64(n) || had&(1<<i) != 0 {
			return c.nonsense("an answer to request %d, which is not under way", h.ID)
		}
		had |= 1 << i
		if err := c.outcome(proto.TGet, &h, body); err != nil {
			failed = err
		} else {
			failed = c.getPiece(&h, body, piece(dst, int(i)), failed)
		}
		if c.broken != nil {
			return c.broken
		}
	}
	return failed
}

// getPiece takes the data of an answer.
func (c *conn) getPiece(h *wire.Header, body, dst []byte, failed error) error {
	if len(body) != 8 || int(h.Data) != len(dst) {
		return c.nonsense("a get reply of %d and %d bytes; 8 and %d would be right", len(body), h.Data, len(dst))
	}
	sum := sumOf(body)
	if err := c.data(dst); err != nil {
		return err
	}
	// The ASD verified what it read; this was damaged on its way, and says nothing about the fragment.
	if err := proto.CheckData(proto.TGet|wire.Reply, dst, sum); err != nil {
		return c.nonsense("%v", err)
	}
	return failed
}

// The requests of a Get fit the buffer.
const _ = uint(wire.BodyMax - getsMax*(wire.HeaderSize+proto.RangeSize))

// ReadRanges reads several ranges as they lie on the drive, unverified, in whole blocks: at most
// proto.RangesMax ranges and proto.ReadMax bytes. dst is as long as all of them together; each has its
// place in it, in order, whatever became of those before. The kinds say what became of each; the error is about
// the request as a whole. Errors: Invalid, Unreachable, Canceled, Closed.
func (a *ASD) ReadRanges(ctx context.Context, rs []proto.Range, dst []byte) ([]errs.Kind, error) {
	sum := 0
	for i := range rs {
		sum += int(rs[i].Len)
	}
	if len(rs) == 0 || len(rs) > proto.RangesMax || sum > proto.ReadMax || sum != len(dst) {
		return nil, errs.New(errs.Invalid,
			"asd %d: %d ranges of %d bytes into %d; at most %d ranges and %d bytes would be right",
			a.opts.ID, len(rs), sum, len(dst), proto.RangesMax, proto.ReadMax)
	}
	kinds := make([]errs.Kind, len(rs))
	for {
		c, err := a.begin(ctx)
		if err != nil {
			return nil, err
		}
		if again, err := a.finish(ctx, c, proto.TReadRanges, c.readRanges(rs, dst, kinds)); !again {
			return kinds, err
		}
	}
}

func (c *conn) readRanges(rs []proto.Range, dst []byte, kinds []errs.Kind) error {
	if err := c.send(proto.TReadRanges, proto.AppendReadRanges(c.request(), rs), nil); err != nil {
		return err
	}
	h, body, err := c.answer(proto.TReadRanges)
	if err != nil {
		return err
	}
	want := uint32(0)
	for i := range min(len(body), len(rs)) {
		if kinds[i] = errs.Kind(body[i]); kinds[i] == errs.OK {
			want += rs[i].Len
		}
	}
	if len(body) != len(rs) || h.Data != want {
		return c.nonsense("a read-ranges reply of %d and %d bytes; %d and %d would be right", len(body),
			h.Data, len(rs), want)
	}
	for i := range rs {
		if kinds[i] == errs.OK {
			if err := c.data(dst[:rs[i].Len]); err != nil {
				return err
			}
		}
		dst = dst[rs[i].Len:]
	}
	return nil
}

// A ReadRanges of the most ranges fits a body.
const _ = uint(wire.BodyMax - proto.RangesMax*proto.RangeSize)
