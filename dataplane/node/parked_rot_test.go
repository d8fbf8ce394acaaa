package node

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/errs"
	"vstor/dataplane/volume/journal"
)

// A block of the journal that is rotten, of a vDisk that does not open, cannot be moved as it is and cannot be
// sealed. It stops nobody: writes of many times the journal's size pass. When its vDisk opens, in this life or
// the next, the block is an error until it is written again, and all others are what they were.
func TestParkedRot(t *testing.T) {
	v, w := twoDisks(t)
	list, _ := v.n.proxy.Manifests(context.Background(), v.d.ID, 0, 100)
	first := int(list[0].Target(0, 0).ASD)
	id, opts := v.d.ID, v.n.journalOptions("/d/router/journal-0")
	gone := func(h *memHost, yes bool) {
		for i := first; i < first+3; i++ {
			h.hidden[v.n.drivePath(i%6)+"/data"] = yes
		}
	}
	rotten := int64(-1)
	reborn(t, v, w, func(h *memHost) {
		gone(h, true)
		j, err := journal.Open(h.files["/d/router/journal-0"], opts)
		if err != nil {
			t.Fatal(err)
		}
		last := map[int64]int64{} // by block: where it lies
		if err := j.Replay(func(e journal.ReplayEntry) error {
			for b := range int64(e.Blocks) {
				delete(last, int64(e.Addr)+b)
				if e.Vol == id && e.Kind == journal.Write {
					last[int64(e.Addr)+b] = (int64(e.Pos) + b) * 4096
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		for addr, off := range last {
			rotten = addr
			flipAt(t, h, rotPlace{path: "/d/router/journal-0", lo: off, hi: off + 4096}, rand.New(rand.NewPCG(1, 1)))
			break
		}
	})
	if v.d != nil || w.d == nil || rotten < 0 || v.n.corruption()["journal"] != 1 {
		t.Fatalf("v opens: %v, w: %v, block %d is rotten, found: %v", v.d != nil, w.d != nil, rotten, v.n.corruption())
	}
	overwrite(t, w, 6*v.config().Journal)
	w.check()
	reborn(t, v, w, func(h *memHost) { gone(h, false) })
	if v.d == nil {
		t.Fatal("v does not open with all ASDs back")
	}
	read := &op{req: block.Request{Op: block.Read, Off: rotten * 4096, Len: 4096}, data: make([]byte, 4096)}
	v.submit(read)
	<-read.done
	if read.req.Err != errs.Corrupt && read.req.Err != errs.IO {
		t.Fatalf("the rotten block reads: %v", read.req.Err)
	}
	again := &op{req: block.Request{Op: block.Write, Off: rotten * 4096, Len: 4096}, data: make([]byte, 4096)}
	fill(again.data, v.rng)
	v.submit(again)
	again.wait()
	v.note([]*op{again})
	v.check()
	w.check()
	if err := v.n.Close(); err != nil {
		t.Fatal(err)
	}
}

// overwrite writes size bytes over what w has.
func overwrite(t *testing.T, w *model, size int64) {
	t.Helper()
	for written := int64(0); written < size; written += 256 << 10 {
		o := &op{req: block.Request{Op: block.Write, Off: written % w.size, Len: 256 << 10}, data: make([]byte, 256<<10)}
		fill(o.data, w.rng)
		data := bytes.Clone(o.data)
		w.submit(o)
		select {
		case <-o.done:
		case <-time.After(time.Minute):
			t.Fatalf("after %d KiB a write hangs", written>>10)
		}
		if o.req.Err != errs.OK {
			t.Fatalf("after %d KiB: %v", written>>10, o.req.Err)
		}
		copy(w.flat[o.req.Off:], data)
	}
}
