package proxy

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/meta"
)

func sumsOf(b []byte) []uint64 {
	var out []uint64
	for len(b) > 0 {
		n := min(len(b), layout.RegionSize)
		out = append(out, xxhash.Sum64(b[:n]))
		b = b[n:]
	}
	return out
}

func TestEpochFence(t *testing.T) {
	r := newRig(t, 6, nil)
	if _, err := r.Owner(ctx, ns); errs.Of(err) != errs.Absent {
		t.Fatal(err)
	}
	src := newContent(100_000, 1)
	_, err := r.Put(ctx, r.spec(1, 1, src))
	r.kind(err, errs.Refused) // nobody owns it
	e1 := r.own()
	p := r.put(e1, 1, src)
	e2 := r.own()
	if e, err := r.Owner(ctx, ns); e != e2 || e2 != e1+1 || err != nil {
		t.Fatal(e, e1, e2, err)
	}
	if err := p.Commit(ctx); !errors.Is(err, ErrFenced) || errs.Of(err) != errs.Refused {
		t.Fatal(err)
	}
	p.Abandon()
	r.waitSettled(p)
	if n := r.fragments(); n != 0 {
		t.Fatalf("%d fragments of a fenced put are left", n)
	}
	for _, err := range []error{
		func() error { _, err := r.ReserveSCOs(ctx, ns, e1, 10); return err }(),
		r.put(e1, 2, src).Commit(ctx), // a put may still run on its old range; the commit is the fence
		func() error { _, err := r.CollectGarbage(ctx, ns, e1, nil); return err }(),
	} {
		if !errors.Is(err, ErrFenced) {
			t.Fatal(err)
		}
	}
	// In a new process there is no old range either.
	r.crash()
	if _, err := r.Put(ctx, r.spec(e1, 3, src)); !errors.Is(err, ErrFenced) {
		t.Fatal(err)
	}
	r.commit(r.put(e2, 1, src))
	if err := r.DeleteObject(ctx, ns, e1, 1); !errors.Is(err, ErrFenced) {
		t.Fatal(err)
	}
	r.mustRead(r.manifestOf(1), src.b)
}

func TestNumbersAreNeverReused(t *testing.T) {
	r := newRig(t, 6, nil)
	src := newContent(5000, 1)
	puts, scos := map[ids.PutID]bool{}, map[ids.SCONum]bool{}
	for range 4 {
		e := r.own()
		for range 3 {
			first, err := r.ReserveSCOs(ctx, ns, e, 100)
			if err != nil || first == 0 {
				t.Fatal(first, err)
			}
			for i := range ids.SCONum(100) {
				if scos[first+i] {
					t.Fatalf("SCO %d twice", first+i)
				}
				scos[first+i] = true
			}
			p := r.put(e, first, src)
			id := p.Manifest().Put
			if puts[id] || id == 0 {
				t.Fatalf("put %d twice", id)
			}
			puts[id] = true
			p.Abandon()
			r.waitSettled(p)
		}
		r.crash()
	}
	r.kind(func() error { _, err := r.ReserveSCOs(ctx, ns, 4, 0); return err }(), errs.Invalid)
	// At the end of the numbers there is an answer.
	if err := r.meta.Apply(ctx, new(meta.Txn).Put(nsKey(keySCOs, ns), encodeCell(keySCOs, 1<<32-5))); err != nil {
		t.Fatal(err)
	}
	if first, err := r.ReserveSCOs(ctx, ns, 4, 5); err != nil || first != 1<<32-5 {
		t.Fatal(first, err)
	}
	_, err := r.ReserveSCOs(ctx, ns, 4, 1)
	r.kind(err, errs.Full)
}

func TestCrashBeforeCommit(t *testing.T) {
	r := newRig(t, 6, nil)
	e := r.own()
	src := newContent(900_000, 2)
	r.commit(r.put(e, 1, src))
	r.put(e, 2, src) // never committed
	live := len(r.manifestOf(1).Frags)
	r.crash()
	if r.fragments() != 2*live {
		t.Fatal("the crash lost fragments")
	}
	for _, again := range []bool{false, true} { // once as the same owner, once as the next
		if again {
			e = r.own()
		}
		g, err := r.CollectGarbage(ctx, ns, e, nil)
		want := Garbage{Condemned: 1, Deleted: live}
		if again {
			want = Garbage{}
		}
		if err != nil || r.fragments() != live || g != want {
			t.Fatalf("%+v %v, %d left", g, err, r.fragments())
		}
	}
	r.mustRead(r.manifestOf(1), src.b)
}

func TestCrashAfterCommit(t *testing.T) {
	r := newRig(t, 6, nil)
	e := r.own()
	src := newContent(900_000, 3)
	r.commit(r.put(e, 1, src))
	r.crash()
	r.mustRead(r.manifestOf(1), src.b)
	g, err := r.CollectGarbage(ctx, ns, r.own(), nil)
	if err != nil || g != (Garbage{}) {
		t.Fatalf("%+v %v", g, err)
	}
	r.mustRead(r.manifestOf(1), src.b)
}

func TestGarbageSparesPutsInFlight(t *testing.T) {
	r := newRig(t, 6, nil)
	e := r.own()
	src := newContent(900_000, 4)
	p := r.put(e, 1, src)
	if g, err := r.CollectGarbage(ctx, ns, e, nil); err != nil || g != (Garbage{}) {
		t.Fatalf("%+v %v", g, err)
	}
	r.commit(p)
	r.mustRead(r.manifestOf(1), src.b)
}

// A second process of the same owner condemns a put that the first is about to commit.
func TestCondemnedPutCannotCommit(t *testing.T) {
	r := newRig(t, 6, nil)
	e := r.own()
	src := newContent(100_000, 5)
	p := r.put(e, 1, src)
	other, err := New(r.opts)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(ctx)
	if g, err := other.CollectGarbage(ctx, ns, e, nil); err != nil || g.Condemned != 1 || r.fragments() != 0 {
		t.Fatalf("%+v %v", g, err)
	}
	if err := p.Commit(ctx); !errors.Is(err, ErrCondemned) || errs.Of(err) != errs.Canceled {
		t.Fatal(err)
	}
	p.Abandon()
	r.waitSettled(p)
	r.commit(r.put(e, 1, src)) // a new put id
	r.mustRead(r.manifestOf(1), src.b)
	e = r.own()
	if list, err := r.meta.Scan(ctx, nsKey(keyCondemned, ns), nil, 10); err != nil || len(list) != 0 {
		t.Fatal("condemnations of an older epoch are kept", err)
	}
	// A committed put cannot be condemned.
	r.kind(r.condemn(ctx, ns, 1, r.manifestOf(1).Put, e), errs.Exists)
}

func TestCommitTwice(t *testing.T) {
	r := newRig(t, 6, nil)
	e := r.own()
	src := newContent(100_000, 6)
	p := r.put(e, 1, src)
	q := r.put(e, 1, src)
	r.commit(p)
	r.commit(p)
	r.kind(q.CommitAs(ctx, 44), errs.Exists)
	// A commit whose answer was lost is found by the next try.
	if err := r.Proxy.commit(ctx, p.Manifest()); err != nil {
		t.Fatal(err)
	}
	q.Abandon()
	r.waitSettled(q)
	r.waitSettled(p)
	if q.Manifest().Commit != 44 || !r.onlyLive() {
		t.Fatal("the refused put is left")
	}
	p.Abandon() // too late, no effect
	r.mustRead(r.manifestOf(1), src.b)
}

// What an ASD has missed is deleted as soon as it is back: with many restarts the space would be missed.
func TestReturnResumesDeletes(t *testing.T) {
	r := newRig(t, 6, func(o *Options) { o.RetryInterval = time.Hour })
	e := r.own()
	r.commit(r.put(e, 1, newContent(900_000, 7)))
	r.setDead(true, 1)
	if err := r.DeleteObject(ctx, ns, e, 1); err != nil || r.Counters().DeletesLeft != 1 {
		t.Fatal(err, r.Counters().DeletesLeft)
	}
	r.setDead(false, 1)
	r.ASDReturned()
	for end := time.Now().Add(time.Minute); r.fragments() != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d fragments are left", r.fragments())
		}
	}
}

func TestDeleteIsResumed(t *testing.T) {
	r := newRig(t, 6, nil)
	e := r.own()
	src := newContent(900_000, 7)
	for sco := range ids.SCONum(3) {
		r.commit(r.put(e, sco+1, src))
	}
	r.setDead(true, 1)
	r.stores[4].delErr = errs.New(errs.Unreachable, "no answer")
	for range 2 {
		if err := r.DeleteObject(ctx, ns, e, 2); err != nil { // the second time it is absent
			t.Fatal(err)
		}
		r.kind(func() error { _, err := r.Manifest(ctx, ns, 2); return err }(), errs.Absent)
	}
	if r.onlyLive() {
		t.Fatal("a dead ASD deleted")
	}
	r.crash()
	if g, err := r.CollectGarbage(ctx, ns, e, nil); err != nil || g.Condemned != 0 || g.Silent != 1 {
		t.Fatalf("%+v %v", g, err)
	}
	if left, err := r.ResumeDeletes(ctx); left != 1 || err != nil || r.Counters().DeletesLeft != 1 {
		t.Fatal(left, err)
	}
	r.setDead(false, 1)
	r.stores[4].delErr = nil
	if left, err := r.ResumeDeletes(ctx); left != 0 || err != nil || !r.onlyLive() {
		t.Fatal(left, err)
	}
	if list, _ := r.meta.Scan(ctx, key(keyDelete), nil, 10); len(list) != 0 {
		t.Fatal("the delete record is left")
	}
	r.mustRead(r.manifestOf(3), src.b)
}

// A fragment that lands after its object was deleted is deleted as well.
func TestDeleteBeforeLastFragmentLands(t *testing.T) {
	r := newRig(t, 6, shortGrace)
	e := r.own()
	release := make(chan struct{})
	r.stores[0].hang = release
	p := r.put(e, 1, newContent(100_000, 8))
	r.commit(p)
	if err := r.DeleteObject(ctx, ns, e, 1); err != nil {
		t.Fatal(err)
	}
	close(release)
	r.waitSettled(p)
	if n := r.fragments(); n != 0 {
		t.Fatalf("%d fragments are left", n)
	}
}

func TestDeleteNamespace(t *testing.T) {
	r := newRig(t, 6, nil)
	e := r.own()
	src := newContent(300_000, 9)
	for sco := range ids.SCONum(5) {
		r.commit(r.put(e, sco+1, src))
	}
	open := r.put(e, 9, src)
	r.setDead(true, 3)
	if err := r.DeleteNamespace(ctx, ns); err != nil {
		t.Fatal(err)
	}
	if err := open.Commit(ctx); !errors.Is(err, ErrFenced) {
		t.Fatal(err)
	}
	open.Abandon()
	r.kind(func() error { _, err := r.TakeOwnership(ctx, ns); return err }(), errs.Refused)
	r.crash()
	r.setDead(false, 3)
	if left, err := r.ResumeDeletes(ctx); left != 0 || err != nil || r.fragments() != 0 {
		t.Fatal(left, err, r.fragments())
	}
	list, err := r.meta.Scan(ctx, nil, nil, 100)
	if err != nil || len(list) != 1 {
		t.Fatalf("%d keys are left, not only the tombstone: %v", len(list), err)
	}
	if err := r.DeleteNamespace(ctx, ns); err != nil {
		t.Fatal(err)
	}
}

func TestRepair(t *testing.T) {
	r := newRig(t, 7, nil)
	e := r.own()
	src := newContent(1_200_000, 10)
	r.setDead(true, 5, 6)
	p := r.put(e, 1, src)
	m := p.Manifest()
	if m.Policy.K != 4 || len(m.Missing()) != m.Geometry().Chunks {
		t.Fatalf("%v, %d missing", m.Policy, len(m.Missing()))
	}
	if s, err := r.RepairMissing(ctx, ns); err != nil || s != (Repaired{}) {
		t.Fatalf("%+v %v", s, err) // not committed: nothing there
	}
	r.commit(p)
	r.waitSettled(p)
	if s, err := r.RepairMissing(ctx, ns); err != nil || s.Left != 3 || s.Fragments != 0 {
		t.Fatalf("%+v %v", s, err)
	}
	r.setDead(false, 5)
	// One source lies; the repair does not believe it.
	liar := m.FragKey(0, 1)
	if m.Target(0, 1).Kind == layout.TargetNone {
		liar = m.FragKey(0, 2)
	}
	s := r.stores[m.Target(0, int(liar.Frag)).ASD]
	good := bytes.Clone(s.frags[liar])
	s.frags[liar][5] ^= 1
	s.sums[liar] = sumsOf(s.frags[liar])
	if s, err := r.RepairMissing(ctx, ns); err != nil || s.Fragments != 3 || s.Left != 0 || s.Objects != 1 {
		t.Fatalf("%+v %v", s, err)
	}
	s.frags[liar] = good
	s.sums[liar] = sumsOf(good)
	m = r.manifestOf(1)
	if !m.Whole() || m.Version != 1 || r.stores[5].count() != 3 {
		t.Fatalf("%+v", m)
	}
	for a := range 6 {
		for b := range a {
			undo := r.inflict("lost", a, b)
			r.mustRead(m, src.b)
			undo()
		}
	}
	if g, err := r.CollectGarbage(ctx, ns, e, nil); err != nil || g.Deleted != 0 {
		t.Fatalf("%+v %v", g, err)
	}
}

// A crash after the last fragment landed and before the manifest said so: repair adopts it.
func TestRepairAdopts(t *testing.T) {
	r := newRig(t, 6, nil)
	e := r.own()
	src := newContent(100_000, 11)
	p := r.put(e, 1, src)
	m := p.Manifest()
	m.Frag(0, 3).State = layout.FragMissing
	m.Frag(0, 4).State = layout.FragMissing
	if err := r.Proxy.commit(ctx, m); err != nil {
		t.Fatal(err)
	}
	r.crash()
	bad := r.stores[m.Target(0, 4).ASD]
	bad.frags[m.FragKey(0, 4)][9] ^= 1 // this one did not survive as it should
	s, err := r.RepairMissing(ctx, ns)
	if c := r.Counters(); err != nil || s.Fragments != 2 || c.Adopted != 1 || c.Repaired != 1 {
		t.Fatalf("%+v %v %+v", s, err, c)
	}
	m = r.manifestOf(1)
	if !m.Whole() || m.Frag(0, 3).Version != 0 || m.Frag(0, 4).Version != 1 || !r.onlyLive() {
		t.Fatalf("%+v", m.Frags)
	}
	if g, err := r.CollectGarbage(ctx, ns, e, nil); err != nil || g != (Garbage{}) {
		t.Fatalf("%+v %v", g, err)
	}
	r.mustRead(m, src.b)
	if err := r.DeleteObject(ctx, ns, e, 1); err != nil || r.fragments() != 0 {
		t.Fatal(err, r.fragments())
	}
}

func TestGarbageOfOldVersions(t *testing.T) {
	r := newRig(t, 6, nil)
	e := r.own()
	src := newContent(100_000, 12)
	p := r.put(e, 1, src)
	r.commit(p)
	r.waitSettled(p)
	if _, err := r.Amend(ctx, ns, 1, func(m *layout.Manifest) bool {
		m.Frag(0, 2).State = layout.FragMissing
		return true
	}); err != nil {
		t.Fatal(err)
	}
	m := r.manifestOf(1)
	s := r.stores[m.Target(0, 2).ASD]
	old := m.FragKey(0, 2)
	s.frags[old][0] ^= 1
	s.delErr = errs.New(errs.Unreachable, "no answer")
	if x, err := r.RepairMissing(ctx, ns); err != nil || x.Fragments != 1 {
		t.Fatal(x, err)
	}
	s.delErr = nil
	if _, ok := s.frags[old]; !ok {
		t.Fatal("the old version went although the store does not delete")
	}
	// A key that belongs on another ASD, and one beyond the object.
	stray := m.FragKey(0, 0)
	r.stores[m.Target(0, 1).ASD].frags[stray] = []byte{1}
	stray.Chunk = 900
	s.frags[stray] = []byte{1}
	if g, err := r.CollectGarbage(ctx, ns, e, nil); err != nil || g.Deleted != 3 || !r.onlyLive() {
		t.Fatalf("%+v %v", g, err)
	}
	r.mustRead(r.manifestOf(1), src.b)
}

func TestClosed(t *testing.T) {
	r := newRig(t, 6, nil)
	e := r.own()
	if err := r.Close(ctx); err != nil {
		t.Fatal(err)
	}
	_, err := r.Put(ctx, r.spec(e, 1, newContent(1, 1)))
	r.kind(err, errs.Closed)
	r.kind(r.DeleteObject(ctx, ns, e, 1), errs.Closed)
}

func TestOptions(t *testing.T) {
	r := newRig(t, 6, nil)
	for _, bad := range []func(*Options){
		func(o *Options) { o.Meta = nil }, func(o *Options) { o.ASDs = nil }, func(o *Options) { o.Workers = -1 },
		func(o *Options) { o.ChunkBuffers = 1 }, func(o *Options) { o.Preset.Policies = nil },
		func(o *Options) { o.Grace = -1 },
	} {
		o := r.opts
		bad(&o)
		if _, err := New(o); errs.Of(err) != errs.Invalid {
			t.Error(err)
		}
	}
	want := int64(4*6+6+1)*(4096+128<<10) + 2*6*64<<10 + 8*6*64<<10
	if r.MemoryBytes() != want {
		t.Errorf("%d bytes, want %d", r.MemoryBytes(), want)
	}
}

func TestCellGolden(t *testing.T) {
	b := encodeCell(keyOwner, 0x1122334455667788)
	const want = "5643016f8877665544332211"
	if hex.EncodeToString(b[:12]) != want || len(b) != cellSize {
		t.Fatalf("%x", b)
	}
	if k, v, err := DumpCell(b); k != keyOwner || v != 0x1122334455667788 || err != nil {
		t.Fatal(k, v, err)
	}
	for i := range b {
		for bit := range 8 {
			b[i] ^= 1 << bit
			if _, err := decodeCell(keyOwner, b); err == nil {
				t.Fatalf("flip of bit %d in byte %d was not found", bit, i)
			}
			b[i] ^= 1 << bit
		}
	}
	_, err := decodeCell(keyPuts, b)
	if errs.Of(err) != errs.Corrupt {
		t.Fatal(err)
	}
}

func FuzzDecodeCell(f *testing.F) {
	f.Add(byte(keyOwner), encodeCell(keyOwner, 7))
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		if v, err := decodeCell(kind, b); err == nil && !bytes.Equal(encodeCell(kind, v), b) {
			t.Fatal("a cell that decodes does not encode to the same bytes")
		}
	})
}
