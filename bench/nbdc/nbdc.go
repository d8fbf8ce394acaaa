// Package nbdc is a small NBD client for tests and measurements: fixed newstyle with GO, simple replies,
// any number of requests in flight on a connection. It trusts nothing of its own server package, so that
// the two check each other.
//
// The protocol is the NBD project's doc/proto.md; the numbers below are from there.
package nbdc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"vstor/dataplane/errs"
)

const (
	magicServer  = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption  = 0x49484156454f5054 // "IHAVEOPT"
	magicReply   = 0x3e889045565a9
	magicRequest = 0x25609513
	magicSimple  = 0x67446698

	flagFixed    = 1 << 0 // in both directions
	flagNoZeroes = 1 << 1

	optGo         = 7
	repAck        = 1
	repInfo       = 3
	infoExport    = 0
	infoBlockSize = 3

	handshakeTimeout = 10 * time.Second
	maxOptionReply   = 64 << 10
)

// Cmd is a request's type.
type Cmd uint16

// The commands.
const (
	CmdRead   Cmd = 0
	CmdWrite  Cmd = 1
	CmdDisc   Cmd = 2
	CmdFlush  Cmd = 3
	CmdTrim   Cmd = 4
	CmdZeroes Cmd = 6
)

// Flags of a request.
const (
	FlagFUA    = 1 << 0
	FlagNoHole = 1 << 1
)

// Flags of an export.
const (
	CanFlush     = 1 << 2
	CanFUA       = 1 << 3
	CanTrim      = 1 << 5
	CanZeroes    = 1 << 6
	CanMultiConn = 1 << 8
)

// Errno is an error that the server answered.
type Errno uint32

func (e Errno) Error() string {
	names := map[Errno]string{1: "EPERM", 5: "EIO", 12: "ENOMEM", 22: "EINVAL", 28: "ENOSPC", 75: "EOVERFLOW",
		95:  "ENOTSUP",
		108: "ESHUTDOWN"}
	if n, ok := names[e]; ok {
		return "the server answered " + n
	}
	return fmt.Sprintf("the server answered error %d", uint32(e))
}

// Conn is a connection to an export. Its methods may be called from many goroutines; each call is one
// request in flight. Once the connection is lost every call returns an error of kind Unreachable.
type Conn struct {
	Size  int64  // bytes
	Flags uint16 // CanX
	// MinBlock, PreferredBlock and MaxBlock are what the server announced in bytes; 0 if it did not.
	MinBlock, PreferredBlock, MaxBlock uint32

	conn net.Conn
	wmu  sync.Mutex // one request leaves at a time
	head [28]byte   // guarded by wmu

	mu      sync.Mutex
	pending map[uint64]*call
	next    uint64
	lost    error
}

type call struct {
	into []byte // where a read's data goes
	done func(error)
}

// Dial connects to an export of the server at addr ("unix" or "tcp") and ends the handshake.
func Dial(network, addr, export string) (*Conn, error) {
	nc, err := net.DialTimeout(network, addr, handshakeTimeout)
	if err != nil {
		return nil, errs.Wrap(errs.Unreachable, err, "nbd: cannot connect")
	}
	c := &Conn{conn: nc, pending: make(map[uint64]*call)}
	nc.SetDeadline(time.Now().Add(handshakeTimeout))
	if err := c.handshake(export); err != nil {
		nc.Close()
		return nil, err
	}
	nc.SetDeadline(time.Time{})
	go c.receive()
	return c, nil
}

func (c *Conn) handshake(export string) error {
	var hello [18]byte
	if _, err := io.ReadFull(c.conn, hello[:]); err != nil {
		return errs.Wrap(errs.Unreachable, err, "nbd: no greeting")
	}
	if binary.BigEndian.Uint64(hello[:]) != magicServer || binary.BigEndian.Uint64(hello[8:]) != magicOption {
		return errs.New(errs.Version, "nbd: the greeting %x is not newstyle", hello[:16])
	}
	if binary.BigEndian.Uint16(hello[16:])&flagFixed == 0 {
		return errs.New(errs.Version, "nbd: the server is not fixed newstyle")
	}
	b := binary.BigEndian.AppendUint32(nil, flagFixed|flagNoZeroes)
	b = binary.BigEndian.AppendUint64(b, magicOption)
	b = binary.BigEndian.AppendUint32(b, optGo)
	b = binary.BigEndian.AppendUint32(b, uint32(4+len(export)+2+2))
	b = binary.BigEndian.AppendUint32(b, uint32(len(export)))
	b = append(b, export...)
	b = binary.BigEndian.AppendUint16(b, 1)
	b = binary.BigEndian.AppendUint16(b, infoBlockSize)
	if _, err := c.conn.Write(b); err != nil {
		return errs.Wrap(errs.Unreachable, err, "nbd: the handshake broke")
	}
	for {
		kind, data, err := c.optionReply()
		switch {
		case err != nil:
			return err
		case kind == repAck:
			return nil
		case kind >= 1<<31:
			return errs.New(errs.Refused, "nbd: the export %q was refused (error %d): %.200s", export, kind&^(1<<31), data)
		case kind == repInfo:
			c.info(data)
		}
	}
}

func (c *Conn) optionReply() (uint32, []byte, error) {
	var head [20]byte
	if _, err := io.ReadFull(c.conn, head[:]); err != nil {
		return 0, nil, errs.Wrap(errs.Unreachable, err, "nbd: the handshake broke")
	}
	n := binary.BigEndian.Uint32(head[16:])
	if binary.BigEndian.Uint64(head[:]) != magicReply || n > maxOptionReply {
		return 0, nil, errs.New(errs.Corrupt, "nbd: not an option reply: %x", head)
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(c.conn, data); err != nil {
		return 0, nil, errs.Wrap(errs.Unreachable, err, "nbd: the handshake broke")
	}
	return binary.BigEndian.Uint32(head[12:]), data, nil
}

func (c *Conn) info(d []byte) {
	if len(d) < 2 {
		return
	}
	switch kind := binary.BigEndian.Uint16(d); {
	case kind == infoExport && len(d) == 12:
		c.Size = int64(binary.BigEndian.Uint64(d[2:]))
		c.Flags = binary.BigEndian.Uint16(d[10:])
	case kind == infoBlockSize && len(d) == 14:
		c.MinBlock = binary.BigEndian.Uint32(d[2:])
		c.PreferredBlock = binary.BigEndian.Uint32(d[6:])
		c.MaxBlock = binary.BigEndian.Uint32(d[10:])
	}
}

// Read fills p from off.
func (c *Conn) Read(p []byte, off int64) error { return c.do(CmdRead, 0, off, uint32(len(p)), nil, p) }

// Write writes p at off; flags may hold FlagFUA.
func (c *Conn) Write(p []byte, off int64, flags uint16) error {
	return c.do(CmdWrite, flags, off, uint32(len(p)), p, nil)
}

// Flush makes every write that was acknowledged before survive power loss.
func (c *Conn) Flush() error { return c.do(CmdFlush, 0, 0, 0, nil, nil) }

// Trim gives a range back.
func (c *Conn) Trim(off int64, n uint32, flags uint16) error {
	return c.do(CmdTrim, flags, off, n, nil, nil)
}

// WriteZeroes zeroes a range.
func (c *Conn) WriteZeroes(off int64, n uint32, flags uint16) error {
	return c.do(CmdZeroes, flags, off, n, nil, nil)
}

// Close says goodbye and disconnects.
func (c *Conn) Close() error {
	c.wmu.Lock()
	c.request(CmdDisc, 0, 0, 0, 0)
	c.conn.SetWriteDeadline(time.Now().Add(time.Second))
	c.conn.Write(c.head[:])
	c.wmu.Unlock()
	if err := c.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err // the server may hang up first, which ends the receiver and closes it
	}
	return nil
}

// Abort disconnects without a word.
func (c *Conn) Abort() error { return c.conn.Close() }

func (c *Conn) request(cmd Cmd, flags uint16, cookie uint64, off int64, n uint32) {
	b := c.head[:0]
	b = binary.BigEndian.AppendUint32(b, magicRequest)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint16(b, uint16(cmd))
	b = binary.BigEndian.AppendUint64(b, cookie)
	b = binary.BigEndian.AppendUint64(b, uint64(off))
	binary.BigEndian.AppendUint32(b, n)
}

func (c *Conn) do(cmd Cmd, flags uint16, off int64, n uint32, payload, into []byte) error {
	done := make(chan error, 1)
	c.send(cmd, flags, off, n, payload, &call{into: into, done: func(err error) { done <- err }})
	return <-done
}

// Go starts a read into p, or a write of it, and returns when it has been sent. done is called once, on the goroutine
// that receives or on this one, and holds up all further replies of this connection until it returns; it may not
// start another request. Until then p belongs to the request.
func (c *Conn) Go(cmd Cmd, p []byte, off int64, done func(error)) {
	if cmd == CmdWrite {
		c.send(cmd, 0, off, uint32(len(p)), p, &call{done: done})
		return
	}
	c.send(cmd, 0, off, uint32(len(p)), nil, &call{into: p, done: done})
}

func (c *Conn) send(cmd Cmd, flags uint16, off int64, n uint32, payload []byte, p *call) {
	c.mu.Lock()
	if c.lost != nil {
		c.mu.Unlock()
		p.done(c.lost)
		return
	}
	c.next++
	cookie := c.next
	c.pending[cookie] = p
	c.mu.Unlock()

	c.wmu.Lock()
	c.request(cmd, flags, cookie, off, n)
	bufs := net.Buffers{c.head[:]}
	if len(payload) > 0 {
		bufs = append(bufs, payload)
	}
	_, err := bufs.WriteTo(c.conn)
	c.wmu.Unlock()
	if err != nil {
		c.lose(err)
	}
}

func (c *Conn) receive() {
	var head [16]byte
	for {
		if _, err := io.ReadFull(c.conn, head[:]); err != nil {
			c.lose(err)
			return
		}
		if binary.BigEndian.Uint32(head[:]) != magicSimple {
			c.lose(fmt.Errorf("not a simple reply: %x", head))
			return
		}
		cookie := binary.BigEndian.Uint64(head[8:])
		c.mu.Lock()
		p := c.pending[cookie]
		delete(c.pending, cookie)
		c.mu.Unlock()
		if p == nil {
			c.lose(fmt.Errorf("a reply to cookie %d, which nothing waits for", cookie))
			return
		}
		if e := binary.BigEndian.Uint32(head[4:]); e != 0 {
			p.done(Errno(e))
			continue
		}
		if _, err := io.ReadFull(c.conn, p.into); err != nil {
			c.lose(err)
			p.done(c.lost)
			return
		}
		p.done(nil)
	}
}

// lose ends the connection and everything that waits on it.
func (c *Conn) lose(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost == nil {
		c.lost = errs.Wrap(errs.Unreachable, cause, "nbd: the connection is lost")
		c.conn.Close()
	}
	for cookie, p := range c.pending {
		p.done(c.lost)
		delete(c.pending, cookie)
	}
}
