//go:build e2e

package e2e

import (
	"bytes"
	bin "encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"vstor/bench/nbdc"
)

// connect opens a connection and reads the greeting; without one it was refused.
func (a *attack) connect() (nc net.Conn, refused bool) {
	a.t.Helper()
	nc, err := net.Dial("unix", a.socket())
	if err != nil {
		a.t.Fatal(err)
	}
	nc.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.ReadFull(nc, make([]byte, 18)); err != nil {
		nc.Close()
		return nil, true
	}
	nc.SetDeadline(time.Time{})
	return nc, false
}

// attach opens a connection and ends the handshake, with EXPORT_NAME, the shortest.
func (a *attack) attach() net.Conn {
	a.t.Helper()
	nc, refused := a.connect()
	if refused {
		a.t.Fatal("a connection was refused though there was room")
	}
	b := bin.BigEndian.AppendUint32(nil, 3) // fixed newstyle, no zeroes
	b = append(b, "IHAVEOPT\x00\x00\x00\x01\x00\x00\x00\x04demo"...)
	_, err := nc.Write(b)
	if err == nil {
		nc.SetDeadline(time.Now().Add(time.Minute))
		_, err = io.ReadFull(nc, make([]byte, 10)) // size, flags
		nc.SetDeadline(time.Time{})
	}
	if err != nil {
		a.t.Fatalf("the handshake broke: %v", err)
	}
	return nc
}

func (a *attack) attachMany(n int) []net.Conn {
	a.t.Helper()
	out := make([]net.Conn, n)
	for i := range out {
		out[i] = a.attach()
	}
	return out
}

func hangUp(conns []net.Conn) {
	for _, nc := range conns {
		nc.Close()
	}
}

// idle: connections that finish the handshake and then do nothing. Each keeps a receive under way on the
// loop of the bystander.
func (a *attack) idle() int {
	a.t.Helper()
	conns := a.attachMany(idleConns)
	defer hangUp(conns)
	a.until("vstor_nbd_connections", idleConns+1)
	time.Sleep(attackSpan)
	if n := a.metric("vstor_nbd_connections"); n != idleConns+1 {
		a.t.Errorf("%d connections are left of %d", n, idleConns+1)
	}
	// They are idle, not dead.
	for _, i := range []int{0, idleConns / 2, idleConns - 1} {
		if err := readOnce(conns[i], 4096); err != nil {
			a.t.Errorf("idle connection %d: %v", i, err)
		}
	}
	return len(conns)
}

// mutes: connections that never finish the handshake, beside idle ones that fill most of the places. What is
// above --max-connections is closed at once, the rest by the deadline.
func (a *attack) mutes() int {
	a.t.Helper()
	quiet := a.attachMany(idleConns)
	defer hangUp(quiet)
	accepted, refused := a.metric("vstor_nbd_accepted_total"), a.metric("vstor_nbd_refused_total")
	failed := a.metric("vstor_nbd_handshakes_failed_total")
	var let []net.Conn
	defer func() { hangUp(let) }()
	turned, most := 0, 0
	for i := range mutes {
		nc, no := a.connect()
		if no {
			turned++
			continue
		}
		if let = append(let, nc); i%3 == 1 {
			nc.Write([]byte{0, 0}) // half of the flags
		} else if i%3 == 2 {
			nc.Write([]byte("\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x07\x00\x00\x01\x00some of")) // GO
		}
		if i%1000 == 0 {
			most = max(most, a.metric("vstor_nbd_connections"))
		}
	}
	if most > attackConns {
		a.t.Errorf("%d connections; at most %d may be", most, attackConns)
	}
	a.until("vstor_nbd_connections", idleConns+1)
	accepted, refused = a.metric("vstor_nbd_accepted_total")-accepted, a.metric("vstor_nbd_refused_total")-refused
	failed = a.metric("vstor_nbd_handshakes_failed_total") - failed
	if accepted != len(let) || refused != turned || failed != len(let) || len(let) < attackConns-idleConns-1 {
		a.t.Errorf("of %d connections %d had a greeting and %d had none; vstor counts %d accepted, of which %d failed, "+
			"and %d refused", mutes, len(let), turned, accepted, failed, refused)
	}
	for i, nc := range let {
		nc.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := io.Copy(io.Discard, nc); isTimeout(err) {
			a.t.Fatalf("mute connection %d was not closed", i)
		}
	}
	a.t.Logf("of %d mute connections %d were let in, %d refused", mutes, len(let), turned)
	return idleConns + len(let)
}

func isTimeout(err error) bool {
	ne, ok := err.(net.Error)
	return ok && ne.Timeout()
}

// header is a request as it goes over the wire.
func header(cmd nbdc.Cmd, cookie uint64, off int64, n int) []byte {
	b := bin.BigEndian.AppendUint32(nil, 0x25609513)
	b = bin.BigEndian.AppendUint32(b, uint32(cmd)) // no flags
	b = bin.BigEndian.AppendUint64(b, cookie)
	b = bin.BigEndian.AppendUint64(b, uint64(off))
	return bin.BigEndian.AppendUint32(b, uint32(n))
}

// readReply takes a simple reply without an error and says to what.
func readReply(r io.Reader) (cookie uint64, err error) {
	var b [16]byte
	if _, err = io.ReadFull(r, b[:]); err == nil && !bytes.Equal(b[:8], []byte("\x67\x44\x66\x98\x00\x00\x00\x00")) {
		err = fmt.Errorf("the reply is %x", b)
	}
	return bin.BigEndian.Uint64(b[8:]), err
}

// readOnce reads and verifies the first n bytes of the vDisk.
func readOnce(nc net.Conn, n int) error {
	nc.SetDeadline(time.Now().Add(time.Minute))
	if _, err := nc.Write(header(nbdc.CmdRead, 1, 0, n)); err != nil {
		return err
	}
	if _, err := readReply(nc); err != nil {
		return err
	}
	got, want := make([]byte, n), make([]byte, n)
	attackData(want, 0)
	if _, err := io.ReadFull(nc, got); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("read %x instead of %x", got[:16], want[:16])
	}
	return nil
}

// slow holds slowConns connections on which do is called now and then, until it fails or time is over.
func (a *attack) slow(start []byte, do func(nc net.Conn, step int) error) int {
	a.t.Helper()
	conns := a.attachMany(slowConns)
	stop := make(chan struct{})
	var steps atomic.Int64
	var wg sync.WaitGroup
	for _, nc := range conns {
		wg.Go(func() {
			if _, err := nc.Write(start); err != nil {
				return
			}
			for i := 0; do(nc, i) == nil; i++ {
				steps.Add(1)
				select {
				case <-stop:
					return
				case <-time.After(50 * time.Millisecond):
				}
			}
		})
	}
	time.Sleep(a.slowFor)
	close(stop)
	hangUp(conns)
	wg.Wait()
	a.t.Logf("%d slow connections moved %d bytes", len(conns), steps.Load())
	return len(conns)
}

// slowReaders ask for 32 MiB four times and take a byte now and then.
func (a *attack) slowReaders() int {
	var start []byte
	for i := range 4 {
		start = append(start, header(nbdc.CmdRead, uint64(i), int64(i%3)*biggestIO, biggestIO)...)
	}
	return a.slow(start, func(nc net.Conn, _ int) error {
		_, err := nc.Read(make([]byte, 1))
		return err
	})
}

// slowWriters announce 32 MiB and send a byte now and then: what stands there anyhow.
func (a *attack) slowWriters() int {
	data := make([]byte, 4096)
	attackData(data, 0)
	return a.slow(header(nbdc.CmdWrite, 1, 0, biggestIO), func(nc net.Conn, i int) error {
		_, err := nc.Write(data[i%len(data):][:1])
		return err
	})
}

// flood queues requests and reads no reply until all others have been served for a while. In the end every
// request is answered once.
func (a *attack) flood() int {
	a.t.Helper()
	nc := a.attach()
	defer nc.Close()
	const places = attackedData / 4096
	var queued atomic.Int64
	go func() {
		for i := range floodLength {
			if _, err := nc.Write(header(nbdc.CmdRead, uint64(i), int64(i%places)*4096, 4096)); err != nil {
				return
			}
			queued.Add(1)
		}
	}()
	time.Sleep(attackSpan)
	a.t.Logf("%d of %d requests had left the client when it began to read", queued.Load(), floodLength)
	seen := make([]bool, floodLength)
	got, want := make([]byte, 4096), make([]byte, 4096)
	nc.SetReadDeadline(time.Now().Add(2 * time.Minute))
	for n := range floodLength {
		i, err := readReply(nc)
		if err == nil {
			_, err = io.ReadFull(nc, got)
		}
		if err != nil || i >= floodLength || seen[i] {
			a.t.Fatalf("reply %d is to request %d, seen before, or %v", n, i, err)
		}
		seen[i] = true
		if attackData(want, int64(i%places)*4096); !bytes.Equal(got, want) {
			a.t.Fatalf("request %d read %x instead of %x", i, got[:16], want[:16])
		}
	}
	return 1
}
