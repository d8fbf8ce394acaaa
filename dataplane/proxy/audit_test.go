package proxy

import (
	"context"
	"testing"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// An audit marks what an ASD does not have, and only that; a repair then writes it again.
func TestAudit(t *testing.T) {
	r := newRig(t, 6, nil)
	epoch := r.own()
	var all []*Pending
	for sco := range ids.SCONum(150) { // more than a page of manifests
		p := r.put(epoch, sco+1, newContent(40_000, uint64(sco)))
		r.commit(p)
		r.waitSettled(p)
		all = append(all, p)
	}
	audit := func(id ids.ASDID, want int) {
		t.Helper()
		n, err := r.Audit(ctx, id)
		if err != nil || n != want {
			t.Fatalf("ASD %d lacks %d: %v; want %d", id, n, err, want)
		}
	}
	for id := range ids.ASDID(6) {
		audit(id, 0)
	}
	lost := 0
	r.stores[2].set(func(s *fakeStore) {
		for k := range s.frags {
			if k.SCO%3 == 0 || k.SCO > 140 {
				delete(s.frags, k)
				lost++
			}
		}
	})
	audit(2, lost)
	audit(2, 0)
	if m := r.manifestOf(3); m.Whole() || len(m.Missing()) != m.Geometry().Chunks {
		t.Fatalf("%+v", m.Missing())
	}
	rep, err := r.RepairMissing(ctx, ns)
	if err != nil || rep.Fragments != lost || rep.Left != 0 {
		t.Fatalf("%+v %v", rep, err)
	}
	audit(2, 0)
	r.mustRead(r.manifestOf(3), all[2].spec.Source.(*content).b)
	if c := r.Counters(); c.Lacking != int64(lost) {
		t.Error(c.Lacking)
	}
}

// Who does not answer lacks nothing; what is in flight, or lands after the list was taken, is not lacking.
func TestAuditOfTheSilent(t *testing.T) {
	r := newRig(t, 6, nil)
	epoch := r.own()
	p := r.put(epoch, 1, newContent(40_000, 1))
	r.commit(p)
	r.waitSettled(p)
	s := r.stores[1]
	s.set(func(s *fakeStore) { clear(s.frags) })
	r.setDead(true, 1)
	if n, err := r.Audit(ctx, 1); n != 0 || errs.Of(err) != errs.Unreachable {
		t.Fatal(n, err)
	}
	r.setDead(false, 1)
	s.set(func(s *fakeStore) { s.listErr = errs.Unreachable })
	if n, err := r.Audit(ctx, 1); n != 0 || errs.Of(err) != errs.Unreachable {
		t.Fatal(n, err)
	}
	if !r.manifestOf(1).Whole() {
		t.Fatal("marked by an ASD that did not answer")
	}
	if n, err := r.Audit(ctx, 9); n != 0 || errs.Of(err) != errs.Absent {
		t.Fatal(n, err)
	}
}

// staleStore lists a namespace as it was a moment ago, when it is asked for more than one key.
type staleStore struct {
	*fakeStore
	stale bool
}

func (s *staleStore) ListNamespace(ctx context.Context, ns ids.NamespaceID, after layout.FragKey, limit int) (
	[]layout.FragKey, error) {
	if s.stale && limit > 1 {
		return nil, nil
	}
	return s.fakeStore.ListNamespace(ctx, ns, after, limit)
}

func TestAuditAsksAgain(t *testing.T) {
	stale := &staleStore{}
	r := newRig(t, 6, func(o *Options) {
		asds := o.ASDs
		o.ASDs = func() []ASD {
			list := asds()
			stale.fakeStore = list[4].Store.(*fakeStore)
			list[4].Store = stale
			return list
		}
	})
	epoch := r.own()
	p := r.put(epoch, 1, newContent(400_000, 1))
	r.commit(p)
	r.waitSettled(p)
	stale.stale = true
	if n, err := r.Audit(ctx, 4); n != 0 || err != nil || !r.manifestOf(1).Whole() {
		t.Fatal(n, err)
	}
}

func TestBefore(t *testing.T) {
	k := layout.FragKey{Namespace: 5, SCO: 1}
	for _, next := range []layout.FragKey{
		{Namespace: 5, SCO: 1, Version: 1}, {Namespace: 5, SCO: 1, Frag: 1}, {Namespace: 5, SCO: 1, Chunk: 1},
		{Namespace: 5, SCO: 1, Put: 1}, {Namespace: 5, SCO: 2}, k} {
		b := before(next)
		if b.Compare(next) >= 0 {
			t.Errorf("%v is not before %v", b, next)
		}
		if up := b.Append(nil); up[19] != 255 && b.Version+1 != next.Version {
			t.Errorf("there is something between %v and %v", b, next)
		}
	}
}
