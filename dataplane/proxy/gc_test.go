package proxy

import (
	"errors"
	"strings"
	"testing"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/meta"
)

// rewind sets a cell to what an old copy of the metadata store has; 0 takes it away.
func (r *rig) rewind(kind byte, value uint64) {
	r.t.Helper()
	t := new(meta.Txn)
	if value == 0 {
		t.Delete(nsKey(kind, ns))
	} else {
		t.Put(nsKey(kind, ns), encodeCell(kind, value))
	}
	if err := r.meta.Apply(ctx, t); err != nil {
		r.t.Fatal(err)
	}
}

// A put that nobody committed is garbage if this store gave its numbers out. If it did not, the store lost
// records, and its silence about the put says nothing.
func TestJudgeSparesWhatWasNeverGivenOut(t *testing.T) {
	r := newRig(t, 6, nil)
	e := r.own()
	r.put(e, 5, newContent(5000, 1)) // never committed
	r.crash()
	key := func(sco ids.SCONum, put ids.PutID) []layout.FragKey {
		return []layout.FragKey{{Namespace: ns, SCO: sco, Put: put}}
	}
	tests := []struct {
		name       string
		puts, scos uint64 // as the store says
		sco        ids.SCONum
		put        ids.PutID
		kind       errs.Kind
	}{
		{"below both", 100, 50, 49, 99, errs.OK},
		{"the first put not given out", 100, 50, 49, 100, errs.Corrupt},
		{"the first SCO not given out", 100, 50, 50, 99, errs.Corrupt},
		{"far beyond", 100, 50, 1 << 30, 1 << 30, errs.Corrupt},
		{"nothing was given out", 0, 0, 1, 1, errs.Corrupt},
		{"no put was given out", 0, 50, 1, 1, errs.Corrupt},
		{"no SCO was given out", 100, 0, 1, 1, errs.Corrupt},
		{"all numbers were", 1 << 32, 1 << 32, 1<<32 - 1, 1<<32 - 1, errs.OK},
	}
	for _, test := range tests {
		r.rewind(keyPuts, test.puts)
		r.rewind(keySCOs, test.scos)
		// As read before others reserved: the store is asked again before anything is said.
		for _, old := range []uint64{0, min(test.puts, test.scos) / 2} {
			c := collection{px: r.Proxy, ns: ns, epoch: e, condemned: map[ids.PutID]bool{}, puts: old, scos: old}
			dead, err := c.judge(ctx, &ASD{ID: 3}, key(test.sco, test.put))
			if errs.Of(err) != test.kind || (len(dead) == 1) != (err == nil) || c.garbage.Condemned != len(dead) {
				t.Errorf("%s: %v dead, %v", test.name, dead, err)
			}
			if err != nil && !strings.Contains(err.Error(), "fsck --manifests --repair") {
				t.Errorf("%s: %v names no remedy", test.name, err)
			}
		}
	}
}

// With an old copy of the metadata store a collection deletes nothing at all, not even of the puts below what
// that copy gave out: their manifests may be among what was lost.
func TestGarbageOfAnOldStore(t *testing.T) {
	r := newRig(t, 6, nil)
	e := r.own()
	src := newContent(100_000, 2)
	for sco := range ids.SCONum(3) {
		r.commit(r.put(e, sco+1, src))
	}
	r.crash()
	for _, kind := range []byte{keySCOs, keyPuts} {
		was, _, err := r.cell(ctx, kind, ns)
		if err != nil {
			t.Fatal(err)
		}
		for _, sco := range []ids.SCONum{1, 3} {
			if err := r.DropManifest(ctx, ns, sco); err != nil {
				t.Fatal(err)
			}
		}
		all := r.fragments()
		r.rewind(kind, 1)
		if g, err := r.CollectGarbage(ctx, ns, e, nil); errs.Of(err) != errs.Corrupt || g != (Garbage{}) ||
			r.fragments() != all {
			t.Fatalf("%q: %+v %v, %d fragments of %d left", kind, g, err, r.fragments(), all)
		}
		r.rewind(kind, 3)
		if g, err := r.CollectGarbage(ctx, ns, e, nil); kind == keySCOs &&
			(errs.Of(err) != errs.Corrupt || g != (Garbage{}) || r.fragments() != all) {
			t.Fatalf("%q, below what was given out: %+v %v, %d fragments of %d left", kind, g, err, r.fragments(), all)
		}
		r.rewind(kind, was)
	}
	r.mustRead(r.manifestOf(2), src.b)
}

// A SCO that the map names and that has no manifest is no garbage: the manifest is lost. What became of the vDisk
// since is told first.
func TestGarbageSparesWhatTheMapNames(t *testing.T) {
	r := newRig(t, 6, nil)
	e := r.own()
	src := newContent(100_000, 3)
	for sco := range ids.SCONum(2) {
		r.commit(r.put(e, sco+1, src))
		if err := r.DropManifest(ctx, ns, sco+1); err != nil {
			t.Fatal(err)
		}
	}
	r.crash()
	all, named := r.fragments(), func(sco ids.SCONum) bool { return sco == 1 }
	g, err := r.CollectGarbage(ctx, ns, e, named)
	if err != nil || !g.Lost || g.Deleted != all/2 || r.fragments() != all/2 {
		t.Fatalf("%+v %v, %d fragments of %d left", g, err, r.fragments(), all)
	}
	meanwhile := func(what func()) {
		t.Helper()
		g, err := r.CollectGarbage(ctx, ns, e, func(sco ids.SCONum) bool { what(); return named(sco) })
		if !errors.Is(err, ErrFenced) || g != (Garbage{}) {
			t.Fatalf("%+v %v", g, err)
		}
	}
	var next ids.Epoch
	meanwhile(func() { next = r.own() })
	e = next
	meanwhile(func() {
		if err := r.DeleteNamespace(ctx, ns); err != nil {
			t.Fatal(err)
		}
	})
}

func TestTakeOwnershipBeyond(t *testing.T) {
	r := newRig(t, 6, nil)
	e := r.own()
	far, err := r.TakeOwnershipBeyond(ctx, ns, 100)
	if err != nil || far != e+101 || r.own() != far+1 {
		t.Fatal(far, err)
	}
}
