package proxy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

func TestPutGetSizes(t *testing.T) {
	r := newRig(t, 6, nil)
	e := r.own()
	sco := ids.SCONum(0)
	for _, size := range []int{1, 4095, 4096, 4097, 65536, 100_000, 512 << 10, 512<<10 + 1, 3_000_000} {
		sco++
		src := newContent(size, uint64(size))
		p := r.put(e, sco, src)
		if n := p.Missing(); n != 0 {
			t.Fatalf("%d bytes: %d fragments missing", size, n)
		}
		if to, again := src.coded.Load(), src.again.Load(); to < int64(size) || again != 0 {
			t.Fatalf("%d bytes: coded to %d, and then %d times anew", size, to, again)
		}
		if _, err := r.Manifest(ctx, ns, sco); errs.Of(err) != errs.Absent {
			t.Fatal("an object exists before its commit")
		}
		r.commit(p)
		r.waitSettled(p)
		m := r.manifestOf(sco)
		if m.Size != int64(size) || m.Commit != ids.CommitNum(sco) || m.Policy.K != 4 || m.Epoch != e {
			t.Fatalf("%+v", m)
		}
		r.mustRead(m, src.b)
	}
	list, err := r.Manifests(ctx, ns, 3, 4)
	if err != nil || len(list) != 4 || list[0].SCO != 4 || list[3].SCO != 7 {
		t.Fatal(list, err)
	}
	if out := r.Counters().BuffersOut; out != 0 {
		t.Fatalf("%d buffers are out", out)
	}
}

// All sets of up to m stores may lose or spoil all they have.
func TestEveryLoss(t *testing.T) {
	for _, fault := range []string{"lost", "corrupt", "unreachable", "dead"} {
		t.Run(fault, func(t *testing.T) {
			r := newRig(t, 6, nil)
			e := r.own()
			src := newContent(1_200_000, 5)
			p := r.put(e, 1, src)
			r.commit(p)
			m := r.manifestOf(1)
			for a := range 6 {
				for b := range a + 1 {
					undo := r.inflict(fault, a, b)
					r.mustRead(m, src.b)
					undo()
				}
			}
			undo := r.inflict(fault, 0, 1, 2)
			got := make([]byte, len(src.b))
			if r.Get(ctx, m, 0, got) == nil || r.GetVerified(ctx, m, 0, got) == nil {
				t.Fatal("three of (4,2) lost, and it reads")
			}
			if k := errs.Of(r.Get(ctx, m, 0, got)); (fault == "dead" || fault == "unreachable") && k != errs.Unreachable {
				t.Fatalf("kind %v", k)
			}
			undo()
			r.mustRead(m, src.b)
		})
	}
}

func (r *rig) inflict(fault string, list ...int) (undo func()) {
	var undos []func()
	for _, i := range list {
		s := r.stores[i]
		switch fault {
		case "dead":
			r.setDead(true, i)
			undos = append(undos, func() { r.setDead(false, i) })
		case "unreachable":
			s.set(func(s *fakeStore) { s.getErr = errs.New(errs.Unreachable, "no answer") })
			undos = append(undos, func() { s.set(func(s *fakeStore) { s.getErr = nil }) })
		case "lost":
			old := s.frags
			s.set(func(s *fakeStore) { s.frags = map[layout.FragKey][]byte{} })
			undos = append(undos, func() { s.set(func(s *fakeStore) { s.frags = old }) })
		case "corrupt":
			flip := func() {
				s.set(func(s *fakeStore) {
					for k := range s.frags {
						for at := 100; at < len(s.frags[k]); at += layout.RegionSize {
							s.frags[k][at] ^= 0x10
						}
					}
				})
			}
			flip()
			undos = append(undos, flip)
		}
	}
	return func() {
		for _, f := range slices.Backward(undos) { // the same store may be listed twice
			f()
		}
	}
}

// A store that swaps two fragments, with checksums that fit, deceives Get and not GetVerified.
func TestVerifiedDistrustsStores(t *testing.T) {
	r := newRig(t, 6, nil)
	src := newContent(300_000, 6)
	p := r.put(r.own(), 1, src)
	r.commit(p)
	m := r.manifestOf(1)
	for _, victim := range []int{0, 3} {
		k := m.FragKey(0, victim)
		s := r.stores[m.Target(0, victim).ASD]
		s.set(func(s *fakeStore) {
			for i := range s.frags[k] {
				s.frags[k][i] = byte(i)
			}
			g := m.Geometry().FragLen
			s.sums[k] = sumsOf(s.frags[k][:g])
		})
		got := make([]byte, len(src.b))
		if err := r.GetVerified(ctx, m, 0, got); err != nil || string(got) != string(src.b) {
			t.Fatal("wrong bytes", err)
		}
	}
	if r.Counters().Corrupt == 0 {
		t.Fatal("nobody noticed")
	}
}

// What a store vouches for, and is wrong all the same, is rebuilt without it; and if another is wrong, too, some choice
// of the others does.
func TestRebuiltDistrustsItsFragment(t *testing.T) {
	r := newRig(t, 6, nil)
	src := newContent(300_000, 6)
	p := r.put(r.own(), 1, src)
	r.commit(p)
	m := r.manifestOf(1)
	g := m.Geometry().FragLen
	wrong := func(frag int) {
		k := m.FragKey(0, frag)
		r.stores[m.Target(0, frag).ASD].set(func(s *fakeStore) {
			s.frags[k][5000]++
			s.sums[k] = sumsOf(s.frags[k][:g])
		})
	}
	want := string(src.b[4096:8192])
	got := make([]byte, 4096)
	wrong(0)
	if err := r.Get(ctx, m, 4096, got); err != nil || string(got) == want {
		t.Fatal("the store is not wrong", err)
	}
	if err := r.GetRebuilt(ctx, m, 4096, got, 0); err != nil || string(got) != want {
		t.Error("wrong bytes", err)
	}
	wrong(1)
	right := 0
	for try := range m.Policy.N() - 1 {
		if err := r.GetRebuilt(ctx, m, 4096, got, try); err == nil && string(got) == want {
			right++
		}
	}
	if right == 0 || right == m.Policy.N()-1 {
		t.Errorf("%d choices are right", right)
	}
	if err := r.GetRebuilt(ctx, m, g-4096, make([]byte, 8192), 0); errs.Of(err) != errs.Invalid {
		t.Errorf("of two fragments: %v", err)
	}
}

func TestPutToTooFewFallsBack(t *testing.T) {
	r := newRig(t, 6, nil)
	e := r.own()
	src := newContent(600_000, 7)
	// One dead: degraded under the first policy. Two: the second. Four: none.
	for dead, want := range []struct{ k, missing int }{{4, 0}, {4, 2}, {2, 0}, {2, 3}} {
		p := r.put(e, ids.SCONum(dead+1), src)
		m := p.Manifest()
		if int(m.Policy.K) != want.k || p.Missing() != want.missing {
			t.Fatalf("%d dead: %v with %d missing", dead, m.Policy, p.Missing())
		}
		r.commit(p)
		r.mustRead(r.manifestOf(ids.SCONum(dead+1)), src.b)
		r.setDead(true, dead)
	}
	_, err := r.Put(ctx, r.spec(e, 9, src))
	r.kind(err, errs.Unreachable)
}

func TestPutOnFailingStores(t *testing.T) {
	for _, c := range []struct {
		failing int
		err     error
		kind    errs.Kind // OK: the put goes through
		k       uint8
	}{
		{1, errs.New(errs.IO, "bad drive"), errs.OK, 4},
		{2, errs.New(errs.IO, "bad drive"), errs.OK, 2},
		{3, errs.New(errs.Unreachable, "gone"), errs.OK, 2},
		{4, errs.New(errs.Unreachable, "gone"), errs.Unreachable, 0},
		{4, errs.New(errs.IO, "bad drive"), errs.IO, 0},
		{6, errs.New(errs.Full, "no space"), errs.Full, 0},
		{3, errs.New(errs.Full, "no space"), errs.OK, 2},
		{1, errs.New(errs.Refused, "epoch"), errs.OK, 4},
		{3, errs.New(errs.Refused, "epoch"), errs.Refused, 0},
	} {
		t.Run(fmt.Sprint(c.failing, c.err), func(t *testing.T) {
			r := newRig(t, 6, nil)
			e := r.own()
			for _, s := range r.stores[:c.failing] {
				// The first chunk goes well: the failure comes in the middle.
				s.putHook = func(p *layout.FragPut) error {
					if p.Key.Chunk == 0 {
						return nil
					}
					return c.err
				}
			}
			src := newContent(1_200_000, 8)
			p, err := r.Put(ctx, r.spec(e, 1, src))
			r.kind(err, c.kind)
			if err == nil {
				r.commit(p)
				m := r.manifestOf(1)
				if m.Policy.K != c.k {
					t.Fatalf("policy %v", m.Policy)
				}
				r.mustRead(m, src.b)
				r.waitSettled(p)
			}
			r.until("failed attempts are cleaned up", func() bool { return r.onlyLive() })
			if c.kind == errs.Refused && !errors.Is(err, ErrFenced) {
				t.Fatal(err)
			}
		})
	}
}

// onlyLive reports whether the stores hold just what manifests name.
func (r *rig) onlyLive() bool {
	live := 0
	list, err := r.Manifests(ctx, ns, 0, 1000)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, m := range list {
		live += len(m.Frags) - len(m.Missing())
	}
	return r.fragments() == live
}

func TestPutFullBeforeItStarts(t *testing.T) {
	r := newRig(t, 6, nil)
	e := r.own()
	src := newContent(600_000, 9)
	for i := range 4 {
		r.free[i] = 1000
	}
	_, err := r.Put(ctx, r.spec(e, 1, src))
	r.kind(err, errs.Full)
	spec := r.spec(e, 2, src)
	spec.Class = layout.ClassCleaning // the reserve is for it; the store decides
	if _, err := r.Put(ctx, spec); err != nil {
		t.Fatal(err)
	}
}

func TestPutBadSource(t *testing.T) {
	r := newRig(t, 6, nil)
	e := r.own()
	src := newContent(600_000, 10)
	src.err = errs.New(errs.Corrupt, "block 7")
	_, err := r.Put(ctx, r.spec(e, 1, src))
	r.kind(err, errs.Corrupt)
	src.err = nil
	for _, bad := range []func(*PutSpec){
		func(s *PutSpec) { s.SCO = 0 }, func(s *PutSpec) { s.Epoch = 0 }, func(s *PutSpec) { s.Kind = 9 },
		func(s *PutSpec) { s.Source = nil }, func(s *PutSpec) { s.SeqFirst = 10 },
		func(s *PutSpec) { s.Source = newContent(0, 1) },
		func(s *PutSpec) {
			s.Preset = &layout.Preset{MaxFragment: 1 << 20, Policies: r.opts.Preset.Policies}
		},
	} {
		s := r.spec(e, 1, src)
		bad(&s)
		_, err := r.Put(ctx, s)
		r.kind(err, errs.Invalid)
	}
	if r.Counters().BuffersOut != 0 {
		t.Fatal("buffers leak")
	}
}

// One store hangs: the put goes on after the grace, the fragment lands later and enters the manifest.
func TestHangingStoreIsAmended(t *testing.T) {
	for _, commitFirst := range []bool{true, false} {
		r := newRig(t, 6, shortGrace)
		e := r.own()
		release := make(chan struct{})
		r.stores[2].hang = release
		src := newContent(1_200_000, 11)
		p := r.put(e, 1, src)
		if p.Missing() == 0 || p.Outstanding() == 0 || r.Counters().Lagging == 0 {
			t.Fatal("the store did not hang")
		}
		// Another put places around it, and is whole but for it.
		p2 := r.put(e, 2, src)
		if m := p2.Manifest(); m.PresentIn(0) != 5 || p2.Outstanding() != 0 {
			t.Fatalf("%d of 6, %d out", m.PresentIn(0), p2.Outstanding())
		}
		r.commit(p2)
		if commitFirst {
			r.commit(p)
			if m := r.manifestOf(1); m.Whole() {
				t.Fatal("whole?")
			}
		}
		r.mustRead(p.Manifest(), src.b)
		close(release)
		r.until("the fragment lands", func() bool { return p.Outstanding() == 0 })
		if !commitFirst {
			r.commit(p)
		}
		r.waitSettled(p)
		m := r.manifestOf(1)
		for c := range m.Geometry().Chunks {
			for f := range 6 {
				if _, ok := r.stores[m.Target(c, f).ASD].frags[m.FragKey(c, f)]; ok != m.Present(c, f) {
					t.Fatalf("fragment %d/%d: stored %v, manifest %v", c, f, ok, m.Present(c, f))
				}
			}
		}
		if n := len(m.Missing()); n != p.Missing() || n >= m.Geometry().Chunks {
			t.Fatalf("%d missing", n)
		}
		r.mustRead(m, src.b)
		if c := r.Counters(); c.Lagging != 0 || c.BuffersOut != 0 || c.FragsLate == 0 {
			t.Fatalf("%+v", c)
		}
	}
}

// All stores hang: the put fails in bounded time, its buffers come back when they return.
func TestAllStoresHang(t *testing.T) {
	r := newRig(t, 6, func(o *Options) {
		shortGrace(o)
		o.StallTimeout = 200 * time.Millisecond
	})
	e := r.own()
	release := make(chan struct{})
	for _, s := range r.stores {
		s.hang = release
	}
	src := newContent(2_000_000, 12)
	_, err := r.Put(ctx, r.spec(e, 1, src))
	r.kind(err, errs.Unreachable)
	if c := r.Counters(); c.Lagging == 0 || c.BuffersOut == 0 {
		t.Fatalf("%+v", c)
	}
	for _, s := range r.stores {
		s.set(func(s *fakeStore) { s.hang = nil })
	}
	close(release)
	r.until("everything returns", func() bool { return r.Counters().BuffersOut == 0 })
	r.until("everything is cleaned up", func() bool { return r.fragments() == 0 })
	r.until("a put is whole again", func() bool {
		p, err := r.Put(ctx, r.spec(e, 2, src))
		return err == nil && p.Missing() == 0
	})
}

func shortGrace(o *Options) { o.Grace = 20 * time.Millisecond }

// The memory for laggards runs out: puts wait, and go on when the ASDs do.
func TestSpareIsBounded(t *testing.T) {
	r := newRig(t, 6, func(o *Options) { o.ChunkBuffers = 2; o.StallTimeout = time.Hour })
	e := r.own()
	release := make(chan struct{})
	src := newContent(100_000, 13)
	for _, s := range r.stores {
		s.hang = release
	}
	c, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			if _, err := r.Put(c, r.spec(e, ids.SCONum(i+1), src)); errs.Of(err) != errs.Canceled {
				t.Error(err)
			}
		})
	}
	for range 12 { // two chunks of six: all the buffers that puts may hold
		<-r.stores[0].hungAny(r.stores)
	}
	cancel()
	wg.Wait()
	if out := r.Counters().BuffersOut; out < 6 || out > 18 {
		t.Fatalf("%d buffers are out", out)
	}
	close(release)
	r.until("everything returns", func() bool { return r.Counters().BuffersOut == 0 })
}

// hungAny waits for a put to hang on any of the stores.
func (s *fakeStore) hungAny(stores []*fakeStore) <-chan struct{} {
	got := make(chan struct{}, 1)
	for {
		for _, s := range stores {
			select {
			case <-s.hung:
				got <- struct{}{}
				return got
			default:
			}
		}
		time.Sleep(time.Millisecond)
	}
}

func TestPutCancelled(t *testing.T) {
	r := newRig(t, 6, nil)
	e := r.own()
	release := make(chan struct{})
	for _, s := range r.stores[:2] {
		s.hang = release
	}
	c, cancel := context.WithCancel(ctx)
	go func() {
		<-r.stores[0].hung
		cancel()
	}()
	_, err := r.Put(c, r.spec(e, 1, newContent(600_000, 14)))
	r.kind(err, errs.Canceled)
	close(release)
	r.until("it is cleaned up", func() bool { return r.fragments() == 0 && r.Counters().BuffersOut == 0 })
}

func TestManyPutsAtOnce(t *testing.T) {
	r := newRig(t, 6, func(o *Options) { o.ChunkBuffers = 3 })
	e := r.own()
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			src := newContent(900_000+i*4096, uint64(i))
			p, err := r.Put(ctx, r.spec(e, ids.SCONum(i+1), src))
			if err != nil {
				t.Error(err)
				return
			}
			if err := p.Commit(ctx); err != nil {
				t.Error(err)
			}
			got := make([]byte, len(src.b))
			if err := r.Get(ctx, p.Manifest(), 0, got); err != nil || string(got) != string(src.b) {
				t.Error("wrong bytes", err)
			}
		})
	}
	wg.Wait()
	if r.mem.made > r.mem.max-7 { // neither spare nor repair was needed
		t.Fatalf("%d buffers made", r.mem.made)
	}
}

func TestGetBounds(t *testing.T) {
	r := newRig(t, 6, nil)
	p := r.put(r.own(), 1, newContent(10_000, 1))
	m := p.Manifest()
	b := make([]byte, 10)
	for _, off := range []int64{-1, 9_991, 10_000, 1 << 40} {
		r.kind(r.Get(ctx, m, off, b), errs.Invalid)
	}
	if err := r.Get(ctx, m, 10_000, nil); err != nil {
		t.Fatal(err)
	}
	done, cancel := context.WithCancel(ctx)
	cancel()
	r.kind(r.Get(done, m, 0, make([]byte, 10_000)), errs.Canceled)
}
