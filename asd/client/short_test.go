package client

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vstor/asd/handshake"
	"vstor/asd/proto"
	"vstor/dataplane/buf"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
	"vstor/dataplane/ring"
	"vstor/dataplane/wire"
)

// Direct finds what the store finds, where the store finds it, also fragments in several pieces, and what it reads
// there is the fragment.
func TestDirectFindsWhatTheStoreFinds(t *testing.T) {
	w := newShortWorld(t, shortSettings{size: 32 << 20, reserve: 1, lease: time.Minute})
	n := 0
	for ; w.put(n, 80<<10) == nil; n++ {
	}
	var holes []layout.FragKey
	for i := 0; i < n; i += 2 {
		holes = append(holes, key(i))
	}
	must(t, w.store.Delete(bg, holes))
	w.stop()
	w.opts.Quarantine, w.lease = time.Millisecond, time.Millisecond // or the holes rest
	w.start()
	time.Sleep(2 * time.Millisecond)
	cut := 0
	for i := n; i < n+8; i++ {
		must(t, w.put(i, 200<<10))
		es, _ := w.store.Extents(key(i), nil)
		if len(es) > 1 {
			cut++
		}
	}
	if cut == 0 {
		t.Fatal("no fragment lies in several pieces")
	}
	w.stop()
	w.opts.Quarantine, w.lease = time.Minute, time.Minute
	w.start()
	g := newRig(t)
	r := g.reader(w.a, lenient)
	g.ready(r)
	g.direct(r)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := 1; i < n+8; i++ {
		size := 80 << 10
		if i >= n {
			size = 200 << 10
		} else if i%2 == 0 {
			continue
		}
		g.known(r, i)
		for range 5 {
			off := uint32(rng.IntN(size>>12)) << 12
			length := uint32(1+rng.IntN((size-int(off))>>12)) << 12
			want, pin, _ := w.store.Locate(key(i), off, length, nil)
			w.store.Unpin(pin)
			q := g.readDirect(r, i, off, length)
			if !slices.Equal(q.exts, want) {
				t.Fatalf("fragment %d: %v, the store says %v", i, q.exts, want)
			}
			if !q.good || !bytes.Equal(q.bytes, payload(i, size)[off:off+length]) {
				t.Fatalf("fragment %d: wrong bytes (%v)", i, q.good)
			}
		}
		g.loop.Call(func() {
			for _, bad := range [][2]uint32{{0, uint32(size) + 4096}, {uint32(size), 4096}, {0, 0}, {4096, 0xfffff000}} {
				if _, _, k := r.Direct().Locate(key(i), bad[0], bad[1], nil); k != errs.Invalid {
					t.Errorf("%d bytes at %d: %v", bad[1], bad[0], k)
				}
			}
		})
	}
	st := &r.Stats().Short
	if st.Reads.Load() == 0 || st.Misses.Load() == 0 || st.Entries.Load() == 0 || st.Late.Load() != 0 {
		t.Errorf("%d reads, %d misses, %d entries, %d late", st.Reads.Load(), st.Misses.Load(), st.Entries.Load(),
			st.Late.Load())
	}
}

// A lease ends when it ends on the reader's clock, counted from when it was asked for: no read begins after that, and
// one that ended after it has brought nothing.
func TestLeaseRunsOut(t *testing.T) {
	const lease = time.Minute
	w := newShortWorld(t, shortSettings{lease: lease})
	must(t, w.put(1, 8192))
	g := newRig(t)
	r := g.reader(w.a, lenient)
	g.ready(r)
	g.direct(r)
	var c fakeClock
	c.on(g, r)
	renew := func() {
		t.Helper()
		g.loop.Call(r.renew)
		until(t, "a lease", func() (had bool) {
			g.loop.Call(func() { had = !r.short.leaseOut })
			return had
		})
	}
	renew()
	g.known(r, 1)
	began := c.ns.Load()
	var d *Direct
	var pin uint64
	look := func(at int64) (k errs.Kind) {
		c.ns.Store(at)
		g.loop.Call(func() {
			r.short.leaseOut = true // no renewal by itself
			if d = r.Direct(); d == nil {
				k = errs.Unreachable
				return
			}
			_, pin, k = d.Locate(key(1), 0, 4096, nil)
		})
		return k
	}
	if k := look(began + int64(lease) - 1); k != errs.OK {
		t.Fatal(k)
	}
	for i, good := range []bool{true, false} {
		g.loop.Call(func() {
			d.pins[pin&1]++ // for the one more Unpin
			c.ns.Store(began + int64(lease) - 1 + int64(i))
			if d.Unpin(pin) != good {
				t.Errorf("at the lease's end %+d ns: %v", i-1, !good)
			}
		})
	}
	g.loop.Call(func() { d.Unpin(pin) })
	if n := r.Stats().Short.Late.Load(); n != 2 {
		t.Errorf("%d late reads", n)
	}
	if k := look(began + int64(lease)); k != errs.Unreachable {
		t.Fatal(k)
	}
	// It is counted from when it was asked for, and not from its answer.
	g.loop.Call(func() { r.short.leaseOut = false })
	asked := c.ns.Load()
	g.loop.Call(func() {
		r.renew()
		c.ns.Store(asked + int64(lease)/2)
	})
	until(t, "a lease", func() (had bool) {
		g.loop.Call(func() { had = !r.short.leaseOut })
		return had
	})
	if k := look(asked + int64(lease) - 1); k != errs.OK {
		t.Fatal(k)
	}
	// A lease that was renewed while a read was under way does not count for it.
	old := pin
	g.loop.Call(func() { r.short.leaseOut = false })
	c.ns.Store(asked + int64(lease) - 1)
	renew()
	c.ns.Store(asked + int64(lease))
	g.loop.Call(func() {
		if d.Unpin(old) {
			t.Error("a read is covered by a lease that was granted after it began")
		}
	})
}

// What is deleted is forgotten soon, and read over the socket, which knows that it is gone.
func TestForgotten(t *testing.T) {
	w := newShortWorld(t, shortSettings{lease: time.Minute})
	for i := range 3 {
		must(t, w.put(i, 8192))
	}
	g := newRig(t)
	r := g.reader(w.a, lenient)
	g.ready(r)
	g.known(r, 1)
	g.known(r, 2)
	must(t, w.store.Delete(bg, []layout.FragKey{key(1)}))
	until(t, "the fragment to be forgotten", func() bool { return r.Stats().Short.Forgotten.Load() == 1 })
	g.loop.Call(func() {
		if _, _, k := r.Direct().Locate(key(1), 0, 4096, nil); k != errs.Unreachable {
			t.Error(k)
		}
	})
	if q := g.read(r, 1, 8192, 0, 4096); q.res != -int32(unix.ENOENT) {
		t.Error(q.res)
	}
	g.readDirect(r, 2, 0, 8192)
	// An answer that does not fit what was told before forgets all.
	g.loop.Call(func() { r.short.told++ })
	g.loop.Call(r.renew)
	until(t, "all to be forgotten", func() bool { return r.Stats().Short.Forgotten.Load() == 2 })
	g.known(r, 2)
}

// The ASD ends: no read begins any more, those under way end, then the drive is closed. It comes back: its drive is
// read again, by a descriptor of its own.
func TestASDStartsAnew(t *testing.T) {
	w := newShortWorld(t, shortSettings{lease: time.Minute})
	must(t, w.put(1, 8192))
	g := newRig(t)
	r := g.reader(w.a, lenient)
	g.ready(r)
	g.known(r, 1)
	q := &directRead{wait: time.Hour}
	g.loop.Call(func() {
		if k := q.locate(g, r, 1, 0, 8192); k != errs.OK {
			t.Error(k)
		}
	})
	old, life := q.d, r.life
	w.stop()
	until(t, "the connection's end", func() (gone bool) {
		g.loop.Call(func() { gone = r.Direct() == nil && old.gone })
		return gone
	})
	g.loop.Call(func() {
		if _, _, k := old.Locate(key(1), 0, 4096, nil); k != errs.Unreachable {
			t.Error(k)
		}
		g.loop.StopTimer(&q.timer)
		q.read()
	})
	<-q.done
	if !q.good || !bytes.Equal(q.bytes, payload(1, 8192)) {
		t.Error("a read that was under way has lost its drive")
	}
	if _, err := unix.FcntlInt(uintptr(old.file.Fd()), unix.F_GETFD, 0); err != unix.EBADF {
		t.Errorf("the drive of the last life is still open: %v", err)
	}
	w.start()
	g.known(r, 1)
	if q := g.readDirect(r, 1, 0, 8192); q.d == old || !bytes.Equal(q.bytes, payload(1, 8192)) || r.life == life {
		t.Error("the drive of the last life was read")
	}
	if n := r.Stats().Short.Dropped.Load(); n != 1 {
		t.Errorf("%d leases dropped", n)
	}
}

// What an ASD hands over that is not its drive is not read, and closed; all goes over the socket.
func TestWrongDrives(t *testing.T) {
	other := filepath.Join(t.TempDir(), "other")
	must(t, os.WriteFile(other, make([]byte, 64<<20), 0o600))
	open := func(path string, flags int) func(*dio.Disk) handshake.Sharer {
		return func(d *dio.Disk) handshake.Sharer {
			return func() (int, dio.Shared, error) {
				fd, is, err := d.Share()
				if err != nil {
					return -1, is, err
				}
				unix.Close(fd)
				if path == "" {
					path = d.Path()
				}
				fd, err = unix.Open(path, flags|unix.O_CLOEXEC, 0)
				return fd, is, err
			}
		}
	}
	for name, share := range map[string]func(*dio.Disk) handshake.Sharer{
		"another file": open(other, unix.O_RDONLY|unix.O_DIRECT),
		"writable":     open("", unix.O_RDWR|unix.O_DIRECT),
		"buffered":     open("", unix.O_RDONLY),
		"none": func(*dio.Disk) handshake.Sharer {
			return func() (int, dio.Shared, error) { return -1, dio.Shared{}, errs.New(errs.IO, "no") }
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newShortWorld(t, shortSettings{lease: time.Minute, share: share})
			must(t, w.put(1, 8192))
			g := newRig(t)
			r := g.reader(w.a, lenient)
			g.ready(r)
			g.same(g.read(r, 1, 8192, 0, 8192))
			g.loop.Call(func() {
				if r.short.d != nil {
					t.Error("it is used")
				}
			})
		})
	}
	t.Run("not wanted", func(t *testing.T) {
		w := newShortWorld(t, shortSettings{lease: time.Minute, client: func(o *Options) { o.ShortCircuit = false }})
		g := newRig(t)
		r := g.reader(w.a, lenient)
		g.ready(r)
		g.loop.Call(func() {
			if r.Direct() != nil {
				t.Error("it is used")
			}
		})
	})
}

// The table keeps what is used, finds only what it was given, and takes no more than it may.
func TestExtentTable(t *testing.T) {
	var x extentTable
	x.init(8 << 10)
	if most := len(x.places)*placeBytes + len(x.pieces)*pieceBytes + cap(x.free)*4; most > 8<<10 {
		t.Fatalf("%d bytes", most)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	in := map[layout.FragKey][]layout.Extent{}
	for range 20000 {
		k := key(rng.IntN(400))
		switch rng.IntN(4) {
		case 0:
			was := x.find(k) != nil
			if x.remove(k) != was || x.find(k) != nil {
				t.Fatal("a removed fragment is found, or none was removed")
			}
			delete(in, k)
		case 1, 2:
			es := []layout.Extent{{Off: int64(1+rng.IntN(1000)) << 12, Len: 8 << 12}}
			for rng.IntN(3) == 0 && len(es) < proto.ExtentsMax {
				es = append(es, layout.Extent{Off: int64(2000+rng.IntN(1000)) << 12, Len: 4 << 12})
			}
			x.put(k, es)
			in[k] = es
		default:
			p := x.find(k)
			if p == nil {
				continue
			}
			es, ok := x.locate(p, 0, p.blocks<<12, nil)
			if !ok || !slices.Equal(es, in[k]) {
				t.Fatalf("%v, was put as %v", es, in[k])
			}
		}
		x.check(t)
	}
	x.clear()
	x.check(t)
}

// check looks at the whole table.
func (x *extentTable) check(t *testing.T) {
	n, pieces := 0, map[uint64]bool{}
	for i := range x.places {
		p := &x.places[i]
		if p.where == 0 {
			continue
		}
		n++
		if at := p.where & whereBits; p.where&severalBit != 0 {
			if at == 0 || at > uint64(len(x.pieces)) || pieces[at-1] {
				t.Fatalf("pieces %d: %v", at, pieces)
			}
			pieces[at-1] = true
		}
	}
	for _, i := range x.free {
		if pieces[uint64(i)] {
			t.Fatalf("pieces %d are free and in use", i)
		}
		pieces[uint64(i)] = true
	}
	if n != x.n || len(pieces) != len(x.pieces) {
		t.Fatalf("%d fragments of %d, %d pieces of %d", n, x.n, len(pieces), len(x.pieces))
	}
}

// againDirect reads the same block of the drive again and again.
type againDirect struct {
	r    *Reader
	d    *Direct
	op   ring.Op
	v    buf.Vec
	exts []layout.Extent
	pin  uint64
	left int
	done chan struct{}
	t    *testing.T
}

func (q *againDirect) start() {
	var k errs.Kind
	q.d = q.r.Direct()
	if q.exts, q.pin, k = q.d.Locate(key(1), 4096, 4096, q.exts[:0]); k != errs.OK {
		q.t.Error(k)
	}
	q.d.File().ReadV(q.r.loop, &q.op, &q.v, q.exts[0].Off)
}

func (q *againDirect) RingDone(_ *ring.Op, res int32) {
	if !q.d.Unpin(q.pin) || res != 4096 {
		q.t.Errorf("ended with %d", res)
	}
	if q.left--; q.left <= 0 {
		q.done <- struct{}{}
		return
	}
	q.start()
}

// A read of the drive allocates nothing; nor does a Forget, a lease, or a table that is full.
func TestDirectAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	w := newShortWorld(t, shortSettings{lease: time.Minute})
	must(t, w.put(1, 8192))
	g := newRig(t)
	r := g.reader(w.a, lenient)
	g.ready(r)
	g.known(r, 1)
	q := &againDirect{r: r, done: make(chan struct{}, 1), t: t}
	q.op.Done = q
	g.loop.Call(func() { g.pool.Alloc(&q.v, 1) })
	run := func() {
		q.left = 1000
		g.loop.Call(q.start)
		<-q.done
	}
	run()
	if n := testing.AllocsPerRun(10, run); n > 20 {
		t.Errorf("a thousand reads allocate %v times", n)
	}
	g.loop.Call(func() {
		g.pool.ReleaseVec(&q.v)
		f := proto.Forget{Told: r.short.told}
		for i := range 100 {
			f.Keys = append(f.Keys, key(1000+i))
		}
		body := f.Append(nil)
		head := &wire.Header{Type: proto.TForget, Body: uint32(len(body))}
		es := []layout.Extent{{Off: 4096, Len: 4096}}
		i := 0
		if n := testing.AllocsPerRun(1000, func() {
			i++
			r.short.told = f.Told - uint64(len(f.Keys))
			(*handler)(r).FrameIn(head, body, nil)
			r.short.table.put(key(i), es)
		}); n != 0 {
			t.Errorf("%v allocations per Forget and extent", n)
		}
	})
}

// FuzzShort gives a Reader anything an ASD may say of its drive: the table stays sound and names nothing that is not
// on it, and the connection comes back.
func FuzzShort(f *testing.F) {
	l, fg := proto.Lease{Nanos: 1e9}, proto.Forget{Told: 1, Keys: []layout.FragKey{key(1)}}
	f.Add(byte(0), uint32(0), l.Append(nil))
	f.Add(byte(1), uint32(0), proto.AppendFound(make([]byte, 8), errs.OK, []layout.Extent{{Off: 4096, Len: 8192}}))
	f.Add(byte(1), uint32(0), proto.AppendFound(make([]byte, 8), errs.Absent, nil))
	f.Add(byte(2), uint32(0), fg.Append(nil))
	f.Add(byte(3), uint32(9), []byte("no"))
	w := newShortWorld(f, shortSettings{lease: time.Minute})
	must(f, w.put(1, 8192))
	g := newRig(f)
	r := g.reader(w.a, lenient)
	f.Fuzz(func(t *testing.T, what byte, arg uint32, body []byte) {
		g.t = t
		body = body[:min(len(body), wire.BodyMax)]
		g.ready(r)
		g.direct(r)
		g.loop.Call(func() {
			if r.short.d == nil {
				return
			}
			head := wire.Header{Body: uint32(len(body)), Arg: arg}
			switch what % 4 {
			case 0:
				r.short.leaseOut, head.Type, head.ID = true, proto.TLease|wire.Reply, leaseID
			case 1:
				r.short.asked, head.Type, head.ID = append(r.short.asked[:0], key(1), key(2)), proto.TExtents|wire.Reply, askID
				head.Arg = arg % 2
				if len(body) >= 8 {
					copy(body[:8], proto.AppendSum(nil, r.life))
				}
			case 2:
				head.Type = proto.TForget
			default:
				head.Type, head.ID, head.Data = byte(arg), uint64(arg>>8), arg>>16
			}
			if head.Type == proto.TReadRanges|wire.Reply {
				return // another fuzzer's
			}
			(*handler)(r).FrameIn(&head, body, &buf.Vec{})
			r.short.table.check(t)
			for i := range r.short.table.places {
				p := &r.short.table.places[i]
				if p.where == 0 {
					continue
				}
				es, ok := r.short.table.locate(p, 0, p.blocks<<12, nil)
				if !ok || r.short.d != nil && !r.short.d.lieOn(es) {
					t.Errorf("%v is not on the drive", es)
				}
			}
			if d := r.short.d; d != nil && d.until > r.short.now()+int64(leaseMax) {
				t.Error("a lease without end")
			}
			r.conn.Abort(errs.New(errs.Closed, "the next input"))
		})
	})
}
