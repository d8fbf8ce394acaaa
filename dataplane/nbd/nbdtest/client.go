package nbdtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"vstor/dataplane/nbd"
)

// Client is an NBD client for tests: blocking, one goroutine, simple replies. Send and Recv let a test
// keep many requests in flight, or send half of one; the other methods do one request and wait.
type Client struct {
	Conn  net.Conn
	Size  int64
	Flags uint16

	cookie uint64
}

// Dial connects and enters transmission on an export by GO.
func Dial(network, addr, export string) (*Client, error) {
	nc, err := net.Dial(network, addr)
	if err != nil {
		return nil, err
	}
	c := &Client{Conn: nc}
	if err := c.handshake(export); err != nil {
		nc.Close()
		return nil, err
	}
	return c, nil
}

const optionMagic = 0x49484156454f5054

// Greet reads the server's greeting and answers with flags.
func (c *Client) Greet(flags uint32) error {
	var b [18]byte
	if _, err := io.ReadFull(c.Conn, b[:]); err != nil {
		return err
	}
	if string(b[:16]) != "NBDMAGICIHAVEOPT" {
		return fmt.Errorf("greeting %q", b[:16])
	}
	_, err := c.Conn.Write(binary.BigEndian.AppendUint32(nil, flags))
	return err
}

// SendOption sends one option.
func (c *Client) SendOption(opt nbd.Option, data []byte) error {
	b := binary.BigEndian.AppendUint64(nil, optionMagic)
	b = binary.BigEndian.AppendUint32(b, uint32(opt))
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	_, err := c.Conn.Write(append(b, data...))
	return err
}

// OptionReply reads one reply to an option.
func (c *Client) OptionReply() (opt nbd.Option, rep nbd.OptionReply, data []byte, err error) {
	var b [20]byte
	if _, err = io.ReadFull(c.Conn, b[:]); err != nil {
		return
	}
	if binary.BigEndian.Uint64(b[:]) != 0x3e889045565a9 {
		return 0, 0, nil, fmt.Errorf("option reply magic %x", b[:8])
	}
	data = make([]byte, binary.BigEndian.Uint32(b[16:]))
	_, err = io.ReadFull(c.Conn, data)
	return nbd.Option(binary.BigEndian.Uint32(b[8:])), nbd.OptionReply(binary.BigEndian.Uint32(b[12:])), data, err
}

// InfoData is the payload of an INFO or GO.
func InfoData(export string, types ...nbd.InfoType) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(export)))
	b = append(b, export...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(types)))
	for _, t := range types {
		b = binary.BigEndian.AppendUint16(b, uint16(t))
	}
	return b
}

func (c *Client) handshake(export string) error {
	if err := c.Greet(3); err != nil {
		return err
	}
	if err := c.SendOption(nbd.OptGo, InfoData(export)); err != nil {
		return err
	}
	for {
		_, rep, data, err := c.OptionReply()
		switch {
		case err != nil:
			return err
		case rep == nbd.RepAck:
			return nil
		case rep == nbd.RepInfo && len(data) == 12 && binary.BigEndian.Uint16(data) == uint16(nbd.InfoExport):
			c.Size = int64(binary.BigEndian.Uint64(data[2:]))
			c.Flags = binary.BigEndian.Uint16(data[10:])
		case rep&(1<<31) != 0:
			return fmt.Errorf("GO %q: %#x: %s", export, uint32(rep), data)
		}
	}
}

// Header is a request in bytes. It takes a cookie of its own if r has none.
func (c *Client) Header(r *nbd.Request) []byte {
	if r.Cookie == 0 {
		c.cookie++
		r.Cookie = c.cookie
	}
	b := make([]byte, nbd.RequestSize)
	nbd.PutRequest(b, *r)
	return b
}

// Send sends a request with its payload and returns its cookie.
func (c *Client) Send(r nbd.Request, payload []byte) (uint64, error) {
	_, err := c.Conn.Write(append(c.Header(&r), payload...))
	return r.Cookie, err
}

// Recv reads a reply header. The data of a successful read follows, and is the caller's to read.
func (c *Client) Recv() (nbd.Errno, uint64, error) {
	var b [nbd.ReplySize]byte
	if _, err := io.ReadFull(c.Conn, b[:]); err != nil {
		return 0, 0, err
	}
	e, cookie, ok := nbd.ParseReply(b[:])
	if !ok {
		return 0, 0, fmt.Errorf("reply %x is no simple reply", b)
	}
	return e, cookie, nil
}

// RequestError is an error the server answered with.
type RequestError struct{ Errno nbd.Errno }

func (e *RequestError) Error() string { return "the server answers " + e.Errno.String() }

// ErrnoOf is the server's error in err, or OK.
func ErrnoOf(err error) nbd.Errno {
	var re *RequestError
	if errors.As(err, &re) {
		return re.Errno
	}
	return nbd.OK
}

// Do sends one request and waits for its reply; into is filled if it is a read that succeeds.
func (c *Client) Do(r nbd.Request, payload, into []byte) error {
	cookie, err := c.Send(r, payload)
	if err != nil {
		return err
	}
	e, got, err := c.Recv()
	switch {
	case err != nil:
		return err
	case got != cookie:
		return fmt.Errorf("cookie %#x came back as %#x", cookie, got)
	case e != nbd.OK:
		return &RequestError{e}
	}
	_, err = io.ReadFull(c.Conn, into)
	return err
}

// ReadAt, WriteAt, Flush, Trim and Zero do one request.
func (c *Client) ReadAt(p []byte, off int64) error {
	return c.Do(nbd.Request{Type: nbd.CmdRead, Offset: uint64(off), Length: uint32(len(p))}, nil, p)
}

func (c *Client) WriteAt(p []byte, off int64, flags uint16) error {
	return c.Do(nbd.Request{Type: nbd.CmdWrite, Flags: flags, Offset: uint64(off), Length: uint32(len(p))}, p, nil)
}

func (c *Client) Flush() error { return c.Do(nbd.Request{Type: nbd.CmdFlush}, nil, nil) }

func (c *Client) Trim(off int64, n uint32, flags uint16) error {
	return c.Do(nbd.Request{Type: nbd.CmdTrim, Flags: flags, Offset: uint64(off), Length: n}, nil, nil)
}

func (c *Client) Zero(off int64, n uint32, flags uint16) error {
	return c.Do(nbd.Request{Type: nbd.CmdWriteZeroes, Flags: flags, Offset: uint64(off), Length: n}, nil, nil)
}

// Close says good-bye and closes.
func (c *Client) Close() error {
	c.Send(nbd.Request{Type: nbd.CmdDisc}, nil)
	return c.Conn.Close()
}
