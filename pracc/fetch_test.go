package pracc

import (
	"testing"

	"pgregory.net/rapid"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

var pol42 = layout.Policy{K: 4, M: 2, C: 5, X: 1}

func TestFetchHealthy(t *testing.T) {
	w := newWorld(t, 6, 16<<20, nil)
	o := w.put(1, 1000, pol42, 256<<10, 1<<30)
	w.want(o, 0, 1)
	w.want(o, 999, 1)
	w.want(o, 0, 1000)
	w.want(o, 63, 2)
	if n := w.c.stats.Rebuilds.Load(); n != 0 {
		t.Fatalf("%d rebuilds of a healthy object", n)
	}
	if n := w.auth.count(); n != 1 {
		t.Fatalf("the manifest was asked for %d times", n)
	}
	if b := w.c.stats.Blocks.Load(); b != 1004 {
		t.Fatalf("%d blocks counted", b)
	}
}

// Any range of any object, whatever its shape, and whatever at most m losses per chunk.
func TestFetchProperty(t *testing.T) {
	w := newWorld(t, 9, 32<<20, func(o *Options) { o.Ranges, o.Rebuilds, o.ScratchBytes = 5, 3, 1<<20 })
	sco := ids.SCONum(0)
	rapid.Check(t, func(r *rapid.T) {
		sco++
		k := rapid.IntRange(1, 6).Draw(r, "k")
		m := rapid.IntRange(0, 3).Draw(r, "m")
		pol := layout.Policy{K: uint8(k), M: uint8(m), C: uint8(k), X: 1}
		blocks := rapid.IntRange(1, 600).Draw(r, "blocks")
		maxFrag := uint32(rapid.IntRange(1, 80).Draw(r, "maxFrag")) * 4096
		cut := rapid.IntRange(1, 40).Draw(r, "cut") * 4096
		o := w.put(sco, blocks, pol, maxFrag, cut)
		n := pol.N()
		modes := make([]string, n)
		for range rapid.IntRange(0, m).Draw(r, "losses") {
			f := rapid.IntRange(0, n-1).Draw(r, "fragment")
			modes[f] = rapid.SampledFrom([]string{"absent", "eio", "rot", "unwritten"}).Draw(r, "mode")
		}
		chunks := o.m.Geometry().Chunks
		for f, mode := range modes {
			for chunk := range chunks {
				w.hurt(o, chunk, f, mode)
			}
		}
		type span struct{ off, n int }
		var spans []span
		for range rapid.IntRange(1, 6).Draw(r, "fetches") {
			off := rapid.IntRange(0, blocks-1).Draw(r, "off")
			spans = append(spans, span{off, rapid.IntRange(1, blocks-off).Draw(r, "len")})
		}
		scatter := rapid.Bool().Draw(r, "scatter")
		var fls []*flight
		w.loop.Call(func() {
			for _, s := range spans {
				fls = append(fls, w.start(o, s.off, s.n, scatter))
			}
		})
		for _, fl := range fls {
			<-fl.done
			if fl.Err != errs.OK || string(fl.got) != string(o.data[fl.Off*4096:(fl.Off+fl.Blocks)*4096]) {
				r.Fatalf("blocks %d+%d: %v", fl.Off, fl.Blocks, fl.Err)
			}
		}
		w.loop.Call(func() {
			for _, d := range w.drives {
				d.frags = map[layout.FragKey][]layout.Extent{}
				d.file.mem, d.file.eio = nil, nil
			}
			w.c.Forget(o.m.Namespace, o.m.SCO)
		})
	})
}

// hurt does something to a fragment; not while it is read.
func (w *world) hurt(o *object, chunk, frag int, mode string) {
	d, key := w.driveOf(o, chunk, frag), o.m.FragKey(chunk, frag)
	switch mode {
	case "absent":
		delete(d.frags, key)
	case "eio":
		if d.file.eio == nil {
			d.file.eio = map[int64]bool{}
		}
		for _, e := range d.frags[key] {
			for b := int64(0); b < int64(e.Len); b += 4096 {
				d.file.eio[(e.Off+b)/4096] = true
			}
		}
	case "rot":
		for b := range int(o.m.Geometry().FragLen / 4096) {
			w.flip(o, chunk, frag, b)
		}
	case "short":
		d.frags[key] = []layout.Extent{{Off: 4096, Len: 4096}}
	case "unwritten":
		delete(d.frags, key)
		w.amend(o, func(m *layout.Manifest) { m.Frag(chunk, frag).State = layout.FragMissing })
	case "gone":
		d.gone = true
	case "unreachable":
		d.answer = errs.Unreachable
	case "":
	default:
		panic(mode)
	}
}

// Every set of at most m fragments, each lost in every way; and every set of m+1.
func TestEveryPattern(t *testing.T) {
	modes := []string{"absent", "eio", "rot", "unwritten", "gone", "unreachable", "short"}
	wantKind := map[string]errs.Kind{"absent": errs.IO, "eio": errs.IO, "rot": errs.Corrupt,
		"unwritten": errs.IO, "gone": errs.Unreachable, "unreachable": errs.Unreachable, "short": errs.IO}
	for i, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t, 6, 16<<20, nil)
			sco := ids.SCONum(0)
			for set := range 1 << 6 {
				lost := 0
				for f := range 6 {
					lost += set >> f & 1
				}
				if lost > 3 || testing.Short() && (set+i)%3 != 0 {
					continue
				}
				sco++
				o := w.put(sco, 70, pol42, 1<<20, 12<<10)
				for f := range 6 {
					if set>>f&1 == 1 {
						w.hurt(o, 0, f, mode)
					}
				}
				fl := w.fetch(o, 0, 70)
				if lost <= 2 || set&15 == 0 {
					w.same(fl, o)
				} else if fl.Err != wantKind[mode] {
					t.Fatalf("set %b: %v, want %v", set, fl.Err, wantKind[mode])
				}
				for _, d := range w.drives {
					d.gone, d.answer = false, errs.OK
				}
			}
		})
	}
}

// With more than m fragments lost the answer comes after a bounded number of questions to the drives.
func TestTooMuchLost(t *testing.T) {
	w := newWorld(t, 6, 16<<20, nil)
	o := w.put(1, 64, pol42, 1<<20, 1<<20)
	for f := range 3 {
		w.hurt(o, 0, f, "absent")
	}
	if fl := w.fetch(o, 0, 1); fl.Err != errs.IO {
		t.Fatal(fl.Err)
	}
	asked := 0
	for _, d := range w.drives {
		asked += d.asked
	}
	if asked > 6 {
		t.Fatalf("drives were asked %d times for one block", asked)
	}
	if n := w.c.stats.Refreshes.Load(); n != 1 {
		t.Fatalf("%d refreshes", n)
	}
	w.want(o, 48, 16) // fragment 3 is whole
}

func TestInvalidRange(t *testing.T) {
	w := newWorld(t, 6, 16<<20, nil)
	o := w.put(1, 10, pol42, 1<<20, 1<<20)
	for len(o.sums) < 20 {
		o.sums = append(o.sums, 0)
	}
	if fl := w.fetch(o, 9, 2); fl.Err != errs.Invalid {
		t.Fatal(fl.Err)
	}
}

func TestUnsupportedForms(t *testing.T) {
	w := newWorld(t, 6, 16<<20, func(o *Options) { o.MaxFragments = 5 })
	if fl := w.fetch(w.put(1, 10, pol42, 1<<20, 1<<20), 0, 1); fl.Err != errs.Unsupported {
		t.Fatal(fl.Err)
	}
	o := w.put(2, 10, layout.Policy{K: 2, M: 2, C: 3, X: 1}, 1<<20, 1<<20)
	w.amend(o, func(m *layout.Manifest) { m.Compression = 3 })
	if fl := w.fetch(o, 0, 1); fl.Err != errs.Unsupported && fl.Err != errs.Corrupt {
		t.Fatal(fl.Err)
	}
}

func TestCounters(t *testing.T) {
	w := newWorld(t, 6, 16<<20, nil)
	o := w.put(1, 64, pol42, 1<<20, 1<<20)
	w.flip(o, 0, 1, 3)
	w.want(o, 16, 16)
	w.want(o, 16, 16)
	seen := 0
	w.c.EachASD(func(id ids.ASDID, s *ASDStats) {
		seen++
		want := uint64(0)
		if id == 1 {
			want = 2
		}
		if s.Corrupt.Load() != want {
			t.Errorf("asd %d: %d corrupt blocks", id, s.Corrupt.Load())
		}
	})
	if seen != 5 || w.c.stats.Corrupt.Load() != 2 || w.c.stats.Rebuilds.Load() != 2 {
		t.Fatalf("seen %d corrupt %d rebuilds %d", seen, w.c.stats.Corrupt.Load(), w.c.stats.Rebuilds.Load())
	}
	w.loop.Call(func() {
		if len(w.rots) != 1 || w.rots[0] != (rotReport{o.m.FragKey(0, 1), 1, errs.Corrupt}) {
			t.Errorf("reports: %v", w.rots)
		}
	})
}
