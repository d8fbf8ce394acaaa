package nbd_test

import (
	"io"
	"net"
	"testing"
	"time"

	"vstor/dataplane/nbd"
	"vstor/dataplane/nbd/nbdtest"
)

// TestNoPages: the device keeps every page until none is left. Writers wait, in turn, without a busy
// loop; who needs no page goes on; when pages come back all complete.
func TestNoPages(t *testing.T) {
	r := newRig(t, rigOptions{size: 64 << 20, pool: 16 << 20})
	reader := r.dial()
	defer reader.Close()
	const writers, each = 4, 16 << 20
	done := make(chan error, writers)
	for i := range writers {
		c := r.dial()
		n := []int{4096, 20000, 200000, 3 << 20}[i]
		go func() {
			p := make([]byte, n)
			for at := 0; at+n <= each; at += n {
				if err := c.WriteAt(p, int64(i*each+at), 0); err != nil {
					done <- err
					return
				}
			}
			done <- c.Close()
		}()
	}
	written := uint64(0)
	for left := writers; left > 0; {
		select {
		case err := <-done:
			must(t, err)
			left--
			continue
		case <-time.After(10 * time.Millisecond):
		}
		now := r.srv.Stats().WrittenBytes
		if now != written || r.freePages() > 600 { // a piece and the reserve
			written = now
			continue
		}
		must(t, reader.ReadAt(make([]byte, 1<<20), 5))
		must(t, reader.Flush())
		passes, start := r.loop.Stats().Passes, time.Now()
		time.Sleep(20 * time.Millisecond)
		n, ms := r.loop.Stats().Passes-passes, uint64(time.Since(start).Milliseconds())
		if r.srv.Stats().WrittenBytes == written && n > 20*ms {
			t.Errorf("%d passes in %d ms that brought nothing", n, ms)
		}
		r.loop.Call(r.ram.Drop)
	}
	if r.srv.Stats().Waits == 0 {
		t.Error("nobody ever waited: the test is too small")
	}
}

// TestSlowWriters: clients that announce payload and do not send it hold memory. Small writes of others
// go on all the time, large ones once the silent are closed.
func TestSlowWriters(t *testing.T) {
	r := newRig(t, rigOptions{pool: 64 << 20, server: nbd.Options{StallTimeout: 300 * time.Millisecond}})
	var silent []*nbdtest.Client
	for range 60 {
		c := r.dial()
		q := nbd.Request{Type: nbd.CmdWrite, Length: 8 << 20}
		c.Conn.Write(append(c.Header(&q), make([]byte, 100)...))
		silent = append(silent, c)
	}
	eventually(t, "somebody waits", func() bool { return r.srv.Stats().Waits > 0 })
	c := r.dial()
	must(t, c.WriteAt(make([]byte, 4096), 0, 0))
	eventually(t, "a large write", func() bool { // on a slow machine this client may be a silent one, too
		if c.WriteAt(make([]byte, 2<<20), 1, 0) == nil {
			return true
		}
		c.Conn.Close()
		c = r.dial()
		return false
	})
	must(t, c.Close())
	if r.srv.Stats().Stalled == 0 {
		t.Error("no silent client was closed")
	}
	for _, s := range silent {
		s.Conn.Close()
	}
}

// TestSlowReaders: clients that ask for much and read nothing. What they hold is bounded, and a newcomer
// is served.
func TestSlowReaders(t *testing.T) {
	const bound = 64 << 20
	r := newRig(t, rigOptions{size: 32 << 20, server: nbd.Options{LoopReadBytes: bound}})
	fillDisk(t, r)
	free := r.freePages()
	for range 30 {
		c := r.dial()
		defer c.Conn.Close()
		for range 50 {
			c.Send(nbd.Request{Type: nbd.CmdRead, Length: 1 << 20}, nil)
		}
	}
	c := r.dial()
	defer c.Close()
	for range 100 {
		must(t, c.ReadAt(make([]byte, 4096), 0))
		must(t, c.WriteAt(make([]byte, 40000), 0, 0))
	}
	if held := free - r.freePages(); held > 100 {
		t.Errorf("%d pages are held, beside those of the disk", held)
	}
}

func fillDisk(t *testing.T, r *rig) {
	c := r.dial()
	for at := int64(0); at < r.ram.Info().Size; at += 1 << 20 {
		must(t, c.WriteAt(fill(make([]byte, 1<<20), uint64(at)), at, 0))
	}
	must(t, c.Close())
}

// TestStashBound: bytes received and not consumed are bounded over all connections of a loop.
func TestStashBound(t *testing.T) {
	r := newRig(t, rigOptions{server: nbd.Options{MaxInflight: 1, LoopStashBytes: 16 << 10}})
	r.loop.Call(func() { r.ram.Hold = true })
	var b []byte
	for range 100 {
		q := nbd.Request{Type: nbd.CmdFlush}
		b = append(b, (&nbdtest.Client{}).Header(&q)...)
	}
	first := r.dial()
	first.Conn.Write(b)
	eventually(t, "the first waits", func() bool { return r.srv.Stats().CopiedBytes > 0 })
	second := r.dial()
	second.Conn.Write(b)
	eventually(t, "the second is closed", func() bool { return r.srv.Stats().Overloaded == 1 })
	expectEOF(t, second.Conn)
	r.loop.Call(func() { r.ram.Hold = false; r.ram.Release() })
	for range 100 {
		if e, _, err := first.Recv(); e != nbd.OK || err != nil {
			t.Fatal(e, err)
		}
	}
}

// TestLateReader: a client says good-bye and takes its replies slowly, longer than the linger timeout in
// all. It gets every byte. One that takes nothing is cut off.
func TestLateReader(t *testing.T) { patiently(t, lateReader) }

func lateReader(t *testing.T, timeout time.Duration) (late bool) {
	r := newRig(t, rigOptions{server: nbd.Options{LingerTimeout: timeout}})
	c, deaf := r.dial(), r.dial()
	for _, c := range []*nbdtest.Client{c, deaf} {
		for range 8 {
			c.Send(nbd.Request{Type: nbd.CmdRead, Length: 1 << 20}, nil)
		}
		c.Conn.(*net.UnixConn).CloseWrite()
	}
	got, b := 0, make([]byte, 1<<20)
	for last := time.Now(); ; {
		n, err := c.Conn.Read(b)
		if time.Since(last) > timeout/2 {
			return true
		}
		last = time.Now()
		if got += n; err != nil {
			break
		}
		time.Sleep(timeout / 30) // 200 KiB at a time, so 40 of these
	}
	if want := 8 * (nbd.ReplySize + 1<<20); got != want {
		t.Errorf("%d bytes, want %d", got, want)
	}
	eventually(t, "the deaf one is cut off", func() bool { return r.srv.Stats().Connections == 0 })
	return false
}

// TestGoodbye: what was asked before DISC, or before the client closed its half, is answered.
func TestGoodbye(t *testing.T) {
	for name, bye := range map[string]func(*nbdtest.Client){
		"disc":       func(c *nbdtest.Client) { c.Send(nbd.Request{Type: nbd.CmdDisc}, nil) },
		"half close": func(c *nbdtest.Client) { c.Conn.(*net.UnixConn).CloseWrite() },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, rigOptions{})
			r.loop.Call(func() { r.ram.Hold = true })
			c := r.dial()
			for range 10 {
				c.Send(nbd.Request{Type: nbd.CmdWrite, Length: 5000}, make([]byte, 5000))
				c.Send(nbd.Request{Type: nbd.CmdRead, Length: 5000}, nil)
			}
			bye(c)
			eventually(t, "all wait", func() (all bool) {
				r.loop.Call(func() { all = r.ram.Waiting() == 20 })
				return all
			})
			r.loop.Call(func() { r.ram.Hold = false; r.ram.Release() })
			got, err := io.ReadAll(c.Conn)
			if want := 20*nbd.ReplySize + 10*5000; len(got) != want || err != nil {
				t.Errorf("%d bytes and %v, want %d", len(got), err, want)
			}
		})
	}
}
