package psk13

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Source is where a Conn reads: a bufio.Reader with room for a record, or a buffer that many records arrive
// in.
type Source interface {
	// Peek returns the next n bytes without taking them, and fewer only with an error. A net.Error with
	// Timeout passes: the same Peek may succeed later.
	Peek(n int) ([]byte, error)
	Discard(n int) (int, error)
}

const (
	// maxUseless is how many records in a row may carry nothing for us before they are an attack.
	maxUseless = 16
	// maxEarlyData is how much is passed over of what a client sends before it knows that we take none, in
	// bytes.
	maxEarlyData = 64 << 10
	// rekeyAfter is how many records one key seals (RFC 8446, 5.5, allows AES-GCM 2^24.5): every 256 GiB.
	rekeyAfter = 1 << 24
	// closeTimeout is how long a close_notify may take to leave.
	closeTimeout = 5 * time.Second

	// flightSize is what one system call sends: four full records.
	flightSize = 4 * (headerLen + maxPlain + 1 + tagLen)
)

var flights = sync.Pool{New: func() any { return new([flightSize + 64]byte) }}

// Conn is a connection whose peer has proved that it has the key of an identity. One goroutine may read
// while another writes and any closes.
type Conn struct {
	net.Conn // below, in clear
	identity string

	src     Source // of the reader
	in      half
	hand    []byte // handshake messages, in part
	scratch []byte
	rest    []byte // of scratch: data that no Read has had room for
	useless int
	skip    int  // bytes of early data still to pass over
	skipCCS bool // a ChangeCipherSpec may come
	shaken  bool
	rerr    error // final

	mu         sync.Mutex // of the writers
	out        half
	maxOut     int // bytes of content per record
	rekeyAfter uint64
	werr       error
	owesUpdate atomic.Bool // the peer has asked for a KeyUpdate, which goes before the next data
}

// Identity is whose key the peer has proved to have.
func (c *Conn) Identity() string { return c.identity }

// NetConn is the connection below.
func (c *Conn) NetConn() net.Conn { return c.Conn }

// readRecord reads one record and opens it, into dst if that is large enough for any that fits the wire's
// bytes.
func (c *Conn) readRecord(dst []byte) (typ byte, content []byte, err error) {
	for {
		header, err := c.src.Peek(headerLen)
		if err != nil {
			return 0, nil, cut(err)
		}
		typ, n := header[0], int(binary.BigEndian.Uint16(header[3:]))
		limit := maxPlain
		if c.in.aead != nil {
			limit = maxSealed
		}
		switch {
		case typ < typeChangeCipherSpec || typ > typeData || header[1] != 3:
			return 0, nil, fault(UnexpectedMessage, "what the client sends is not TLS")
		case n > limit:
			return 0, nil, fault(RecordOverflow, "the client sends a record of %d bytes", n)
		}
		record, err := c.src.Peek(headerLen + n)
		if err != nil {
			return 0, nil, cut(err)
		}
		typ, content, again, err := c.unwrap(dst, record)
		c.src.Discard(len(record))
		if !again || err != nil {
			return typ, content, err
		}
	}
}

// cut says that an end of the connection below is none of this one.
func cut(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// unwrap takes the protection off a record, or says to pass over it. What it returns does not lie in record.
func (c *Conn) unwrap(dst, record []byte) (typ byte, content []byte, again bool, err error) {
	typ, body := record[0], record[headerLen:]
	switch {
	case typ == typeChangeCipherSpec:
		if !c.skipCCS || len(body) != 1 || body[0] != 1 {
			return 0, nil, false, fault(UnexpectedMessage, "the client changes ciphers")
		}
		return 0, nil, true, c.nothing()
	case c.in.aead == nil && typ == typeData && len(body) > 0 && c.skip >= len(body): // none: for ever
		c.skip -= len(body) // after a retry
		return 0, nil, true, nil
	case c.in.aead == nil, typ == typeAlert && !c.shaken: // a client that cannot follow us has no keys
		c.scratch = append(c.scratch[:0], body...)
		return typ, c.scratch, false, nil
	case typ != typeData:
		return 0, nil, false, fault(UnexpectedMessage, "a record came in clear")
	case len(body) < tagLen+1:
		return 0, nil, false, fault(BadRecordMAC, "a record is too short")
	}
	if need := len(body) - tagLen; len(dst) < need {
		if cap(c.scratch) < need {
			c.scratch = make([]byte, need)
		}
		dst = c.scratch[:need]
	}
	typ, content, bad := c.in.open(dst, record)
	if bad != nil {
		if c.skip >= len(body) {
			c.skip -= len(body)
			return 0, nil, true, nil
		}
		return 0, nil, false, bad
	}
	c.skip = 0
	return typ, content, false, nil
}

// nothing counts a record that carried nothing.
func (c *Conn) nothing() error {
	if c.useless++; c.useless > maxUseless {
		return fault(UnexpectedMessage, "the client sends %d records in a row that carry nothing", c.useless)
	}
	return nil
}

// readMessage reads one handshake message of at most limit bytes. It is the caller's until the handshake
// ends.
func (c *Conn) readMessage(limit int) ([]byte, error) {
	for {
		if len(c.hand) >= 4 {
			n := 4 + int(c.hand[1])<<16 + int(c.hand[2])<<8 + int(c.hand[3])
			if n > limit {
				return nil, fault(IllegalParameter, "the client sends a message of %d bytes, %d are enough", n,
					limit)
			}
			if len(c.hand) >= n {
				m := c.hand[:n:n]
				c.hand = c.hand[n:]
				return m, nil
			}
		}
		typ, content, err := c.readRecord(nil)
		switch {
		case err != nil:
			return nil, err
		case typ == typeAlert:
			if err := c.alerted(content); err != nil {
				return nil, err
			}
		case typ != typeHandshake || len(content) == 0:
			return nil, fault(UnexpectedMessage, "the client sends something else than its handshake")
		default:
			c.hand = append(c.hand, content...)
		}
	}
}

// alerted is what an alert means: io.EOF that the peer sends no more; nil nothing.
func (c *Conn) alerted(content []byte) error {
	if len(content) != 2 {
		return fault(DecodeError, "an alert is malformed")
	}
	switch a := Alert(content[1]); a {
	case CloseNotify:
		return io.EOF
	case UserCanceled: // a close_notify follows
		return c.nothing()
	default:
		return fromPeer(a)
	}
}

// Read is a net.Conn's. With room for a whole record, 16 KiB and a few hundred bytes, it decrypts into b.
// io.EOF is the peer's word that it sends no more; a connection that ends without is cut,
// io.ErrUnexpectedEOF. After an error that is a timeout the next Read goes on.
func (c *Conn) Read(b []byte) (int, error) {
	for len(b) > 0 {
		if n := copy(b, c.rest); n > 0 {
			c.rest = c.rest[n:]
			return n, nil
		}
		if c.rerr != nil {
			return 0, c.rerr
		}
		typ, content, err := c.readRecord(b)
		if err == nil {
			switch {
			case typ == typeData && len(content) > 0:
				c.useless = 0
				if &content[0] == &b[0] {
					return len(content), nil
				}
				c.rest = content
				continue
			case typ == typeData:
				err = c.nothing()
			case typ == typeAlert:
				err = c.alerted(content)
			case typ == typeHandshake:
				err = c.keyUpdate(content)
			default:
				err = fault(UnexpectedMessage, "a record holds type %d", typ)
			}
		}
		var passing net.Error
		if errors.As(err, &passing) && passing.Timeout() {
			return 0, err
		}
		if err != nil {
			return 0, c.fail(err)
		}
	}
	return 0, nil
}

// keyUpdate takes the only message that may come after the handshake (4.6.3), alone in its record:
//
//	0 type 24 | 1 length u24, 1 | 4 u8: 1 asks for the same of us
func (c *Conn) keyUpdate(m []byte) error {
	switch {
	case len(m) == 0 || m[0] != msgKeyUpdate:
		return fault(UnexpectedMessage, "the client shakes hands again")
	case len(m) != 5 || m[1] != 0 || m[2] != 0 || m[3] != 1:
		return fault(DecodeError, "a KeyUpdate is malformed")
	case m[4] > 1:
		return fault(IllegalParameter, "a KeyUpdate asks for %d", m[4])
	}
	if err := c.nothing(); err != nil {
		return err
	}
	c.in.update()
	if m[4] == 1 {
		// At once would be wrong: the writer may be waiting for a peer that waits for this reader.
		c.owesUpdate.Store(true)
	}
	return nil
}

// fail makes err final and tells the peer, if it was this side that found the fault.
func (c *Conn) fail(err error) error {
	if c.rerr = err; err == io.EOF {
		return err // half closed: we may still write
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := asFault(err); f != nil && c.werr == nil {
		c.alert(2, f.Alert)
	}
	if c.werr == nil {
		c.werr = err
	}
	return err
}

// alert sends an alert; mu is held.
func (c *Conn) alert(level byte, a Alert) error {
	_, err := c.Conn.Write(c.out.seal(make([]byte, 0, 64), typeAlert, []byte{level, byte(a)}))
	return err
}

// Write is a net.Conn's: it returns when the connection below has taken all of b, in records that are as
// long as the peer allows and up to four in a system call. After an error all others fail.
func (c *Conn) Write(b []byte) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := flights.Get().(*[flightSize + 64]byte)
	defer flights.Put(f)
	for len(b) > 0 && c.werr == nil {
		out, took := f[:0], 0
		for took < len(b) {
			k := min(len(b)-took, c.maxOut)
			if len(out)+headerLen+k+1+tagLen > flightSize {
				break
			}
			out = c.rekey(out)
			out = c.out.seal(out, typeData, b[took:took+k])
			took += k
		}
		if _, err := c.Conn.Write(out); err != nil {
			c.werr = err // the peer may have got half a record
			break
		}
		n, b = n+took, b[took:]
	}
	return n, c.werr
}

// rekey appends a KeyUpdate where one is due. There is room for it behind a full flight.
func (c *Conn) rekey(out []byte) []byte {
	if c.out.seq < c.rekeyAfter && !c.owesUpdate.Load() {
		return out
	}
	c.owesUpdate.Store(false)
	out = c.out.seal(out, typeHandshake, []byte{msgKeyUpdate, 0, 0, 1, 0})
	c.out.update()
	return out
}

// CloseWrite tells the peer that no more comes.
func (c *Conn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closeNotify()
}

func (c *Conn) closeNotify() error {
	if c.werr != nil {
		return c.werr
	}
	c.werr = os.ErrClosed
	return c.alert(1, CloseNotify)
}

// Close tells the peer, unless a Write is waiting for it, and closes the connection below.
func (c *Conn) Close() error {
	if c.mu.TryLock() {
		c.Conn.SetWriteDeadline(time.Now().Add(closeTimeout))
		c.closeNotify()
		c.mu.Unlock()
	}
	return c.Conn.Close()
}
