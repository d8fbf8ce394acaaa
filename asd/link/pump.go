package link

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vstor/dataplane/errs"
)

const (
	pumpBuffer = 64 << 10 // bytes, each way
	// pumpTimeout is how long a peer may take to accept one buffer. The loop cannot tell the pump that it has
	// given up while the pump waits in a write.
	pumpTimeout = 30 * time.Second
)

// Pump stands between nc, for example TLS, and a socket that a loop can own: two goroutines copy, with a
// buffer of 64 KiB each. The descriptor is one end of a pair of unix sockets, in blocking mode. The goroutines
// end, and nc is closed, when the descriptor is closed, and when nc has ended both ways. nc is not the
// caller's any more, also after an error.
//
// The obvious kernel TLS would spare both copies, but crypto/tls does not give its keys away.
func Pump(nc net.Conn) (fd int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		nc.Close()
		return -1, errs.Wrap(errs.IO, err, "link: no pair of sockets")
	}
	f := os.NewFile(uintptr(pair[1]), "pump")
	inner, err := net.FileConn(f)
	f.Close()
	if err != nil {
		nc.Close()
		unix.Close(pair[0])
		return -1, errs.Wrap(errs.IO, err, "link: no pair of sockets")
	}
	p := &pump{outer: nc, inner: inner.(*net.UnixConn)}
	p.work.Add(2)
	go p.in()
	go p.out()
	go func() { p.work.Wait(); p.inner.Close() }()
	return pair[0], nil
}

type pump struct {
	outer net.Conn
	inner *net.UnixConn
	work  sync.WaitGroup
}

// in carries what the peer sends. Its end reaches the loop as the end of the stream, behind what came before;
// answers may still go out.
func (p *pump) in() {
	defer p.work.Done()
	_, err := copyStream(p.inner, p.outer, nil)
	if err == nil {
		p.inner.CloseWrite()
		return
	}
	// The loop has closed, or what came is not what the peer sent: nothing goes on.
	p.inner.CloseRead()
	p.inner.CloseWrite()
}

// out carries what the loop sends, and closes both ends when the loop has closed its own: a loop never
// closes one direction alone.
func (p *pump) out() {
	defer p.work.Done()
	copyStream(p.outer, p.inner, func() { p.outer.SetWriteDeadline(time.Now().Add(pumpTimeout)) })
	p.outer.Close()
}

// copyStream copies until the end of src, which is no error. io.Copy would splice where it can and allocate
// where it cannot; here every buffer is known.
func copyStream(dst io.Writer, src io.Reader, before func()) (n int64, err error) {
	b := make([]byte, pumpBuffer)
	for {
		k, rerr := src.Read(b)
		if k > 0 {
			if before != nil {
				before()
			}
			if _, err := dst.Write(b[:k]); err != nil {
				return n, err
			}
			n += int64(k)
		}
		if errors.Is(rerr, io.EOF) {
			return n, nil
		}
		if rerr != nil {
			return n, rerr
		}
	}
}
