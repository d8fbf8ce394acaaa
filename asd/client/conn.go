package client

import (
	"encoding/binary"
	"io"
	"net"
	"time"

	"vstor/asd/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/wire"
)

// caps are the capabilities of the protocol that this side can use.
const caps = proto.CapFaults

// conn is a connection of the blocking half: one call at a time. Its methods belong to that call.
type conn struct {
	line
	id  uint64 // of the last request
	arg uint32 // ms that the answer may take

	out  [wire.HeaderSize + wire.BodyMax]byte // what leaves but data
	in   [wire.HeaderSize + wire.BodyMax]byte
	r, w int    // in[r:w] is received and not consumed
	long []byte // for lists, made when first needed
	vec  [2][]byte
	bufs net.Buffers

	got    bool  // something was received in this call
	reused bool  // a call was made before this one
	broken error // the connection cannot be used any more

	watch watch
	used  time.Time // guarded by ASD.mu: end of the last call
}

// fail breaks the connection.
func (c *conn) fail(err error) error {
	if c.broken == nil {
		c.broken = err
	}
	return c.broken
}

// nonsense breaks the connection because of what the peer said.
func (c *conn) nonsense(format string, args ...any) error {
	return c.fail(errs.New(errs.Unreachable, "the peer does not keep to the protocol: "+format, args...))
}

// seal makes a frame of b, the start of which is room for the header, with a fresh id.
func (c *conn) seal(b []byte, t uint8, data int) {
	c.id++
	h := wire.Header{Type: t, ID: c.id, Body: uint32(len(b) - wire.HeaderSize), Data: uint32(data), Arg: c.arg}
	h.Seal(b)
}

// request is where the body of a request is appended to.
func (c *conn) request() []byte { return c.out[:wire.HeaderSize] }

// write sends frame and data in one writev.
func (c *conn) write(frame, data []byte) error {
	c.vec = [2][]byte{frame, data}
	c.bufs = c.vec[:1]
	if len(data) > 0 {
		c.bufs = c.vec[:2]
	}
	_, err := c.bufs.WriteTo(c.nc)
	c.vec = [2][]byte{}
	if err != nil {
		return c.fail(err)
	}
	return nil
}

// send seals and sends a request.
func (c *conn) send(t uint8, b, data []byte) error {
	c.seal(b, t, len(data))
	return c.write(b, data)
}

// fill receives until n bytes wait in c.in. After a timeout it may be called again.
func (c *conn) fill(n int) error {
	if c.r > 0 && c.r+n > len(c.in) || c.r == c.w {
		c.w = copy(c.in[:], c.in[c.r:c.w])
		c.r = 0
	}
	for c.w-c.r < n {
		k, err := c.nc.Read(c.in[c.w:])
		c.w += k
		c.got = c.got || k > 0
		if err != nil && c.w-c.r < n {
			return err
		}
	}
	return nil
}

// head receives the header and body of the next frame; body is valid until the next receive.
func (c *conn) head() (h wire.Header, body []byte, err error) {
	if err := c.fill(wire.HeaderSize); err != nil {
		return h, nil, c.fail(err)
	}
	if err := h.Decode(c.in[c.r:]); err != nil {
		return h, nil, c.nonsense("%v", err)
	}
	n := wire.HeaderSize + int(h.Body)
	if err := c.fill(n); err != nil {
		return h, nil, c.fail(err)
	}
	frame := c.in[c.r : c.r+n]
	if err := h.Verify(frame); err != nil {
		return h, nil, c.nonsense("%v", err)
	}
	c.r += n
	return h, frame[wire.HeaderSize:], nil
}

// data receives the next bytes into dst.
func (c *conn) data(dst []byte) error {
	n := copy(dst, c.in[c.r:c.w])
	c.r += n
	if n == len(dst) {
		return nil
	}
	if k, err := io.ReadFull(c.nc, dst[n:]); err != nil {
		c.got = c.got || k > 0
		return c.fail(err)
	}
	return nil
}

// outcome is what a reply to a request of type t says. The error is the ASD's own unless c.broken is set.
func (c *conn) outcome(t uint8, h *wire.Header, body []byte) error {
	if h.Type != t|wire.Reply {
		return c.nonsense("a %s came as the answer to a %s", proto.TypeName(h.Type), proto.TypeName(t))
	}
	if h.Arg == uint32(errs.OK) {
		return nil
	}
	k := h.Kind()
	switch {
	case h.Data != 0:
		return c.nonsense("a failed %s with %d bytes of data", proto.TypeName(t), h.Data)
	case h.Arg > 255 || errs.FromErrno(k.Errno()) != k:
		k = errs.Unreachable // of a later build: what it means cannot be known
	case k == errs.Canceled:
		k = errs.Unreachable // it did not get to it in time
	}
	return errs.New(k, "%s", text(body))
}

// answer receives the reply to the one request under way: its data is still to be received.
func (c *conn) answer(t uint8) (h wire.Header, body []byte, err error) {
	if h, body, err = c.head(); err != nil {
		return h, nil, err
	}
	if h.ID != c.id {
		return h, nil, c.nonsense("an answer to request %d, asked was %d", h.ID, c.id)
	}
	if err := c.outcome(t, &h, body); err != nil {
		return h, nil, err
	}
	return h, body, nil
}

// bare is answer for what has no data and a body of n bytes.
func (c *conn) bare(t uint8, n int) ([]byte, error) {
	h, body, err := c.answer(t)
	if err != nil {
		return nil, err
	}
	if h.Data != 0 || len(body) != n {
		return nil, c.nonsense("a %s reply of %d and %d bytes; %d and 0 would be right", proto.TypeName(t),
			len(body), h.Data, n)
	}
	return body, nil
}

// listed is answer for what has data of at most max bytes, whose XXH64 is the body. The data is valid until
// the next call.
func (c *conn) listed(t uint8, max int) (body, data []byte, err error) {
	h, body, err := c.answer(t)
	if err != nil {
		return nil, nil, err
	}
	if int(h.Data) > max || len(body) != 8 {
		return nil, nil, c.nonsense("a %s reply of %d and %d bytes", proto.TypeName(t), len(body), h.Data)
	}
	sum := binary.LittleEndian.Uint64(body)
	data = c.longer(int(h.Data))
	if err := c.data(data); err != nil {
		return nil, nil, err
	}
	if err := proto.CheckData(t|wire.Reply, data, sum); err != nil {
		return nil, nil, c.nonsense("%v", err)
	}
	return binary.LittleEndian.AppendUint64(c.out[:0], sum), data, nil
}

// longer is a buffer of n bytes.
func (c *conn) longer(n int) []byte {
	if cap(c.long) < n {
		c.long = make([]byte, n)
	}
	return c.long[:n]
}

// text is a sentence of a peer, fit for a log.
func text(b []byte) string {
	out := []rune(string(b[:min(len(b), proto.TextMax)]))
	for i, r := range out {
		if r < ' ' || r == 0x7f || r == '\ufffd' {
			out[i] = '?'
		}
	}
	if len(out) == 0 {
		return "it gave no reason"
	}
	return string(out)
}
