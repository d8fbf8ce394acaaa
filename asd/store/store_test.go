package store

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

var bg = context.Background()

type clock struct {
	sync.Mutex
	t time.Time
}

func (c *clock) now() time.Time { c.Lock(); defer c.Unlock(); return c.t }
func (c *clock) add(d time.Duration) {
	c.Lock()
	defer c.Unlock()
	c.t = c.t.Add(d)
}

func newClock() *clock { return &clock{t: time.Unix(1_700_000_000, 0)} }

func testOptions(d *testDrive, fs vfs.FS) Options {
	return Options{Data: d, FS: fs, Dir: "asd-3/index", ID: 3, UUID: [16]byte{1, 2, 3}, Deployment: [16]byte{9},
		Now: newClock().now}
}

func newTestStore(t testing.TB, size int64, edit func(*Options)) (*Store, Options) {
	t.Helper()
	o := testOptions(newDrive(size), vfs.NewMem())
	if edit != nil {
		edit(&o)
	}
	if err := Format(o); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, o)
	return s, o
}

func mustOpen(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func fkey(i int) layout.FragKey {
	return layout.FragKey{Namespace: ids.NamespaceID(1 + i%3), SCO: ids.SCONum(1 + i), Put: 7,
		Chunk: uint16(i % 2), Frag: uint8(i % 6)}
}

// payload is what fragment i holds, in all these tests; its length depends on i too.
func payload(i, blocks int) []byte {
	b := make([]byte, blocks*blockSize)
	r := rand.NewChaCha8([32]byte{byte(i), byte(i >> 8), byte(i >> 16), byte(blocks), 1})
	r.Read(b)
	return b
}

func fput(key layout.FragKey, data []byte) *layout.FragPut {
	b, err := buf.AlignedBytes(layout.FragHeaderSize + len(data))
	if err != nil {
		panic(err)
	}
	b = b[:layout.FragHeaderSize+len(data)]
	copy(b[layout.FragHeaderSize:], data)
	p := &layout.FragPut{Key: key, Epoch: 1, Buf: b}
	for i := range layout.Regions(len(data)) {
		p.Sums = append(p.Sums, xxhash.Sum64(regionOf(data, i)))
	}
	return p
}

func freePut(p *layout.FragPut) { buf.FreeAligned(p.Buf) }

// put stores fragment i of blocks blocks under its key.
func put(s *Store, i, blocks int) error { return putClass(s, i, blocks, layout.ClassClient) }

func putClass(s *Store, i, blocks int, c layout.Class) error {
	p := fput(fkey(i), payload(i, blocks))
	defer freePut(p)
	p.Class = c
	return s.Put(bg, p)
}

func get(s *Store, i, blocks int) error {
	dst := make([]byte, blocks*blockSize)
	if err := s.Get(bg, fkey(i), 0, dst); err != nil {
		return err
	}
	if !bytes.Equal(dst, payload(i, blocks)) {
		return fmt.Errorf("fragment %d: wrong bytes", i)
	}
	return nil
}

func del(s *Store, is ...int) error {
	var keys []layout.FragKey
	for _, i := range is {
		keys = append(keys, fkey(i))
	}
	return s.Delete(bg, keys)
}

func check(t testing.TB, s *Store) *CheckReport {
	t.Helper()
	r, err := s.Check(bg, true)
	if err != nil {
		t.Fatal(err)
	}
	if !r.OK() {
		t.Fatalf("check: %+v", *r)
	}
	return r
}

func want(t testing.TB, err error, k errs.Kind) {
	t.Helper()
	if errs.Of(err) != k {
		t.Fatalf("got %v (%v), want %v", errs.Of(err), err, k)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestPutGetReopen(t *testing.T) {
	s, o := newTestStore(t, 64<<20, nil)
	sizes := []int{1, 2, 15, 16, 17, 33, 256, 1024}
	for i, n := range sizes {
		must(t, put(s, i, n))
	}
	for i, n := range sizes {
		must(t, get(s, i, n))
	}
	check(t, s)
	must(t, s.Close())
	want(t, put(s, 50, 1), errs.Closed)
	if _, _, k := s.Locate(fkey(0), 0, 1, nil); k != errs.Closed {
		t.Fatal(k)
	}
	s = mustOpen(t, o)
	if s.sb.Incarnation != 3 {
		t.Fatalf("incarnation %d after two opens", s.sb.Incarnation)
	}
	for i, n := range sizes {
		must(t, get(s, i, n))
	}
	check(t, s)
	st := s.Stat()
	if st.Fragments != len(sizes) || st.Used+st.Free != st.Capacity || st.Capacity != 62<<20 {
		t.Fatalf("%+v", st)
	}
	want(t, get(s, 60, 1), errs.Absent)
	must(t, del(s, 0, 1, 2, 3, 4, 5, 6, 7, 99))
	if st := s.Stat(); st.Used != 0 || st.Free != st.Capacity || st.FreeRuns != 1 {
		t.Fatalf("%+v", st)
	}
	check(t, s)
}

func TestGetRanges(t *testing.T) {
	s, _ := newTestStore(t, 32<<20, nil)
	const blocks = 16*5 + 3
	data := payload(1, blocks)
	must(t, put(s, 1, blocks))
	mem, err := buf.AlignedBytes(len(data) + blockSize)
	must(t, err)
	defer buf.FreeAligned(mem)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		off := rng.IntN(len(data))
		n := 1 + rng.IntN(len(data)-off)
		at := rng.IntN(blockSize)
		if rng.IntN(2) == 0 {
			at = 0
		}
		if rng.IntN(2) == 0 {
			off = off / layout.RegionSize * layout.RegionSize
		}
		n = min(n, len(data)-off)
		dst := mem[at : at+n]
		clear(dst)
		must(t, s.Get(bg, fkey(1), uint32(off), dst))
		if !bytes.Equal(dst, data[off:off+n]) {
			t.Fatalf("off %d n %d at %d", off, n, at)
		}
	}
	want(t, s.Get(bg, fkey(1), uint32(len(data)), mem[:1]), errs.Invalid)
	want(t, s.Get(bg, fkey(1), 0, nil), errs.Invalid)
	rs := []Range{{Key: fkey(1), Off: blockSize, Dst: mem[:3*blockSize]},
		{Key: fkey(2), Dst: mem[3*blockSize : 4*blockSize]},
		{Key: fkey(1), Off: 80 * blockSize, Dst: mem[4*blockSize : 6*blockSize]},
		{Key: fkey(1), Off: 82 * blockSize, Dst: mem[6*blockSize : 8*blockSize]},
		{Key: fkey(1), Off: 5, Dst: mem[:blockSize]}}
	want(t, s.ReadRanges(bg, rs), errs.Absent)
	for i, k := range []errs.Kind{errs.OK, errs.Absent, errs.OK, errs.Invalid, errs.Invalid} {
		if rs[i].Err != k {
			t.Fatalf("range %d: %v", i, rs[i].Err)
		}
	}
	if !bytes.Equal(rs[0].Dst, data[blockSize:4*blockSize]) ||
		!bytes.Equal(rs[2].Dst, data[80*blockSize:82*blockSize]) {
		t.Fatal("wrong bytes")
	}
}

func TestBadPuts(t *testing.T) {
	s, _ := newTestStore(t, 32<<20, nil)
	good := func() *layout.FragPut { return fput(fkey(1), payload(1, 4)) }
	for name, edit := range map[string]func(*layout.FragPut){
		"no payload": func(p *layout.FragPut) { p.Buf = p.Buf[:layout.FragHeaderSize] },
		"part":       func(p *layout.FragPut) { p.Buf = p.Buf[:len(p.Buf)-1] },
		"sums":       func(p *layout.FragPut) { p.Sums = nil },
		"sco":        func(p *layout.FragPut) { p.Key.SCO = 0 },
		"class":      func(p *layout.FragPut) { p.Class = 9 },
		"alignment":  func(p *layout.FragPut) { p.Buf = append(make([]byte, 0, 9000), p.Buf...)[8 : 8+8192] },
	} {
		p := good()
		edit(p)
		if err := s.Put(bg, p); errs.Of(err) != errs.Invalid {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if st := s.Stat(); st.Fragments != 0 || st.Free != st.Capacity {
		t.Fatalf("%+v", st)
	}
}

func TestPutAgain(t *testing.T) {
	s, o := newTestStore(t, 32<<20, nil)
	must(t, put(s, 1, 40))
	must(t, put(s, 1, 40))
	want(t, put(s, 1, 41), errs.Refused)
	other := fput(fkey(1), payload(2, 40))
	want(t, s.Put(bg, other), errs.Refused)
	must(t, get(s, 1, 40))
	if st := s.Stat(); st.Puts != 1 {
		t.Fatalf("%+v", st)
	}
	// What is there has rotted: the same content replaces it.
	d := o.Data.(*testDrive)
	d.flip(int64(s.startOf(fkey(1))+3)<<blockShift, 0)
	want(t, get(s, 1, 40), errs.Corrupt)
	must(t, put(s, 1, 40))
	must(t, get(s, 1, 40))
	check(t, s)
}

func (s *Store) startOf(k layout.FragKey) uint64 {
	e, _, _ := s.lookup(packKey(k))
	return e.start()
}

func TestEpochs(t *testing.T) {
	s, o := newTestStore(t, 32<<20, nil)
	putE := func(i int, ns ids.NamespaceID, e ids.Epoch, c layout.Class) error {
		p := fput(layout.FragKey{Namespace: ns, SCO: ids.SCONum(i)}, payload(i, 1))
		defer freePut(p)
		p.Epoch, p.Class = e, c
		return s.Put(bg, p)
	}
	must(t, putE(1, 5, 7, 0))
	want(t, putE(2, 5, 6, 0), errs.Refused)
	must(t, putE(3, 6, 6, 0))
	must(t, s.Fence(5, 9))
	must(t, s.Fence(5, 9))
	want(t, s.Fence(5, 8), errs.Refused)
	want(t, putE(4, 5, 8, layout.ClassCleaning), errs.Refused)
	must(t, putE(4, 5, 0, layout.ClassRepair))
	must(t, s.Close())
	s = mustOpen(t, o)
	want(t, putE(5, 5, 8, 0), errs.Refused)
	must(t, putE(5, 5, 9, 0))
	if s.HighestEpoch(5) != 9 || s.HighestEpoch(6) != 6 || s.HighestEpoch(1) != 0 {
		t.Fatal("epochs")
	}
	check(t, s)
}

// A fence that is acknowledged while a put's data is on its way refuses the put.
func TestFenceOvertakesPut(t *testing.T) {
	s, o := newTestStore(t, 32<<20, nil)
	d := o.Data.(*testDrive)
	fenced := false
	d.hook = func(op string, off int64) error {
		if op == "write" && !fenced {
			fenced = true
			if err := s.Fence(fkey(1).Namespace, 2); err != nil {
				t.Error(err)
			}
		}
		return nil
	}
	want(t, put(s, 1, 5), errs.Refused)
	d.hook = nil
	want(t, get(s, 1, 5), errs.Absent)
	if st := s.Stat(); st.Free != st.Capacity {
		t.Fatalf("%+v", st)
	}
	must(t, s.Close())
	must2(RebuildIndex(bg, o, nil))
	s = mustOpen(t, o)
	want(t, get(s, 1, 5), errs.Absent)
}

func must2[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestList(t *testing.T) {
	s, _ := newTestStore(t, 32<<20, nil)
	for i := range 30 {
		must(t, put(s, i, 1+i%3))
	}
	var all []Info
	for after := (layout.FragKey{}); ; {
		part, err := s.List(after, 7)
		must(t, err)
		all = append(all, part...)
		if len(part) < 7 {
			break
		}
		after = part[6].Key
	}
	if len(all) != 30 {
		t.Fatal(len(all))
	}
	perNS := map[ids.NamespaceID]int{}
	for i, in := range all {
		if i > 0 && all[i-1].Key.Compare(in.Key) >= 0 {
			t.Fatal("order")
		}
		perNS[in.Key.Namespace]++
	}
	for ns := range ids.NamespaceID(5) {
		part, err := s.ListNamespace(ns, layout.FragKey{}, 0)
		must(t, err)
		if len(part) != perNS[ns] {
			t.Fatalf("namespace %d: %d, want %d", ns, len(part), perNS[ns])
		}
	}
	last, err := s.ListNamespace(^ids.NamespaceID(0), layout.FragKey{}, 0)
	if err != nil || len(last) != 0 {
		t.Fatal(last, err)
	}
}
