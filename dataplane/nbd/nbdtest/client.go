package nbdtest

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"vstor/dataplane/nbd"
)

// Client is an NBD client for tests: blocking, one goroutine. Send and Recv let a test keep many requests in
// flight, or send half of one, with simple replies; Ask and Answer do in every mode, and hold the server to
// the protocol; the other methods do one request and wait.
type Client struct {
	Conn  net.Conn
	Size  int64
	Flags uint16
	Mode  nbd.Mode
	// Contexts are the ids of the metadata contexts that were selected, by name.
	Contexts map[string]uint32

	cookie  uint64
	pending map[uint64]*pending
}

// Ask is what a client wants of the handshake.
type Ask struct {
	Export   string
	Mode     nbd.Mode
	Contexts []string
	TLS      *tls.Config // nil: none
}

// Dial connects and enters transmission on an export by GO, with simple replies.
func Dial(network, addr, export string) (*Client, error) {
	return DialAsk(network, addr, Ask{Export: export})
}

// DialAsk connects and enters transmission by GO.
func DialAsk(network, addr string, a Ask) (*Client, error) {
	nc, err := net.Dial(network, addr)
	if err != nil {
		return nil, err
	}
	c := &Client{Conn: nc}
	if err := c.handshake(a); err != nil {
		c.Conn.Close()
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

// MetaData is the payload of a LIST_META_CONTEXT or SET_META_CONTEXT.
func MetaData(export string, queries ...string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(export)))
	b = append(b, export...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(queries)))
	for _, q := range queries {
		b = binary.BigEndian.AppendUint32(b, uint32(len(q)))
		b = append(b, q...)
	}
	return b
}

func (c *Client) handshake(a Ask) error {
	if err := c.Greet(3); err != nil {
		return err
	}
	if a.TLS != nil {
		if err := c.option(nbd.OptStartTLS, nil, nil); err != nil {
			return err
		}
		c.Conn = tls.Client(c.Conn, a.TLS)
	}
	c.Mode = a.Mode
	var err error
	switch a.Mode {
	case nbd.Structured:
		err = c.option(nbd.OptStructured, nil, nil)
	case nbd.Extended:
		err = c.option(nbd.OptExtendedHeaders, nil, nil)
	}
	if err != nil {
		return err
	}
	if len(a.Contexts) > 0 {
		c.Contexts = map[string]uint32{}
		err := c.option(nbd.OptSetMeta, MetaData(a.Export, a.Contexts...), func(rep nbd.OptionReply, data []byte) {
			if rep == nbd.RepMetaContext {
				c.Contexts[string(data[4:])] = binary.BigEndian.Uint32(data)
			}
		})
		if err != nil {
			return err
		}
	}
	return c.option(nbd.OptGo, InfoData(a.Export), func(rep nbd.OptionReply, data []byte) {
		if rep == nbd.RepInfo && len(data) == 12 && binary.BigEndian.Uint16(data) == uint16(nbd.InfoExport) {
			c.Size = int64(binary.BigEndian.Uint64(data[2:]))
			c.Flags = binary.BigEndian.Uint16(data[10:])
		}
	})
}

// option sends an option and takes its replies, up to the ACK or an error.
func (c *Client) option(opt nbd.Option, data []byte, reply func(nbd.OptionReply, []byte)) error {
	if err := c.SendOption(opt, data); err != nil {
		return err
	}
	for {
		got, rep, data, err := c.OptionReply()
		switch {
		case err != nil:
			return err
		case got != opt:
			return fmt.Errorf("option %d was answered as %d", opt, got)
		case rep == nbd.RepAck:
			return nil
		case rep&(1<<31) != 0:
			return fmt.Errorf("option %d: %#x: %s", opt, uint32(rep), data)
		case reply != nil:
			reply(rep, data)
		}
	}
}

// Header is a request in bytes. It takes a cookie of its own if r has none.
func (c *Client) Header(r *nbd.Request) []byte {
	if r.Cookie == 0 {
		c.cookie++
		r.Cookie = c.cookie
	}
	return nbd.AppendRequest(nil, c.Mode, *r)
}

// Send sends a request with its payload and returns its cookie.
func (c *Client) Send(r nbd.Request, payload []byte) (uint64, error) {
	_, err := c.Conn.Write(append(c.Header(&r), payload...))
	return r.Cookie, err
}

// Recv reads a simple reply's header. The data of a successful read follows, and is the caller's to read.
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
type RequestError struct {
	Errno    nbd.Errno
	Sentence string
}

func (e *RequestError) Error() string {
	return "the server answers " + e.Errno.String() + " " + e.Sentence
}

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
	a, err := c.DoAnswer(r, payload)
	if err == nil {
		copy(into, a.Data)
	}
	return err
}

// DoAnswer sends one request and waits for its reply, which is also given with a RequestError.
func (c *Client) DoAnswer(r nbd.Request, payload []byte) (*Answer, error) {
	cookie, err := c.Ask(r, payload)
	if err != nil {
		return nil, err
	}
	a, err := c.Answer()
	switch {
	case err != nil:
		return nil, err
	case a.Cookie != cookie:
		return nil, fmt.Errorf("cookie %#x came back as %#x", cookie, a.Cookie)
	case a.Errno != nbd.OK:
		return a, &RequestError{a.Errno, a.Sentence}
	}
	return a, nil
}

// ReadAt, WriteAt, Flush, Trim and Zero do one request.
func (c *Client) ReadAt(p []byte, off int64) error {
	return c.Do(nbd.Request{Type: nbd.CmdRead, Offset: uint64(off), Length: uint64(len(p))}, nil, p)
}

func (c *Client) WriteAt(p []byte, off int64, flags uint16) error {
	if c.Mode == nbd.Extended {
		flags |= nbd.FlagPayload
	}
	return c.Do(nbd.Request{Type: nbd.CmdWrite, Flags: flags, Offset: uint64(off), Length: uint64(len(p))}, p, nil)
}

func (c *Client) Flush() error { return c.Do(nbd.Request{Type: nbd.CmdFlush}, nil, nil) }

func (c *Client) Trim(off, n int64, flags uint16) error {
	return c.Do(nbd.Request{Type: nbd.CmdTrim, Flags: flags, Offset: uint64(off), Length: uint64(n)}, nil, nil)
}

func (c *Client) Zero(off, n int64, flags uint16) error {
	return c.Do(nbd.Request{Type: nbd.CmdWriteZeroes, Flags: flags, Offset: uint64(off), Length: uint64(n)}, nil, nil)
}

// Close says good-bye and closes.
func (c *Client) Close() error {
	c.Send(nbd.Request{Type: nbd.CmdDisc}, nil)
	return c.Conn.Close()
}
