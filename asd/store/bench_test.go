package store

import (
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
)

// BenchmarkPut writes 4 MiB fragments to a real file of 1 GiB, and deletes old ones when it is full.
func BenchmarkPut(b *testing.B) {
	for _, writers := range []int{1, 4, 16} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			dir := b.TempDir()
			d, err := dio.Create(filepath.Join(dir, "data"), 1<<30, dio.Options{})
			if err != nil {
				b.Skip(err)
			}
			defer d.Close()
			o := Options{Data: d, FS: vfs.Default, Dir: filepath.Join(dir, "index"), UUID: [16]byte{1}}
			must(b, Format(o))
			s := must2(Open(o))
			defer s.Close()
			benchPuts(b, s, writers)
			st := s.Stat()
			b.ReportMetric(float64(st.Puts)/float64(max(st.Syncs, 1)), "puts/sync")
		})
	}
}

func benchPuts(b *testing.B, s *Store, writers int) {
	const size = 4 << 20
	var next atomic.Int64
	var wg sync.WaitGroup
	b.SetBytes(size)
	b.ResetTimer()
	for range writers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			p := fput(fkey(0), payload(0, size/blockSize))
			defer freePut(p)
			for i := int(next.Add(1)); i <= b.N; i = int(next.Add(1)) {
				p.Key = fkey(i)
				err := s.Put(bg, p)
				for errs.Of(err) == errs.Full {
					infos, _ := s.List(layout.FragKey{}, 32)
					var keys []layout.FragKey
					for _, in := range infos {
						keys = append(keys, in.Key)
					}
					if err = s.Delete(bg, keys); err == nil {
						err = s.Put(bg, p)
					}
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		}()
	}
	wg.Wait()
}

func BenchmarkLocate(b *testing.B) {
	s, _ := newTestStore(b, 64<<20, nil)
	for i := range 1000 {
		must(b, put(s, i, 1))
	}
	dst := make([]layout.Extent, 0, 8)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		_, pin, _ := s.Locate(fkey(i%1000), 0, 4096, dst[:0])
		s.Unpin(pin)
	}
}

// BenchmarkMemory reports the RAM per fragment of a million.
func BenchmarkMemory(b *testing.B) {
	for range b.N {
		s := newStore(Options{Scratch: 1}, Superblock{}, nil)
		before := heapInUse()
		for i := range 1_000_000 {
			s.publish(packKey(fkey(i)), []run{{uint64(512 + i), 1}})
		}
		b.ReportMetric(float64(heapInUse()-before)/1_000_000, "B/fragment")
		s.Unpin(Pin{})
	}
}

func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
