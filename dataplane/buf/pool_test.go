package buf

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

func newPool(t testing.TB, size, reserve int64) *Pool {
	t.Helper()
	p, err := NewPool(size, reserve)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.Free() != p.Pages() {
			t.Errorf("%d pages leaked", p.Pages()-p.Free())
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// Random allocations of all sizes: pages are never given out twice, counts agree, all come back.
func TestPoolRandom(t *testing.T) {
	p := newPool(t, 8<<20, 0)
	rng := rand.New(rand.NewPCG(1, 2))
	held := map[Page]bool{}
	var vecs []Vec
	for range 20000 {
		if rng.IntN(2) == 0 && len(vecs) > 0 {
			i := rng.IntN(len(vecs))
			for _, s := range vecs[i].Segs {
				for j := range s.Pages() {
					delete(held, s.Page+Page(j))
				}
			}
			p.ReleaseVec(&vecs[i])
			vecs[i] = vecs[len(vecs)-1]
			vecs = vecs[:len(vecs)-1]
			continue
		}
		n := 1 + rng.IntN(1<<rng.IntN(10))
		var v Vec
		if !p.Alloc(&v, n) {
			if p.Free() >= n {
				t.Fatalf("refused %d pages with %d free", n, p.Free())
			}
			continue
		}
		if v.Len() != n*PageSize {
			t.Fatalf("got %d bytes, want %d pages", v.Len(), n)
		}
		for _, s := range v.Segs {
			for j := range s.Pages() {
				pg := s.Page + Page(j)
				if held[pg] || pg < zeroPages {
					t.Fatalf("page %d given out twice", pg)
				}
				held[pg] = true
				p.Bytes(pg)[0] = 1
			}
		}
		if p.Free() != p.Pages()-len(held) {
			t.Fatalf("free count %d, held %d of %d", p.Free(), len(held), p.Pages())
		}
		vecs = append(vecs, v)
	}
	for i := range vecs {
		p.ReleaseVec(&vecs[i])
	}
}

// In a fresh pool large requests come in runs of whole groups that merge into one Seg.
func TestPoolRuns(t *testing.T) {
	p := newPool(t, 16<<20, 0)
	var v Vec
	p.Alloc(&v, 256)
	if len(v.Segs) != 1 {
		t.Errorf("1 MiB of a fresh pool came in %d runs", len(v.Segs))
	}
	p.ReleaseVec(&v)
}

func TestPoolReserve(t *testing.T) {
	p := newPool(t, 1<<20, 256<<10)
	var a, b Vec
	if !p.Alloc(&a, p.Pages()-64) || p.Alloc(&b, 1) {
		t.Fatal("the reserve was given to an ordinary request")
	}
	if !p.AllocReserved(&b, 64) || p.AllocReserved(&b, 1) {
		t.Fatal("the reserve is not what AllocReserved gives out")
	}
	p.ReleaseVec(&a)
	p.ReleaseVec(&b)
}

func TestRefsAndZeros(t *testing.T) {
	p := newPool(t, 1<<20, 0)
	var v Vec
	p.Alloc(&v, 1)
	pg := v.Segs[0].Page
	p.Retain(pg)
	p.ReleaseVec(&v)
	if p.Free() == p.Pages() {
		t.Fatal("page freed with a reference left")
	}
	p.Release(pg)
	p.AddZeros(&v, 3*ZeroRun+5)
	if v.Len() != 3*ZeroRun+5 {
		t.Fatalf("AddZeros gave %d bytes", v.Len())
	}
	for _, s := range v.Segs {
		for _, c := range p.SegBytes(s) {
			if c != 0 {
				t.Fatal("the zero pages are not zero")
			}
		}
	}
	p.ReleaseVec(&v)
}

func TestPoolAllocs(t *testing.T) {
	p := newPool(t, 8<<20, 0)
	var v Vec
	v.Segs = make([]Seg, 0, 64)
	if n := testing.AllocsPerRun(1000, func() {
		p.Alloc(&v, 1)
		p.AllocReserved(&v, 8)
		p.Alloc(&v, 200)
		p.ReleaseVec(&v)
	}); n != 0 {
		t.Errorf("%v allocations per run", n)
	}
}

func BenchmarkAllocPage(b *testing.B) {
	p, _ := NewPool(512<<20, 0)
	var v Vec
	for b.Loop() {
		p.Alloc(&v, 1)
		p.ReleaseVec(&v)
	}
}

// A pool's memory is wanted in big pages, and holds what is written to it.
func TestBigPages(t *testing.T) {
	p := newPool(t, 16<<20, 0)
	var v Vec
	const size = 5 << 20
	if !p.Alloc(&v, size/PageSize) || len(v.Segs) != 1 {
		t.Fatalf("%d bytes in %d runs", v.Len(), len(v.Segs))
	}
	s := v.Segs[0]
	if _, err := os.Stat("/sys/kernel/mm/transparent_hugepage"); err != nil {
		t.Log("SKIPPED in part: this kernel has no big pages to ask for")
	} else if flags := mapFlags(t, p.Addr(s)); !strings.Contains(flags, " hg") {
		t.Errorf("flags of the mapping: %s; hg is missing", flags)
	}
	for i, b := range p.SegBytes(s) {
		if b != 0 {
			t.Fatalf("byte %d is %#x", i, b)
		}
		p.SegBytes(s)[i] = 1
	}
	for i, b := range p.Bytes(Zero) {
		if b != 0 {
			t.Fatalf("byte %d of the zero page is %#x", i, b)
		}
	}
	p.ReleaseVec(&v)
}

// mapFlags are the kernel's flags of the mapping that has addr.
func mapFlags(t *testing.T, addr uintptr) string {
	b, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	in := false
	for line := range strings.Lines(string(b)) {
		var from, to uintptr
		if k, _ := fmt.Sscanf(line, "%x-%x ", &from, &to); k == 2 {
			in = from <= addr && addr < to
		} else if in && strings.HasPrefix(line, "VmFlags:") {
			return line
		}
	}
	return ""
}

// What is mapped is whole, whatever its length, and goes back.
func TestAlignedBytes(t *testing.T) {
	for _, n := range []int{1, PageSize, bigPage - 1, bigPage, bigPage + 1, 5 << 20} {
		b, err := AlignedBytes(n)
		if err != nil || len(b) < n {
			t.Fatalf("%d bytes: %d, %v", n, len(b), err)
		}
		b[0], b[len(b)-1] = 1, 1
		if err := FreeAligned(b); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}
