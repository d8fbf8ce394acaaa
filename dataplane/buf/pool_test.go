package buf

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"vstor/dataplane/leaktest"
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

// Runs whose pages are to be joined are there at once, are wanted contiguous, and hold what is written to them.
func TestJoinPages(t *testing.T) {
	p := newPool(t, 16<<20, 0)
	var v Vec
	const size = 5 << 20
	if !p.Alloc(&v, size/PageSize) || len(v.Segs) != 1 {
		t.Fatalf("%d bytes in %d runs", v.Len(), len(v.Segs))
	}
	s := v.Segs[0]
	p.JoinPages(s)
	rss, flags := 0, ""
	addr := p.Addr(s)
	b, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	in := false
	for line := range strings.Lines(string(b)) {
		var from, to uintptr
		var n int
		if k, _ := fmt.Sscanf(line, "%x-%x ", &from, &to); k == 2 {
			in = from <= addr && addr < to
		} else if k, _ := fmt.Sscanf(line, "Rss: %d kB", &n); k == 1 && in {
			rss = n << 10
		} else if in && strings.HasPrefix(line, "VmFlags:") {
			flags = line
		}
	}
	if rss < size {
		t.Errorf("%d bytes of %d are there", rss, size)
	}
	if _, err := os.Stat("/sys/kernel/mm/transparent_hugepage"); err == nil && !strings.Contains(flags, " hg") {
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

// What is mapped is whole, whatever its length, begins where it should, and goes back.
func TestMappedBytes(t *testing.T) {
	for _, n := range []int{1, PageSize, bigPage - 1, bigPage, bigPage + 1, 5 << 20} {
		small, err := AlignedBytes(n)
		whole(t, n, PageSize, small, err)
		must(t, FreeAligned(small))
		big, err := BigBytes(n)
		whole(t, n, bigPage, big, err)
		must(t, FreeBig(big))
	}
	leaktest.GivesBack(t, func() {
		b, err := AlignedBytes(bigPage + 1)
		must(t, err)
		must(t, FreeAligned(b))
		b, err = BigBytes(bigPage + 1)
		must(t, err)
		must(t, FreeBig(b))
	})
}

func whole(t *testing.T, n, align int, b []byte, err error) {
	t.Helper()
	if err != nil || len(b) < n || len(b) >= n+PageSize {
		t.Fatalf("%d bytes: %d, %v", n, len(b), err)
	}
	var at uint64
	if fmt.Sscanf(fmt.Sprintf("%p", b), "0x%x", &at); at == 0 || at%uint64(align) != 0 {
		t.Errorf("%d bytes begin at %#x, which is no multiple of %#x", n, at, align)
	}
	b[0], b[len(b)-1] = 1, 1
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
