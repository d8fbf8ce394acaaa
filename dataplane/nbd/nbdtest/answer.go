package nbdtest

import (
	"encoding/binary"
	"fmt"
	"io"

	"vstor/dataplane/nbd"
)

// Answer is all that came for a request.
type Answer struct {
	Cookie   uint64
	Errno    nbd.Errno
	Sentence string
	Bad      int64 // offset that came with the error, or -1
	Data     []byte
	Status   map[uint32][]Extent // by context
	Chunks   []nbd.ChunkType     // nil: it was a simple reply
	Carried  int                 // bytes of data that were sent; the rest of Data came as holes
}

// Extent is one of a BLOCK_STATUS.
type Extent struct {
	Len    uint64
	Status uint64
}

// pending is a request whose reply is not complete.
type pending struct {
	req    nbd.Request
	length uint64 // that it is about
	want   int    // contexts it asks for
	parts  []part // of Data that came
	filled uint64 // bytes of them
	answer Answer
}

// part is a run of bytes from a place in the request on.
type part struct{ from, n uint64 }

// Ask sends a request with its payload and remembers it for Answer.
func (c *Client) Ask(r nbd.Request, payload []byte) (cookie uint64, err error) {
	head := c.Header(&r)
	c.Expect(r, payload)
	_, err = c.Conn.Write(append(head, payload...))
	return r.Cookie, err
}

// Expect remembers a request that is sent in another way.
func (c *Client) Expect(r nbd.Request, payload []byte) {
	p := &pending{req: r, length: r.Length, want: len(c.Contexts), answer: Answer{Cookie: r.Cookie, Bad: -1}}
	if r.Type == nbd.CmdBlockStatus && r.Flags&nbd.FlagPayload != 0 && c.Mode == nbd.Extended && len(payload) >= 12 {
		p.length, p.want = binary.BigEndian.Uint64(payload), len(payload)/4-2
	}
	if c.pending == nil {
		c.pending = map[uint64]*pending{}
	}
	c.pending[r.Cookie] = p
}

// Pending is how many requests are remembered.
func (c *Client) Pending() int { return len(c.pending) }

// Answer reads until a reply is complete. An error is the connection's end, or that the server broke the
// protocol.
func (c *Client) Answer() (*Answer, error) {
	for {
		p, done, err := c.message()
		if err != nil {
			return nil, err
		}
		if done {
			delete(c.pending, p.req.Cookie)
			return &p.answer, p.complete(c.Mode)
		}
	}
}

// message reads one reply or chunk.
func (c *Client) message() (p *pending, done bool, err error) {
	var b [nbd.ExtendedChunkSize]byte
	head := b[:nbd.ReplySize]
	if c.Mode == nbd.Extended {
		head = b[:]
	}
	if _, err := io.ReadFull(c.Conn, head); err != nil {
		return nil, false, err
	}
	if e, cookie, ok := nbd.ParseReply(head); ok && c.Mode != nbd.Extended {
		if p = c.pending[cookie]; p == nil {
			return nil, false, fmt.Errorf("a reply to cookie %#x, which was not sent", cookie)
		}
		return p, true, c.simple(p, e)
	}
	if c.Mode == nbd.Structured {
		if _, err := io.ReadFull(c.Conn, b[nbd.ReplySize:nbd.ChunkSize]); err != nil {
			return nil, false, err
		}
		head = b[:nbd.ChunkSize]
	}
	h, ok := nbd.ParseChunk(head, c.Mode)
	if p = c.pending[h.Cookie]; !ok || p == nil || c.Mode == nbd.Simple {
		return nil, false, fmt.Errorf("%x is no reply, or to no request", head)
	}
	if c.Mode == nbd.Extended && h.Offset != p.req.Offset {
		return nil, false, fmt.Errorf("%v: a chunk says offset %d", p.req, h.Offset)
	}
	if h.Length > 32<<20+100 {
		return nil, false, fmt.Errorf("%v: a chunk of %d bytes", p.req, h.Length)
	}
	data := make([]byte, h.Length)
	if _, err := io.ReadFull(c.Conn, data); err != nil {
		return nil, false, err
	}
	p.answer.Chunks = append(p.answer.Chunks, h.Type)
	if err := p.chunk(h, data); err != nil {
		return nil, false, fmt.Errorf("%v: %v chunk: %w", p.req, h.Type, err)
	}
	return p, h.Done, nil
}

func (c *Client) simple(p *pending, e nbd.Errno) error {
	if p.answer.Errno = e; e != nbd.OK || p.req.Type != nbd.CmdRead {
		if p.req.Type == nbd.CmdBlockStatus && e == nbd.OK || c.Mode == nbd.Structured && p.req.Type == nbd.CmdRead {
			return fmt.Errorf("%v: a simple reply", p.req)
		}
		return nil
	}
	if c.Mode != nbd.Simple {
		return fmt.Errorf("%v: a simple reply to a read", p.req)
	}
	p.answer.Data = make([]byte, p.req.Length)
	_, err := io.ReadFull(c.Conn, p.answer.Data)
	return err
}

// chunk takes what stands behind a chunk's header.
func (p *pending) chunk(h nbd.Chunk, data []byte) error {
	be := binary.BigEndian
	switch {
	case h.Type == nbd.ChunkNone && len(data) == 0 && h.Done:
		return nil
	case h.Type == nbd.ChunkData && len(data) > 8 && p.req.Type == nbd.CmdRead:
		p.answer.Carried += len(data) - 8
		return p.content(be.Uint64(data), data[8:], uint64(len(data)-8))
	case h.Type == nbd.ChunkHole && len(data) == 12 && p.req.Type == nbd.CmdRead:
		return p.content(be.Uint64(data), nil, uint64(be.Uint32(data[8:])))
	case h.Type == nbd.ChunkStatus && len(data) >= 12 && len(data)%8 == 4 && p.req.Type == nbd.CmdBlockStatus:
		var x []Extent
		for d := data[4:]; len(d) > 0; d = d[8:] {
			x = append(x, Extent{uint64(be.Uint32(d)), uint64(be.Uint32(d[4:]))})
		}
		return p.status(be.Uint32(data), x)
	case h.Type == nbd.ChunkStatusExtended && len(data) >= 24 && len(data)%16 == 8 &&
		p.req.Type == nbd.CmdBlockStatus && be.Uint32(data[4:]) == uint32(len(data)-8)/16:
		var x []Extent
		for d := data[8:]; len(d) > 0; d = d[16:] {
			x = append(x, Extent{be.Uint64(d), be.Uint64(d[8:])})
		}
		return p.status(be.Uint32(data), x)
	case h.Type == nbd.ChunkError && len(data) >= 6, h.Type == nbd.ChunkErrorOffset && len(data) >= 14:
		return p.failed(h.Type, data)
	}
	return fmt.Errorf("%d bytes, which do not fit", len(data))
}

func (p *pending) failed(t nbd.ChunkType, data []byte) error {
	n := int(binary.BigEndian.Uint16(data[4:]))
	rest := len(data) - 6 - n
	if t == nbd.ChunkErrorOffset {
		rest -= 8
	}
	if rest != 0 || n == 0 || p.answer.Errno != nbd.OK {
		return fmt.Errorf("a sentence of %d bytes in %d, after error %v", n, len(data), p.answer.Errno)
	}
	p.answer.Errno, p.answer.Sentence = nbd.Errno(binary.BigEndian.Uint32(data)), string(data[6:6+n])
	if t == nbd.ChunkErrorOffset {
		at := binary.BigEndian.Uint64(data[6+n:])
		if at < p.req.Offset || at >= p.req.Offset+max(p.length, 1) || p.req.Type == nbd.CmdFlush {
			return fmt.Errorf("offset %d is outside the request", at)
		}
		p.answer.Bad = int64(at)
	}
	if p.answer.Errno == nbd.OK {
		return fmt.Errorf("error 0")
	}
	return nil
}

// content places data, or zeros if it is nil.
func (p *pending) content(at uint64, data []byte, n uint64) error {
	if p.answer.Data == nil {
		p.answer.Data = make([]byte, p.req.Length)
	}
	from := at - p.req.Offset
	if at < p.req.Offset || n == 0 || n > p.req.Length || from > p.req.Length-n {
		return fmt.Errorf("%d bytes at %d are outside the request", n, at)
	}
	copy(p.answer.Data[from:], data)
	for _, o := range p.parts {
		if from < o.from+o.n && o.from < from+n {
			return fmt.Errorf("%d bytes at %d came twice", n, at)
		}
	}
	p.parts = append(p.parts, part{from, n})
	p.filled += n
	return nil
}

func (p *pending) status(context uint32, x []Extent) error {
	if p.answer.Status == nil {
		p.answer.Status = map[uint32][]Extent{}
	}
	if p.answer.Status[context] != nil {
		return fmt.Errorf("context %d came twice", context)
	}
	p.answer.Status[context] = x
	sum := uint64(0)
	for i, e := range x {
		if e.Len == 0 || (i > 0 && x[i-1].Status == e.Status) {
			return fmt.Errorf("extent %d of %v", i, x)
		}
		sum += e.Len
	}
	if sum > p.length || (p.req.Flags&nbd.FlagReqOne != 0 && len(x) != 1) {
		return fmt.Errorf("%d extents of %d bytes", len(x), sum)
	}
	return nil
}

// complete looks at a whole reply.
func (p *pending) complete(m nbd.Mode) error {
	a := &p.answer
	content := 0
	for _, t := range a.Chunks {
		switch t {
		case nbd.ChunkData, nbd.ChunkHole:
			content++
		case nbd.ChunkStatus:
			if m == nbd.Extended {
				return fmt.Errorf("%v: a chunk of the other mode", p.req)
			}
		case nbd.ChunkStatusExtended:
			if m != nbd.Extended {
				return fmt.Errorf("%v: a chunk of the other mode", p.req)
			}
		}
	}
	if a.Errno != nbd.OK {
		return nil
	}
	if p.parts != nil && p.filled != p.req.Length {
		return fmt.Errorf("%v: only %d bytes came", p.req, p.filled)
	}
	switch {
	case p.req.Type == nbd.CmdRead && p.req.Length > 0 && uint64(len(a.Data)) != p.req.Length:
		return fmt.Errorf("%v: no data", p.req)
	case p.req.Flags&nbd.FlagDF != 0 && p.req.Type == nbd.CmdRead && content > 1:
		return fmt.Errorf("%v: %d chunks", p.req, content)
	case p.req.Type == nbd.CmdBlockStatus && len(a.Status) != p.want:
		return fmt.Errorf("%v: %d contexts of %d", p.req, len(a.Status), p.want)
	}
	return nil
}
