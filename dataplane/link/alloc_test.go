package link

import (
	"runtime"
	"testing"

	"vstor/dataplane/buf"
	"vstor/dataplane/invariants"
	"vstor/dataplane/wire"
)

// bounce sends a frame and waits for its echo, again and again, on the same loop.
type bounce struct {
	c    *Conn
	pool *buf.Pool
	f    Frame
	in   buf.Vec
	left int
	busy int // of sent, received
	done chan struct{}
	shut chan struct{}
}

func (b *bounce) FrameIn(h *wire.Header, body []byte, in *buf.Vec) Verdict {
	if h.Data == 0 {
		b.step()
		return Next
	}
	in.Segs = append(in.Segs, b.in.Segs...)
	return Next
}
func (b *bounce) FrameData(bool)         { b.step() }
func (b *bounce) FrameSent(*Frame, bool) { b.step() }
func (b *bounce) Ended(error)            {}
func (b *bounce) Closed()                { close(b.shut) }

func (b *bounce) step() {
	if b.busy--; b.busy > 0 {
		return
	}
	if b.left--; b.left < 0 {
		b.done <- struct{}{}
		return
	}
	b.busy = 2
	b.c.Send(&b.f)
}

// bouncing is a bounce between two connections of one loop, with so many bytes of data in each frame.
type bouncing struct {
	*bounce
	r    *rig
	echo *echo
}

func newBouncing(t testing.TB, size int) *bouncing {
	r := newRig(t, HubOptions{})
	fds := socketpair(t)
	e := newEcho(r, fds[0], 1, Options{})
	e.rng = nil
	b := &bounce{pool: r.pool, done: make(chan struct{}, 1), shut: make(chan struct{})}
	b.c = New(r.hub, fds[1], b, Options{})
	b.f = Frame{Type: 20, Body: make([]byte, 60), Done: b}
	e.start()
	r.loop.Call(func() {
		b.c.Start()
		if size > 0 {
			r.pool.Alloc(&b.in, (size+4095)/4096)
			b.f.Data.Segs = append(b.f.Data.Segs, b.in.Segs...)
			if size < 4096 {
				b.f.Data.Segs[0].Len, b.in.Segs[0].Len = uint32(size), uint32(size)
			}
		}
	})
	return &bouncing{b, r, e}
}

// run has n round trips.
func (b *bouncing) run(n int) {
	b.r.loop.Call(func() { b.left, b.busy = n, 1; b.step() })
	<-b.done
}

func (b *bouncing) close(t testing.TB) {
	b.r.loop.Call(func() { b.r.pool.ReleaseVec(&b.in); b.c.End(nil) })
	wait(t, "Closed", b.shut)
	wait(t, "Closed", b.echo.closed)
}

// A frame there and a frame back allocate nothing, on either side.
func TestNoAllocation(t *testing.T) {
	if raceEnabled || invariants.Enabled {
		t.Skip("SKIPPED: the detector and the checks allocate themselves")
	}
	for _, size := range []int{0, 100, 4096, 1 << 20} {
		b := newBouncing(t, size)
		b.run(200)
		n := 2000
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		b.run(n)
		runtime.ReadMemStats(&after)
		if per := float64(after.Mallocs-before.Mallocs) / float64(n); per > 0.05 {
			t.Errorf("%d bytes: %.2f allocations per round trip", size, per)
		}
		b.close(t)
	}
}

// BenchmarkRoundTrip is a frame there and one back, one at a time, between two connections of one loop.
func BenchmarkRoundTrip(b *testing.B) {
	for name, size := range map[string]int{"header": 0, "4KiB": 4096, "1MiB": 1 << 20} {
		b.Run(name, func(b *testing.B) {
			w := newBouncing(b, size)
			b.SetBytes(int64(2 * size))
			b.ReportAllocs()
			b.ResetTimer()
			w.run(b.N)
			b.StopTimer()
			w.close(b)
		})
	}
}
