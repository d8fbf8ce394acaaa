package node

import (
	"context"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/dataplane/meta"
)

// The copy of the list of vDisks is made by several at a time: each time it is whole, and the last one is the newest.
func TestRegistryKeptByMany(t *testing.T) {
	fs := vfs.NewMem()
	if err := fs.MkdirAll("d", 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := meta.OpenPebble(meta.PebbleOptions{Dir: "d/meta", FS: fs, Ballast: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	g := registry{s, fs, "d", new(sync.Mutex)}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				if err := g.keep(context.Background()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}
