package proxy

import (
	"bytes"
	"context"
	"slices"
	"testing"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// List and Describe make a fakeStore a Surveyor.
func (s *fakeStore) List(after layout.FragKey, limit int) (out []layout.FragInfo, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, b := range s.frags {
		if k.Compare(after) > 0 {
			out = append(out, layout.FragInfo{Key: k, Len: uint32(len(b)), Sum: layout.FragSum(s.sums[k])})
		}
	}
	slices.SortFunc(out, func(a, b layout.FragInfo) int { return a.Key.Compare(b.Key) })
	return out[:min(len(out), limit, 7)], nil
}

func (s *fakeStore) Describe(_ context.Context, k layout.FragKey, dst []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.frags[k] == nil {
		return dst, errs.New(errs.Absent, "no %v", k)
	}
	return append(dst, s.descs[k]...), nil
}

func (r *rig) census() *Census {
	var list []Surveyed
	for i, s := range r.stores {
		list = append(list, Surveyed{ids.ASDID(i), s})
	}
	return NewCensus(list)
}

// same compares manifests but for what a census cannot know.
func same(t *testing.T, got, want *layout.Manifest) {
	t.Helper()
	g, w := got.Clone(), want.Clone()
	g.Commit, w.Commit, g.Version, w.Version = 0, 0, 0, 0
	if !bytes.Equal(g.Append(nil), w.Append(nil)) {
		t.Fatalf("assembled\n%+v\ncommitted\n%+v", g, w)
	}
}

// Manifests made from the ASDs alone are those that were committed: of whole objects, of degraded ones, and
// after repairs.
func TestAssemble(t *testing.T) {
	r := newRig(t, 6, nil)
	epoch := r.own()
	sizes := []int{1, 4096, 100_000, 2_000_000}
	for i, size := range sizes {
		p := r.put(epoch, ids.SCONum(10+i), newContent(size, uint64(i)))
		r.commit(p)
		r.waitSettled(p)
	}
	r.stores[3].set(func(s *fakeStore) {
		for k := range s.frags {
			if k.SCO == 12 {
				delete(s.frags, k)
			}
		}
	})
	if n, err := r.Audit(ctx, 3); err != nil || n == 0 {
		t.Fatal(n, err)
	}
	if _, err := r.RepairMissing(ctx, ns); err != nil { // fragments of version 1
		t.Fatal(err)
	}
	r.stores[5].set(func(s *fakeStore) { clear(s.frags) }) // and one that lost all
	if _, err := r.Audit(ctx, 5); err != nil {
		t.Fatal(err)
	}
	c := r.census()
	for i := range sizes {
		held, err := c.Next()
		if err != nil || len(held) == 0 {
			t.Fatal(held, err)
		}
		again, err := c.Object(ns, ids.SCONum(10+i))
		if err != nil || !slices.Equal(again, held) || len(Puts(held)) != 1 {
			t.Fatalf("%v\n%v\n%v", again, held, err)
		}
		m, err := c.Assemble(ctx, held)
		if err != nil {
			t.Fatal(err)
		}
		want := r.manifestOf(ids.SCONum(10 + i))
		if lacking, beside := Compare(want, held, map[ids.ASDID]bool{0: true, 5: true}); len(lacking)+beside != 0 {
			t.Fatal(lacking, beside)
		}
		// Where a slot's ASD has nothing of it, nobody knows which one it was.
		for s, target := range want.Targets {
			if target == layout.ASDTarget(5) {
				want.Targets[s] = layout.Target{}
			}
		}
		same(t, m, want)
	}
	if held, err := c.Next(); held != nil || err != nil {
		t.Fatal(held, err)
	}
}

// What is too little, or not what the rest says, makes no manifest.
func TestAssembleRefuses(t *testing.T) {
	r := newRig(t, 6, nil)
	p := r.put(r.own(), 1, newContent(300_000, 1))
	r.commit(p)
	r.waitSettled(p)
	held, err := r.census().Next()
	if err != nil {
		t.Fatal(err)
	}
	m := r.manifestOf(1)
	// One fragment's checksum differs: it is left out.
	odd := slices.Clone(held)
	odd[0].Info.Sum++
	got, err := r.census().Assemble(ctx, odd)
	if err != nil || len(got.Missing()) != 1 || got.Frag(0, 0).Sum != m.Frag(0, 0).Sum {
		t.Fatal(err)
	}
	// Three of six are gone.
	var few []Held
	for _, h := range held {
		if h.ASD < 3 {
			few = append(few, h)
		}
	}
	if _, err := r.census().Assemble(ctx, few); errs.Of(err) != errs.Corrupt {
		t.Fatal(err)
	}
	if ok, least := Readable(sketch(m, few)); ok || least != 3 {
		t.Fatal(ok, least)
	}
	// Fragments of an older version have no descriptor.
	for _, s := range r.stores {
		s.set(func(s *fakeStore) { clear(s.descs) })
	}
	if _, err := r.census().Assemble(ctx, held); errs.Of(err) != errs.Absent {
		t.Fatal(err)
	}
}
