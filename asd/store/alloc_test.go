package store

import (
	"encoding/binary"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/dataplane/invariants"
)

// deafDrive takes what is written behind the superblocks without keeping it, and allocates nothing.
type deafDrive struct{ *testDrive }

func (d deafDrive) WriteAt(p []byte, off int64) error {
	if off < dataStart {
		return d.testDrive.WriteAt(p, off)
	}
	return nil
}

func (d deafDrive) Sync() error { return nil }

// allocsPer is how many allocations one of n calls of f makes, with a fraction: over all goroutines.
func allocsPer(n int, f func(i int)) float64 {
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range n {
		f(i)
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / float64(n)
}

// A put allocates nothing but what Pebble's commit and the growth of the index in RAM take; one at a time,
// where nothing is shared, and many at once.
func TestPutAlloc(t *testing.T) {
	if raceEnabled || invariants.Enabled {
		t.Skip("SKIPPED: the detector and the checks allocate themselves")
	}
	dir := t.TempDir()
	o := testOptions(newDrive(256<<20), vfs.Default)
	o.Data, o.Dir, o.memTable = deafDrive{newDrive(256 << 20)}, filepath.Join(dir, "index"), 1<<20
	must(t, Format(o))
	s := mustOpen(t, o)
	p := fput(fkey(0), make([]byte, 4*blockSize))
	defer freePut(p)
	next := 0
	one := func(int) {
		p.Key = fkey(next)
		next++
		must(t, s.Put(bg, p))
	}
	allocsPer(2000, one) // the maps grow
	const reps = 1000
	ours := allocsPer(reps, one)
	pebbles := pebbleAllocs(t, filepath.Join(dir, "pebble"), reps)
	t.Logf("%.3f allocations per put, of which Pebble's commit makes %.3f", ours, pebbles)
	if ours > pebbles+0.5 { // the maps go on growing; what each put makes would count 1
		t.Errorf("%.3f allocations per put; Pebble's commit makes %.3f of them", ours, pebbles)
	}
	if n := manyPuts(t, s, &next, reps); n > pebbles+0.5 {
		t.Errorf("%.3f allocations per put of several at once; Pebble's commit makes %.3f at most", n, pebbles)
	}
}

// manyPuts is the same from several goroutines.
func manyPuts(t *testing.T, s *Store, next *int, reps int) float64 {
	const writers = 8
	first := *next
	*next += reps
	return allocsPer(1, func(int) {
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				p := fput(fkey(0), make([]byte, 4*blockSize))
				defer freePut(p)
				for i := first + w; i < first+reps; i += writers {
					p.Key = fkey(i)
					if err := s.Put(bg, p); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}) / float64(reps)
}

// pebbleAllocs is what a commit of a batch like that of one put takes by itself.
func pebbleAllocs(t *testing.T, dir string, n int) float64 {
	o := Options{FS: vfs.Default, Dir: dir}
	o = o.withDefaults()
	ix, err := openIndex(&o, true)
	must(t, err)
	defer ix.close()
	b := ix.db.NewBatch()
	defer b.Close()
	key, value := make([]byte, 21), make([]byte, 44)
	key[0] = keyFrag
	one := func(i int) {
		b.Reset()
		binary.BigEndian.PutUint64(key[1:], uint64(i))
		b.Set(key, value, nil)
		b.Set(key[:1], value[:8], nil)
		must(t, b.Commit(pebble.Sync))
	}
	allocsPer(200, one)
	return allocsPer(n, one)
}
