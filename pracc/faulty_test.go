package pracc

import (
	"testing"

	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
)

// Two of six drives fail, flip bits, read the wrong place and are late, at random: every byte is right.
func TestFaultyDrives(t *testing.T) {
	w := newWorld(t, 6, 32<<20, nil)
	o := w.put(1, 1024, pol42, 256<<10, 64<<10)
	var faulty []*dio.Faulty
	for i, d := range w.drives {
		mem := dio.NewMem(int64(len(d.file.mem)))
		if err := mem.WriteAt(d.file.mem, 0); err != nil {
			t.Fatal(err)
		}
		d.over = mem
		if i == 1 || i == 4 {
			f := dio.NewFaulty(mem, uint64(i),
				dio.Rule{On: dio.Reads, Do: dio.FailIO, Chance: 0.2},
				dio.Rule{On: dio.Reads, Do: dio.FlipBit, Chance: 0.3},
				dio.Rule{On: dio.Reads, Do: dio.Misdirect, Chance: 0.3})
			d.over = f
			faulty = append(faulty, f)
		}
		t.Cleanup(func() { d.over.Close() })
	}
	rounds := 30
	if testing.Short() {
		rounds = 10
	}
	for range rounds {
		var fls []*flight
		w.loop.Call(func() {
			for range 8 {
				off := w.rng.IntN(1000)
				fls = append(fls, w.start(o, off, 1+w.rng.IntN(1024-off), true))
				if w.pool.Free() < 3000 {
					break
				}
			}
		})
		for _, fl := range fls {
			<-fl.done
			w.same(fl, o)
		}
	}
	for _, f := range faulty {
		if f.Fired(dio.FailIO) == 0 || f.Fired(dio.FlipBit) == 0 || f.Fired(dio.Misdirect) == 0 {
			t.Error("a fault never happened: the test shows nothing")
		}
	}
	// Drives that are closed behind its back answer with errors, not with bytes.
	for _, d := range w.drives {
		d.over.Close()
	}
	if fl := w.fetch(o, 0, 8); fl.Err != errs.IO {
		t.Fatal(fl.Err)
	}
}

func TestOptions(t *testing.T) {
	w := newWorld(t, 1, 1<<20, nil)
	for i, change := range []func(*Options){
		func(o *Options) { o.Drives, o.Remotes = nil, nil },
		func(o *Options) { o.Manifests = nil },
		func(o *Options) { o.CacheBytes = 1 },
		func(o *Options) { o.ScratchBytes = -1 },
		func(o *Options) { o.Ranges = -1 },
		func(o *Options) { o.MaxFragments = 65 },
		func(o *Options) { o.LookupTimeout = -1 },
	} {
		o := w.c.opt
		change(&o)
		if _, err := New(w.loop, o); errs.Of(err) != errs.Invalid {
			t.Errorf("change %d: %v", i, err)
		}
	}
}
