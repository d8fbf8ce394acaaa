package nbd_test

import (
	"context"
	"net"
	"testing"
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/errs"
	"vstor/dataplane/nbd"
	"vstor/dataplane/nbd/nbdtest"
	"vstor/dataplane/ring"
)

// thin is a device as large as they get, on which nothing was ever written. It notes what it is asked.
type thin struct {
	loop *ring.Loop
	size int64

	op        ring.Op
	hold      bool
	waiting   []*block.Request
	asked     []block.Request // copies
	mostWaits int
	fail      func(*block.Request) errs.Kind
}

func (d *thin) Info() block.Info { return block.Info{Size: d.size} }

func (d *thin) Submit(r *block.Request) {
	d.asked = append(d.asked, block.Request{Op: r.Op, Flags: r.Flags, Off: r.Off, Len: r.Len})
	r.Err = errs.OK
	if d.fail != nil {
		r.Err = d.fail(r)
	}
	switch {
	case r.Err != errs.OK:
	case r.Op == block.Read:
		d.loop.Pool().AddZeros(&r.Data, int(r.Len))
	case r.Op == block.Extents:
		r.Extents = append(r.Extents, block.Extent{Len: r.Len, State: block.Hole | block.ReadsZero})
	}
	d.waiting = append(d.waiting, r)
	d.mostWaits = max(d.mostWaits, len(d.waiting))
	if !d.hold && d.op.Idle() {
		d.op.Done = d
		d.loop.Defer(&d.op, 0)
	}
}

func (d *thin) RingDone(*ring.Op, int32) {
	all := d.waiting
	d.waiting = nil
	for _, r := range all {
		r.Done.Completed(r)
	}
}

func (r *rig) addThin() *thin {
	d := &thin{loop: r.loop, size: 64 << 40}
	r.exports.Add(r.loop, d, "thin", "")
	return d
}

func (r *rig) dialThin(m nbd.Mode) *nbdtest.Client {
	r.t.Helper()
	a := nbdtest.Ask{Export: "thin", Mode: m}
	if m != nbd.Simple {
		a.Contexts = []string{ctxAllocation}
	}
	c, err := nbdtest.DialAsk("unix", r.sock, a)
	must(r.t, err)
	r.t.Cleanup(func() { c.Conn.Close() })
	return c
}

// covered checks that pieces of op follow one another from off to end, and forgets them.
func (d *thin) covered(t *testing.T, op block.Op, flags block.Flags, off, end, most int64) {
	t.Helper()
	d.loop.Call(func() {
		at := off
		for _, q := range d.asked {
			if q.Op != op {
				continue
			}
			if q.Off != at || int64(q.Len) > most || q.Flags != flags {
				t.Errorf("piece %+v, want one at %d with flags %d", q, at, flags)
			}
			at += int64(q.Len)
		}
		if at != end {
			t.Errorf("the pieces end at %d, want %d", at, end)
		}
		d.asked = nil
	})
}

// TestWholeDisk: one request for 64 TiB, of every command that may have that length.
func TestWholeDisk(t *testing.T) {
	r := newRig(t, rigOptions{})
	d := r.addThin()
	c := r.dialThin(nbd.Extended)
	const size = 64 << 40
	must(t, c.Trim(1, size-2, 0))
	d.covered(t, block.Trim, 0, 1, size-1, 1<<30+4096)
	must(t, c.Zero(0, size, nbd.FlagNoHole|nbd.FlagFastZero))
	d.covered(t, block.WriteZeroes, block.NoHole|block.FastZero, 0, size, 1<<30+4096)
	must(t, c.Do(nbd.Request{Type: nbd.CmdCache, Length: 40 << 30}, nil, nil))
	d.covered(t, block.Cache, 0, 0, 40<<30, block.MaxRequest)
	a, err := c.DoAnswer(nbd.Request{Type: nbd.CmdBlockStatus, Length: size}, nil)
	must(t, err)
	if x := a.Status[1]; len(x) != 1 || x[0] != (nbdtest.Extent{Len: 256 << 30, Status: 3}) {
		t.Errorf("status %v", a.Status)
	}
	d.covered(t, block.Extents, 0, 0, 256<<30, 1<<30)
	if d.mostWaits > 4 {
		t.Errorf("%d pieces were under way at once", d.mostWaits)
	}
	// Also without extended headers a range has up to 4 GiB.
	s := r.dialThin(nbd.Simple)
	must(t, s.Trim(0, 1<<32-1, nbd.FlagFUA))
	d.covered(t, block.Trim, 0, 0, 1<<32-1, 1<<30+4096)
}

// TestStepsSync: FUA of a long range is one flush behind all its pieces; of a short one the device's.
func TestStepsSync(t *testing.T) {
	r := newRig(t, rigOptions{})
	d := r.addThin()
	c := r.dialThin(nbd.Extended)
	must(t, c.Zero(0, 10<<30, nbd.FlagFUA))
	r.loop.Call(func() {
		for i, q := range d.asked {
			if last := i == len(d.asked)-1; last != (q.Op == block.Flush) || q.Flags != 0 {
				t.Errorf("%d of %d: %+v", i, len(d.asked), q)
			}
		}
		if len(d.asked) != 11 {
			t.Errorf("%d operations", len(d.asked))
		}
		d.asked = nil
	})
	must(t, c.Zero(0, 1<<30, nbd.FlagFUA))
	r.loop.Call(func() {
		if len(d.asked) != 1 || d.asked[0].Flags != block.FUA {
			t.Errorf("%+v", d.asked)
		}
	})
}

// TestStepsFail: the first error ends a long range, says where, and nothing is synced. A fast zero of
// several pieces is all or nothing.
func TestStepsFail(t *testing.T) {
	r := newRig(t, rigOptions{})
	d := r.addThin()
	c := r.dialThin(nbd.Extended)
	r.loop.Call(func() {
		d.fail = func(q *block.Request) errs.Kind {
			if q.Off >= 20<<30 {
				return errs.Full
			}
			return errs.OK
		}
	})
	a, err := c.DoAnswer(nbd.Request{Type: nbd.CmdWriteZeroes, Flags: nbd.FlagFUA, Length: 64 << 40}, nil)
	if nbdtest.ErrnoOf(err) != nbd.ENOSPC || a.Bad != 20<<30 {
		t.Errorf("%v, %+v", err, a)
	}
	r.loop.Call(func() {
		if n := len(d.asked); n > 24 || d.asked[n-1].Op == block.Flush {
			t.Errorf("%d operations, the last %+v", n, d.asked[n-1])
		}
		d.asked = nil
	})
	for _, q := range []nbd.Request{{Offset: 1, Length: 8 << 30}, {Length: 8<<30 + 1}} {
		q.Type, q.Flags = nbd.CmdWriteZeroes, nbd.FlagFastZero
		if err := c.Do(q, nil, nil); nbdtest.ErrnoOf(err) != nbd.ENOTSUP {
			t.Errorf("%v: %v", q, err)
		}
	}
	r.loop.Call(func() {
		if len(d.asked) != 0 {
			t.Errorf("%d operations of a fast zero that was refused", len(d.asked))
		}
	})
}

// TestStepsLine: a client that asks for 64 TiB a hundred times has a few pieces under way, and its reads and
// writes go on. When it vanishes, so do they.
func TestStepsLine(t *testing.T) {
	r := newRig(t, rigOptions{})
	d := r.addThin()
	r.loop.Call(func() { d.hold = true })
	for m := range 3 {
		c := r.dialThin(nbd.Extended)
		for range 100 {
			typ := []nbd.Command{nbd.CmdTrim, nbd.CmdCache, nbd.CmdBlockStatus}[m]
			c.Send(nbd.Request{Type: typ, Length: 64 << 40}, nil)
		}
		c.Send(nbd.Request{Type: nbd.CmdRead, Length: 5}, nil)
		want := map[int]int{0: 17, 1: 5, 2: 5}[m]
		eventually(t, "the line stands", func() (ok bool) {
			r.loop.Call(func() { ok = len(d.waiting) == want && d.waiting[want-1].Op == block.Read })
			return ok
		})
		if m == 0 { // an orderly end: the peer waits for its answers
			c.Conn.(*net.UnixConn).CloseWrite()
			time.Sleep(time.Millisecond)
		}
		c.Conn.Close()
		r.loop.Call(func() { d.hold = false; d.RingDone(nil, 0) })
		eventually(t, "it is gone", func() bool { return r.srv.Stats().Connections == 0 })
		r.loop.Call(func() { d.hold = true })
	}
}

// TestStepsShutdown: what a long range has not done by then, it answers for.
func TestStepsShutdown(t *testing.T) {
	r := newRig(t, rigOptions{})
	d := r.addThin()
	r.loop.Call(func() { d.hold = true })
	c := r.dialThin(nbd.Extended)
	for _, typ := range []nbd.Command{nbd.CmdTrim, nbd.CmdCache} {
		_, err := c.Ask(nbd.Request{Type: typ, Length: 64 << 40}, nil)
		must(t, err)
	}
	eventually(t, "they wait", func() (ok bool) {
		r.loop.Call(func() { ok = len(d.waiting) == 5 })
		return ok
	})
	done := make(chan error, 1)
	go func() { done <- r.srv.Shutdown(context.Background()) }()
	answers := make(chan *nbdtest.Answer, 2)
	go func() {
		for range 2 {
			a, err := c.Answer()
			if err != nil {
				t.Error(err)
			}
			answers <- a
		}
	}()
	for range 2 {
		for a := (*nbdtest.Answer)(nil); a == nil; {
			select {
			case a = <-answers:
				if want := map[uint64]nbd.Errno{1: nbd.ESHUTDOWN, 2: nbd.OK}[a.Cookie]; a.Errno != want {
					t.Errorf("%d: %v %s", a.Cookie, a.Errno, a.Sentence)
				}
			case <-time.After(time.Millisecond):
				r.loop.Call(func() { d.RingDone(nil, 0) }) // a few pieces, until the loop hears of the end
			}
		}
	}
	must(t, <-done)
}
