package tlsconn

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// layer lies between TLS and the socket, because crypto/tls reads and writes one record, of 16 KiB at most,
// per system call. It reads what has arrived, many records at once; says when it is dry instead of waiting,
// so that the pump can pass on all it has got; and gathers the records of one write.
//
//	tls.Conn ── Read ──► in[r:w] ◄── fill ── socket        one goroutine: the handshake's, later pump.in
//	         ── Write ─► out, while corked ── flush ──►     any; mu
//
// While it waits for the peer it holds no buffer.
type layer struct {
	net.Conn
	raw syscall.RawConn // nil: Conn is no socket

	in   *chunk // nil: nothing is buffered
	r, w int
	dry  bool // Read reports errDry instead of waiting
	try  func(fd uintptr) bool
	got  int // of try
	err  error

	whole    bool          // what is above writes many records at once itself
	patience time.Duration // how long the peer may take for one write; 0: deadlines are the owner's
	armed    atomic.Int64  // when the deadline of writes was set, in ns of Unix

	mu     sync.Mutex
	corked bool
	out    *chunk // nil: nothing is gathered
	n      int
}

// chunk is a buffer of the pumps. Four 16 KiB records and their frames fit.
type chunk [chunkSize]byte

const chunkSize = 68 << 10

var chunks = sync.Pool{New: func() any { return new(chunk) }}

// errDry is a net.Error that passes: crypto/tls keeps what it has of a record and goes on later.
var errDry net.Error = dryError{}

type dryError struct{}

func (dryError) Error() string   { return "tlsconn: nothing more has arrived" }
func (dryError) Timeout() bool   { return true }
func (dryError) Temporary() bool { return true }

// Layer is what to put under a TLS connection that Pump is to carry fast. It is nc for all other purposes.
func Layer(nc net.Conn) net.Conn { return newLayer(nc) }

func newLayer(nc net.Conn) *layer {
	l := &layer{Conn: nc}
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			l.raw = raw
		}
	}
	l.try = l.tryRead
	return l
}

// fill waits until at least one byte is buffered that was not before; there must be room for it.
func (l *layer) fill() error {
	if l.w == chunkSize {
		l.w = copy(l.in[:], l.in[l.r:l.w])
		l.r = 0
	}
	if l.raw == nil {
		if l.in == nil {
			l.in = chunks.Get().(*chunk)
		}
		n, err := l.Conn.Read(l.in[l.w:])
		l.w += n
		if n > 0 {
			return nil
		}
		if err == nil {
			err = io.ErrNoProgress
		}
		return err
	}
	if err := l.raw.Read(l.try); err != nil {
		return err
	}
	if l.err != nil {
		return &net.OpError{Op: "read", Net: "tls", Err: l.err}
	}
	if l.got == 0 {
		return io.EOF
	}
	l.w += l.got
	return nil
}

// tryRead takes a buffer only when something is there to put into it: false waits for that without one.
func (l *layer) tryRead(fd uintptr) bool {
	had := l.in != nil
	if !had {
		l.in = chunks.Get().(*chunk)
	}
	for {
		l.got, l.err = unix.Read(int(fd), l.in[l.w:])
		if l.err != unix.EINTR {
			break
		}
	}
	if l.err != nil {
		l.got = 0
	}
	if l.got == 0 && !had {
		l.release()
	}
	return l.err != unix.EAGAIN
}

// release returns the empty read buffer.
func (l *layer) release() {
	if l.in != nil {
		chunks.Put(l.in)
	}
	l.in, l.r, l.w = nil, 0, 0
}

// empty reports whether a Read would have to wait for the peer.
func (l *layer) empty() bool { return l.r == l.w }

// buffered is what has been read and not taken.
func (l *layer) buffered() []byte {
	if l.in == nil {
		return nil
	}
	return l.in[l.r:l.w]
}

// Read hands on what is buffered.
func (l *layer) Read(b []byte) (int, error) {
	if l.empty() {
		if l.dry {
			return 0, errDry
		}
		if err := l.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(b, l.in[l.r:l.w])
	if l.r += n; l.empty() {
		l.release()
	}
	return n, nil
}

// Peek is the next n bytes, which stay; they are good until the next call. n is at most a record's.
func (l *layer) Peek(n int) ([]byte, error) {
	for l.w-l.r < n {
		if l.dry {
			return nil, errDry
		}
		if err := l.fill(); err != nil {
			return nil, err
		}
	}
	return l.in[l.r : l.r+n], nil
}

// Discard takes n bytes that Peek has shown.
func (l *layer) Discard(n int) (int, error) {
	if l.r += n; l.empty() {
		l.release()
	}
	return n, nil
}

// Write sends, or while corked gathers.
func (l *layer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.corked {
		return l.write(b)
	}
	if l.out == nil {
		l.out = chunks.Get().(*chunk)
	}
	if len(b) > len(l.out)-l.n {
		if err := l.send(); err != nil {
			return 0, err
		}
		if len(b) > chunkSize {
			return l.write(b)
		}
		l.out = chunks.Get().(*chunk)
	}
	l.n += copy(l.out[l.n:], b)
	return len(b), nil
}

// write sends with patience. The deadline is set here, not by who sends data: crypto/tls answers a KeyUpdate
// while it reads, and would die of a deadline that was meant for the last answer before a long silence.
func (l *layer) write(b []byte) (int, error) {
	if l.patience > 0 {
		now := time.Now()
		if now.UnixNano()-l.armed.Load() > int64(time.Second) { // a timer for each answer would cost
			l.SetWriteDeadline(now.Add(l.patience))
		}
	}
	return l.Conn.Write(b)
}

// SetWriteDeadline is a net.Conn's; write leaves it alone for a second.
func (l *layer) SetWriteDeadline(t time.Time) error {
	l.armed.Store(time.Now().UnixNano())
	return l.Conn.SetWriteDeadline(t)
}

// cork gathers what is written until flush.
func (l *layer) cork() {
	l.mu.Lock()
	l.corked = true
	l.mu.Unlock()
}

func (l *layer) flush() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.corked = false
	return l.send()
}

func (l *layer) send() error {
	if l.out == nil {
		return nil
	}
	_, err := l.write(l.out[:l.n])
	chunks.Put(l.out)
	l.out, l.n = nil, 0
	return err
}
