package server

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"vstor/asd/proto"
	"vstor/asd/store"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
	"vstor/dataplane/wire"
)

// sharing lets a server hand out a file; that it is the drive matters to no test here.
func sharing(t testing.TB) func(*Options) {
	path := filepath.Join(t.TempDir(), "drive")
	must(t, os.WriteFile(path, nil, 0o600))
	return func(o *Options) {
		o.Share = func() (int, dio.Shared, error) {
			f, err := os.Open(path)
			if err != nil {
				return -1, dio.Shared{}, err
			}
			defer f.Close()
			fd, err := dup(f)
			return fd, dio.Shared{Size: 4096}, err
		}
		o.Lease = time.Minute
	}
}

// dialShort is dial for a peer that wants the drive.
func (w *world) dialShort() *peer {
	w.t.Helper()
	nc, err := net.Dial("unix", w.path)
	must(w.t, err)
	o := askOptions()
	o.Caps = proto.CapShortCircuit
	p := w.joinAs(nc, o)
	if p.p.Drive == nil {
		w.t.Fatal("no drive came")
	}
	p.p.Drive.Close()
	return p
}

// lease asks for a lease; forgets that come before it are collected.
func (p *peer) lease(forgets *[]proto.Forget) (l proto.Lease) {
	p.t.Helper()
	p.send(proto.TLease, 0, proto.AppendSum(nil, p.forgot), nil)
	for {
		a, err := p.recv()
		must(p.t, err)
		if a.Type == proto.TForget {
			var f proto.Forget
			must(p.t, f.Decode(a.body))
			*forgets = append(*forgets, f)
			continue
		}
		if a.Type != proto.TLease|wire.Reply {
			p.t.Fatalf("a %s came", proto.TypeName(a.Type))
		}
		must(p.t, a.err())
		must(p.t, l.Decode(a.body))
		return l
	}
}

func (p *peer) extents(keys ...layout.FragKey) (kinds []errs.Kind, first []layout.Extent) {
	p.t.Helper()
	a := p.call(proto.TExtents, proto.AppendKeys(nil, keys), nil)
	must(p.t, a.err())
	f := proto.NewFound(a.body)
	if f.Incarnation != p.p.Incarnation {
		p.t.Fatal("another incarnation")
	}
	for range keys {
		es, k := f.Next(nil)
		kinds = append(kinds, k)
		if first == nil {
			first = es
		}
	}
	must(p.t, f.Done())
	return kinds, first
}

// Extents are where the store has them, a lease is as long as it is set, and what is deleted is told before the next
// lease, once.
func TestShortCircuit(t *testing.T) {
	w := newWorldOn(t, time.Minute, sharing(t))
	p, other := w.dialShort(), w.dial()
	for i := range 4 {
		must(t, other.put(i, 8192))
	}
	kinds, es := p.extents(key(1), key(9), key(2))
	if kinds[0] != errs.OK || kinds[1] != errs.Absent || kinds[2] != errs.OK {
		t.Fatal(kinds)
	}
	want, pin, _ := w.store.Locate(key(1), 0, 8192, nil)
	w.store.Unpin(pin)
	if len(es) != 1 || es[0] != want[0] {
		t.Fatal(es, want)
	}
	var forgets []proto.Forget
	if l := p.lease(&forgets); l.Nanos != int64(time.Minute) || l.Told != 0 || len(forgets) != 0 {
		t.Fatalf("%+v %+v", l, forgets)
	}
	must(t, w.store.Delete(bg, []layout.FragKey{key(1), key(3)}))
	must(t, w.store.Delete(bg, []layout.FragKey{key(2)}))
	l := p.lease(&forgets)
	if l.Nanos != int64(time.Minute) || l.Told != 3 {
		t.Fatalf("%+v", l)
	}
	var told []layout.FragKey
	for _, f := range forgets {
		told = append(told, f.Keys...)
		if f.Told != uint64(len(told)) {
			t.Fatalf("%+v", forgets)
		}
	}
	if len(told) != 3 || told[0] != key(1) || told[1] != key(3) || told[2] != key(2) {
		t.Fatal(told)
	}
	if kinds, _ := p.extents(key(1), key(0)); kinds[0] != errs.Absent || kinds[1] != errs.OK {
		t.Fatal(kinds)
	}
	// It is told without asking too, and others are not bothered with it.
	must(t, w.store.Delete(bg, []layout.FragKey{key(0)}))
	a, err := p.recv()
	must(t, err)
	if a.Type != proto.TForget || a.ID != 0 {
		t.Fatalf("a %s came", proto.TypeName(a.Type))
	}
	must(t, other.call(proto.TPing, nil, nil).err())
}

// More deletes than go into one message come in several, and more than the store remembers make the peer forget all;
// there is no lease before it has heard of all.
func TestManyDeletes(t *testing.T) {
	w := newWorldOn(t, time.Minute, sharing(t))
	p, other := w.dialShort(), w.dial()
	const n = 1000
	for i := range n {
		must(t, other.put(i, 4096))
	}
	var keys []layout.FragKey
	for i := range n {
		keys = append(keys, key(i))
	}
	must(t, w.store.Delete(bg, keys))
	var forgets []proto.Forget
	l := p.lease(&forgets)
	for l.Nanos == 0 {
		l = p.lease(&forgets)
	}
	told := 0
	for _, f := range forgets {
		if len(f.Keys) == 0 || len(f.Keys) > proto.ForgetMax {
			t.Fatalf("%d keys", len(f.Keys))
		}
		for _, k := range f.Keys {
			if k != key(told) {
				t.Fatalf("delete %d is %v", told, k)
			}
			told++
		}
	}
	if told != n || l.Told != n {
		t.Fatal(told, l)
	}
	c := &conn{k: w.srv.core}
	w.srv.loop.Call(func() {
		for c = w.srv.core.conns; c.short == nil; c = c.next {
		}
		c.short.told -= 1 << 32 // as if it had looked long ago
		c.forget()
	})
	forgets = nil
	if l := p.lease(&forgets); len(forgets) != 1 || len(forgets[0].Keys) != 0 || l.Told != n || l.Nanos == 0 {
		t.Fatalf("%+v %+v", l, forgets)
	}
}

// Deleted space rests until all who may have a lease have forgotten it, or for as long as it is set.
func TestRestEndsWhenAllHaveForgotten(t *testing.T) {
	w := newWorldOn(t, time.Hour, sharing(t))
	w.srv.loop.Call(func() { w.srv.core.gone.until = time.Time{} }) // as if no process had been before this one
	p, q, other := w.dialShort(), w.dialShort(), w.dial()
	var forgets []proto.Forget
	p.lease(&forgets)
	n := 0
	rests := func(bytes int64, when string) {
		t.Helper()
		n++
		must(t, other.put(100+n, 4096)) // a commit, with which rest ends
		if st := w.store.Stat(); st.Quarantined != bytes {
			t.Fatalf("%s: %d bytes rest, not %d", when, st.Quarantined, bytes)
		}
	}
	del := func(i int) {
		t.Helper()
		must(t, other.put(i, 8192))
		must(t, w.store.Delete(bg, []layout.FragKey{key(i)}))
		w.srv.loop.Call(w.srv.core.deleted.RunOnLoop)
	}
	const each = 3 * 4096
	del(1)
	rests(each, "one has a lease and has not forgotten")
	q.lease(&forgets)
	p.forgot = p.lease(&forgets).Told
	p.lease(&forgets)
	rests(each, "one has forgotten, the other not")
	q.forgot = 1
	q.lease(&forgets)
	rests(0, "both have forgotten")
	del(2)
	q.forgot = 2
	q.lease(&forgets)
	p.nc.Close()
	until(t, "the peer to be gone", func() bool { return w.srv.Stats().Connections == 2 })
	w.srv.loop.Call(w.srv.core.endRest)
	rests(each, "one went away with a lease")
	w.srv.loop.Call(func() { w.srv.core.gone.until = time.Now(); w.srv.core.endRest() })
	rests(0, "its lease has run out")
	del(3)
	rests(each, "the other has a lease")
	w.srv.loop.Call(func() {
		for c := w.srv.core.conns; c != nil; c = c.next {
			if c.short != nil {
				c.short.until = time.Now()
			}
		}
		w.srv.core.endRest()
	})
	rests(0, "all leases have run out")
	del(4)
	rests(0, "nobody has a lease")
}

// A peer that was not given the drive has no use for the rest.
func TestShortCircuitIsForThoseWithTheDrive(t *testing.T) {
	w := newWorldOn(t, time.Minute, sharing(t))
	p := w.dial()
	for _, typ := range []uint8{proto.TLease, proto.TExtents} {
		if a := p.call(typ, nil, nil); a.Kind() != errs.Unsupported {
			t.Errorf("%s: %v", proto.TypeName(typ), a.err())
		}
	}
	q := w.dialShort()
	if a := q.call(proto.TExtents, make([]byte, (proto.LocateMax+1)*layout.FragKeySize), nil); a.Kind() != errs.Invalid {
		t.Error(a.err())
	}
	for _, b := range [][]byte{nil, make([]byte, 19)} {
		q := w.dialShort()
		q.send(proto.TExtents, 0, b, nil)
		if _, err := q.recv(); err == nil {
			t.Error("a body that is none was answered")
		}
	}
	for _, b := range [][]byte{nil, {1}, proto.AppendSum(nil, 5)} {
		q := w.dialShort()
		q.send(proto.TLease, 0, b, nil)
		if _, err := q.recv(); err == nil {
			t.Errorf("a lease request of %x was answered", b)
		}
	}
}

// Leases that are longer than the rest of deleted space are refused from the start.
func TestLeaseNeedsRest(t *testing.T) {
	so := store.Options{Data: dio.NewMem(64 << 20), FS: newMemFS(), Dir: "index", ID: 3, UUID: testUUID,
		Quarantine: time.Minute - 1}
	must(t, store.Format(so))
	s, err := store.Open(so)
	must(t, err)
	defer s.Close()
	o := Options{Store: s, Secret: testSecret}
	sharing(t)(&o)
	if _, err := New(o); errs.Of(err) != errs.Invalid {
		t.Fatal(err)
	}
}

func dup(f *os.File) (int, error) { return unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0) }

func newMemFS() vfs.FS { return vfs.NewMem() }
