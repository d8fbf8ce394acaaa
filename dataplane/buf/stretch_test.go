package buf

import (
	"math/rand/v2"
	"testing"
)

// What was used, and the next, is lent once each while it is free; the first stretch has the zero pages.
func TestLend(t *testing.T) {
	p := newPool(t, 32<<20, 0)
	told := 0
	p.OnLendable(func() { told++ })
	told = 0
	var first, second Vec
	p.Alloc(&first, 3*stretchPages)
	if told == 0 {
		t.Error("nobody is told of growth")
	}
	p.Alloc(&second, stretchPages)
	lent := map[int]bool{}
	all := func() {
		for {
			s, ok := p.Lend()
			if !ok {
				return
			}
			if lent[s.index] {
				t.Errorf("stretch %d is lent again", s.index)
			}
			lent[s.index] = true
			if _, ok := p.Lend(); ok {
				t.Error("two are lent")
			}
			s.Join()
			p.TakeBack(s)
		}
	}
	all()
	for i := range 16 { // the allocations begin behind the zero pages, so they reach into stretch 4
		if want := 4 < i && i < 5+stretchesAhead; lent[i] != want {
			t.Errorf("stretch %d was lent: %v", i, lent[i])
		}
	}
	told = 0
	p.ReleaseVec(&first)
	if told == 0 {
		t.Error("nobody is told of a stretch that is free")
	}
	p.ReleaseVec(&second)
	all()
	told = 0
	p.Alloc(&first, 3*stretchPages)
	p.ReleaseVec(&first)
	if told != 0 {
		t.Errorf("somebody is told %d times of nothing", told)
	}
	for i := range 16 {
		if want := 0 < i && i < 5+stretchesAhead; lent[i] != want {
			t.Errorf("at the end stretch %d was lent: %v", i, lent[i])
		}
	}
}

// Pages that are free can be had, whatever is lent.
func TestAllocBesideLent(t *testing.T) {
	p := newPool(t, 16<<20, 4<<20)
	var v, w, x Vec
	p.Alloc(&v, 1)
	p.ReleaseVec(&v)
	s, ok := p.Lend()
	if !ok || p.Free() != p.Pages() {
		t.Fatalf("%d pages of %d are free", p.Free(), p.Pages())
	}
	if !p.Alloc(&v, p.Free()-p.Reserve()) || p.Alloc(&x, 1) || !p.AllocReserved(&w, p.Free()) || p.AllocReserved(&x, 1) {
		t.Errorf("%d pages are free", p.Free())
	}
	if n := (v.Len() + w.Len()) / PageSize; n != p.Pages() {
		t.Errorf("%d pages of %d were given out", n, p.Pages())
	}
	s.Join()
	p.TakeBack(s)
	if p.Free() != 0 || p.AllocReserved(&x, 1) {
		t.Errorf("%d pages too many", p.Free()+1)
	}
	p.ReleaseVec(&v)
	p.ReleaseVec(&w)
}

// Whatever is allocated and released meanwhile, a page of a stretch that is lent is nobody's, and what pages hold
// stays.
func TestLendRandom(t *testing.T) {
	p := newPool(t, 32<<20, 0)
	rng := rand.New(rand.NewPCG(5, 6))
	var vecs []Vec
	var s Stretch
	lent, lends := false, 0
	for i := range 20000 {
		switch k := rng.IntN(8); {
		case k == 0 && lent:
			s.Join()
			p.TakeBack(s)
			lent = false
		case k == 0:
			s, lent = p.Lend()
			if lent {
				lends++
			}
		case k < 4 && len(vecs) > 0:
			at := rng.IntN(len(vecs))
			want := p.SegBytes(vecs[at].Segs[0])[0]
			for _, seg := range vecs[at].Segs {
				for j := 0; j < int(seg.Len); j += PageSize {
					if got := p.SegBytes(seg)[j]; got != want {
						t.Fatalf("a page holds %d, not %d", got, want)
					}
				}
			}
			p.ReleaseVec(&vecs[at])
			vecs[at] = vecs[len(vecs)-1]
			vecs = vecs[:len(vecs)-1]
		default:
			var v Vec
			n := 1 + rng.IntN(1<<rng.IntN(11))
			if ok := p.Alloc(&v, n); ok != (p.Free()+v.Len()/PageSize >= n) {
				t.Fatalf("%d pages asked of %d free: %v", n, p.Free(), ok)
			} else if !ok {
				continue
			}
			for _, seg := range v.Segs {
				first, last := int(seg.Page)/stretchPages, (int(seg.Page)+seg.Pages()-1)/stretchPages
				if lent && first <= s.index && s.index <= last {
					t.Fatalf("a page of stretch %d, which is lent, is given out", s.index)
				}
				for j := 0; j < int(seg.Len); j += PageSize {
					p.SegBytes(seg)[j] = byte(i)
				}
			}
			vecs = append(vecs, v)
		}
	}
	if lent {
		p.TakeBack(s)
	}
	for i := range vecs {
		p.ReleaseVec(&vecs[i])
	}
	if lends < 8 {
		t.Errorf("%d stretches were lent: this tests little", lends)
	}
}
