package wire

import "encoding/binary"

// Cursor reads a body from front to back. A read beyond the end gives zeros and is remembered: a
// parser reads all its fields and asks once, with Done, whether they were there. Little endian.
type Cursor struct {
	b   []byte
	bad bool
}

// NewCursor begins at the start of b, which it borrows.
func NewCursor(b []byte) Cursor { return Cursor{b: b} }

// Bytes takes the next n bytes, nil if there are fewer. They are the body's own.
func (c *Cursor) Bytes(n int) []byte {
	if n < 0 || n > len(c.b) {
		c.bad, c.b = true, nil
		return nil
	}
	out := c.b[:n:n]
	c.b = c.b[n:]
	return out
}

// U8, U16, U32 and U64 take a number.
func (c *Cursor) U8() uint8 {
	if b := c.Bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *Cursor) U16() uint16 {
	if b := c.Bytes(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (c *Cursor) U32() uint32 {
	if b := c.Bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (c *Cursor) U64() uint64 {
	if b := c.Bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// Copy fills dst.
func (c *Cursor) Copy(dst []byte) { copy(dst, c.Bytes(len(dst))) }

// Left is how many bytes have not been taken.
func (c *Cursor) Left() int { return len(c.b) }

// OK reports whether everything that was asked for was there; Done that nothing is left besides.
func (c *Cursor) OK() bool   { return !c.bad }
func (c *Cursor) Done() bool { return !c.bad && len(c.b) == 0 }
