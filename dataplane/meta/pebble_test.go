package meta_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/dataplane/errs"
	"vstor/dataplane/meta"
	"vstor/dataplane/meta/metatest"
)

var ctx = context.Background()

func open(t testing.TB, o meta.PebbleOptions) *meta.Pebble {
	t.Helper()
	o.Log = t.Logf
	s, err := meta.OpenPebble(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func conform(t *testing.T, opts func(t testing.TB) meta.PebbleOptions) {
	metatest.Run(t, func(t testing.TB) (meta.Store, func() meta.Store) {
		o := opts(t)
		s := open(t, o)
		t.Cleanup(func() { s.Close() })
		return s, func() meta.Store {
			s.Close()
			s = open(t, o)
			return s
		}
	})
}

func TestPebbleInMemory(t *testing.T) {
	conform(t, func(testing.TB) meta.PebbleOptions { return meta.PebbleOptions{Dir: "meta", FS: vfs.NewMem()} })
}

func TestPebbleOnDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("syncs a real disk")
	}
	cache := pebble.NewCache(1 << 20)
	defer cache.Unref()
	conform(t, func(t testing.TB) meta.PebbleOptions {
		return meta.PebbleOptions{Dir: filepath.Join(t.TempDir(), "meta"), Cache: cache}
	})
}

// After power loss at any moment, all that was acknowledged is there, and all that was read before.
func TestPebblePowerLoss(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := open(t, meta.PebbleOptions{Dir: "meta", FS: fs})
	for i := range 40 {
		var mu sync.Mutex
		known := map[int]bool{}
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				k := i*4 + w
				if err := s.Apply(ctx, new(meta.Txn).Put(fmt.Appendf(nil, "%d", k), nil)); err != nil {
					t.Error(err)
				}
				mu.Lock()
				known[k] = true
				mu.Unlock()
			})
			wg.Go(func() {
				k := i*4 + w
				if _, _, err := s.Get(ctx, fmt.Appendf(nil, "%d", k)); err == nil {
					mu.Lock()
					known[k] = true
					mu.Unlock()
				}
			})
		}
		mu.Lock()
		want := make([]int, 0, 4)
		for k := range known {
			want = append(want, k)
		}
		after := fs.CrashClone(vfs.CrashCloneCfg{})
		mu.Unlock()
		wg.Wait()
		crashed := open(t, meta.PebbleOptions{Dir: "meta", FS: after})
		for _, k := range want {
			if _, _, err := crashed.Get(ctx, fmt.Appendf(nil, "%d", k)); err != nil {
				t.Fatalf("%d was known before the crash: %v", k, err)
			}
		}
		crashed.Close()
	}
	s.Close()
}

func TestPebbleRefusesNewerAndForeign(t *testing.T) {
	for name, c := range map[string]struct {
		key, value []byte
		want       errs.Kind
	}{
		"newer":   {[]byte("\x00format"), binary.LittleEndian.AppendUint32([]byte("VMET"), 2), errs.Version},
		"garbage": {[]byte("\x00format"), []byte("what?"), errs.Corrupt},
		"foreign": {[]byte("hello"), []byte("world"), errs.Corrupt},
	} {
		fs := vfs.NewMem()
		db, err := pebble.Open("meta", &pebble.Options{FS: fs})
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Set(c.key, c.value, pebble.Sync); err != nil {
			t.Fatal(err)
		}
		db.Close()
		if _, err := meta.OpenPebble(meta.PebbleOptions{Dir: "meta", FS: fs}); errs.Of(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPebbleOpenTwice(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "meta")
	s := open(t, meta.PebbleOptions{Dir: dir})
	if _, err := meta.OpenPebble(meta.PebbleOptions{Dir: dir}); errs.Of(err) != errs.Busy {
		t.Fatal(err)
	}
	if err := s.Apply(ctx, new(meta.Txn).Put([]byte("a"), []byte("b"))); err != nil {
		t.Fatal(err)
	}
	s.Close()
	r := open(t, meta.PebbleOptions{Dir: dir, ReadOnly: true})
	defer r.Close()
	if v, _, err := r.Get(ctx, []byte("a")); err != nil || string(v) != "b" {
		t.Fatal(err)
	}
	if err := r.Apply(ctx, new(meta.Txn).Put([]byte("a"), nil)); errs.Of(err) != errs.Refused {
		t.Fatal(err)
	}
	if _, err := meta.OpenPebble(meta.PebbleOptions{Dir: dir + "-no", ReadOnly: true}); errs.Of(err) != errs.Absent {
		t.Fatal(err)
	}
	if _, err := meta.OpenPebble(meta.PebbleOptions{}); errs.Of(err) != errs.Invalid {
		t.Fatal(err)
	}
}

func BenchmarkPebbleApply(b *testing.B) {
	s := open(b, meta.PebbleOptions{Dir: filepath.Join(b.TempDir(), "meta")})
	defer s.Close()
	value := make([]byte, 400)
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if err := s.Apply(ctx, new(meta.Txn).Put(fmt.Appendf(nil, "%p%d", pb, i), value)); err != nil {
				b.Error(err)
			}
		}
	})
}
