package tlsconn

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"vstor/dataplane/errs"
)

// pumpTimeout is how long a peer may take to accept one buffer. The loop cannot tell the pump that it has
// given up while the pump waits in a write.
const pumpTimeout = 30 * time.Second

// recordRoom is what a record may need to be decrypted in place, in bytes.
const recordRoom = 16<<10 + 256

// Pump stands between nc, for example TLS, and a socket that a loop can own: two goroutines copy. The
// descriptor is one end of a pair of unix sockets, in blocking mode. The goroutines end, and nc is closed,
// when the descriptor is closed, and when nc has ended both ways. nc is not the caller's any more, also
// after an error.
//
// Over a Layer a waiting pump holds no buffers, and carries all that has arrived with one system call. What
// has arrived never waits for more.
//
// The obvious kernel TLS would spare both copies, but crypto/tls does not give its keys away.
func Pump(nc net.Conn) (fd int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		nc.Close()
		return -1, errs.Wrap(errs.IO, err, "tlsconn: no pair of sockets")
	}
	f := os.NewFile(uintptr(pair[1]), "pump")
	inner, err := net.FileConn(f)
	f.Close()
	if err != nil {
		nc.Close()
		unix.Close(pair[0])
		return -1, errs.Wrap(errs.IO, err, "tlsconn: no pair of sockets")
	}
	nc.SetDeadline(time.Time{}) // the handshake's
	p := &pump{outer: nc, inner: inner.(*net.UnixConn), loop: newLayer(inner), peer: layerOf(nc)}
	if p.peer != nil {
		p.gather, p.peer.patience = !p.peer.whole, pumpTimeout
	}
	p.running.Store(2)
	go p.in()
	go p.out()
	return pair[0], nil
}

type pump struct {
	outer   net.Conn
	peer    *layer // under outer; nil: there is none
	gather  bool   // outer writes one record at a time, which peer is to gather
	inner   *net.UnixConn
	loop    *layer // around inner
	running atomic.Int32
}

// layerOf is what lies under a TLS connection of this package. Everything else, and a TLS connection that has
// no layer, gets none.
func layerOf(nc net.Conn) *layer {
	if t, ok := nc.(interface{ NetConn() net.Conn }); ok {
		l, _ := t.NetConn().(*layer)
		return l
	}
	return nil
}

// in carries what the peer sends. Its end reaches the loop as the end of the stream, behind what came before;
// answers may still go out.
func (p *pump) in() {
	defer p.done()
	var err error
	if p.peer != nil {
		err = p.carryIn()
	} else {
		err = p.copyIn()
	}
	if err != io.EOF {
		// The loop has closed, or what came is not what the peer sent: nothing goes on.
		p.inner.CloseRead()
	}
	p.inner.CloseWrite()
}

// carryIn returns io.EOF when the peer has said that it sends no more.
func (p *pump) carryIn() error {
	defer p.peer.release()
	for {
		// First without waiting: the handshake may have received more than its own.
		dry, err := p.drain()
		if err != nil {
			return err
		}
		if !dry {
			continue
		}
		if err := p.peer.fill(); err != nil {
			return truncated(err)
		}
	}
}

// truncated turns the end of the socket into an error: TLS had not said that it would come, so anybody may
// have cut it.
func truncated(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// drain passes on one buffer of what can be decrypted now; dry says that there was no more. io.EOF is the
// peer's word that no more comes.
func (p *pump) drain() (dry bool, err error) {
	b := chunks.Get().(*chunk)
	defer chunks.Put(b)
	n := 0
	p.peer.dry = true
	for len(b)-n >= recordRoom && err == nil {
		var k int
		k, err = p.outer.Read(b[n:])
		n += k
	}
	p.peer.dry = false
	if n > 0 {
		if _, werr := p.inner.Write(b[:n]); werr != nil {
			return false, werr
		}
	}
	if err == errDry {
		return true, nil
	}
	return false, err
}

func (p *pump) copyIn() error {
	b := make([]byte, chunkSize)
	for {
		n, err := p.outer.Read(b)
		if n > 0 {
			if _, err := p.inner.Write(b[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
}

// out carries what the loop sends, and closes both ends when the loop has closed its own: a loop never
// closes one direction alone.
func (p *pump) out() {
	defer p.done()
	for p.loop.fill() == nil {
		if p.send(p.loop.in[:p.loop.w]) != nil {
			break
		}
		p.loop.release()
	}
	p.loop.release()
	p.outer.Close()
}

func (p *pump) send(b []byte) error {
	if p.peer == nil {
		p.outer.SetWriteDeadline(time.Now().Add(pumpTimeout))
	}
	if !p.gather {
		_, err := p.outer.Write(b)
		return err
	}
	p.peer.cork()
	_, err := p.outer.Write(b)
	return errors.Join(err, p.peer.flush())
}

func (p *pump) done() {
	if p.running.Add(-1) == 0 {
		p.inner.Close()
	}
}
