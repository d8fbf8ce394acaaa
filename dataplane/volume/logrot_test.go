package volume

import (
	"bytes"
	"slices"
	"testing"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/block"
	"vstor/dataplane/dio"
	"vstor/dataplane/ids"
	"vstor/dataplane/volume/journal"
	"vstor/dataplane/volume/sco"
)

// evicted writes n blocks from address 100 on, and drops them from RAM. It returns their places.
func (r *rig) evicted(n uint64) []journal.Pos {
	r.do(block.Put, 100, n)
	var at []journal.Pos
	r.loop.Call(func() {
		r.v.ov.Evict(int(n))
		for i := range n {
			_, e := r.v.ov.Lookup(100 + ids.BlockAddr(i))
			if e.Page != 0 {
				r.t.Fatalf("block %d is still in RAM", i)
			}
			at = append(at, journal.Pos(e.Pos))
		}
	})
	return at
}

// sealedBlocks are the blocks of the only SCO, and whether each is what its checksum says.
func (r *rig) sealedBlocks() (blocks [][]byte, right []bool) {
	r.t.Helper()
	r.objects.mu.Lock()
	defer r.objects.mu.Unlock()
	if len(r.objects.list) != 1 {
		r.t.Fatalf("%d SCOs", len(r.objects.list))
	}
	b := r.objects.data[r.objects.list[0].SCO]
	h, err := sco.ParseHeader(b[:4096])
	r.must(err)
	r.must(h.ParseIndex(b[4096:h.DataStart()*4096], func(off uint16, e sco.Entry) {
		data := b[int(off)*4096:][:4096]
		blocks = append(blocks, data)
		right = append(right, uint32(xxhash.Sum64(data)) == e.Sum)
	}, func(sco.Hole) {}))
	return blocks, right
}

// Blocks that lie together in the journal are read back together.
func TestSealReadsTogether(t *testing.T) {
	r := newRig(t, 64<<20, 1<<20)
	r.evicted(40)
	r.counter.reads.Store(0)
	r.seal()
	if _, right := r.sealedBlocks(); len(right) != 40 || slices.Contains(right, false) {
		t.Errorf("blocks of the SCO: %v", right)
	}
	if n := r.counter.reads.Load(); n > 4 {
		t.Errorf("40 blocks took %d reads", n)
	}
}

// A sector of the journal that cannot be read, of a block that left RAM, is lost like a rotten one: the SCO is
// sealed without it, and reading it is an error. Others are there, and the journal goes on.
func TestSealUnreadableSector(t *testing.T) {
	r := newRig(t, 64<<20, 1<<20)
	at := r.evicted(40)
	bad := r.jrn.Offset(at[17])
	r.file.Set(dio.Rule{On: dio.Reads, Do: dio.FailIO, Chance: 1, Off: bad, Len: 4096})
	r.seal()
	blocks, right := r.sealedBlocks()
	want := make([]byte, 4096)
	for i := range blocks {
		fillBlock(want, 100+ids.BlockAddr(i), 1+byte(i))
		if right[i] != (i != 17) || right[i] && !bytes.Equal(blocks[i], want) {
			t.Errorf("block %d of the SCO is right: %v", i, right[i])
		}
	}
	if bytes.Equal(blocks[17], want) || len(blocks) != 40 || r.v.Stats.Rotten.Load() != 1 {
		t.Errorf("%d blocks, %d counted as rotten", len(blocks), r.v.Stats.Rotten.Load())
	}
	for range 40 { // the journal is a ring of 16 MiB
		r.do(block.Put, 1000, 200)
		r.seal()
	}
}

// A journal of which nothing can be read is no reason to give blocks up: they may be there when the drive is back.
func TestSealUnreadableJournal(t *testing.T) {
	r := newRig(t, 64<<20, 1<<20)
	r.evicted(40)
	r.file.Set(dio.Rule{On: dio.Reads, Do: dio.FailIO, Chance: 1})
	r.loop.Call(r.v.Seal)
	r.settle("tries", func() bool { return r.v.Stats.SealRetries.Load() > sealUnreadMax })
	r.file.Set()
	r.seal()
	for i, right := range func() []bool { _, right := r.sealedBlocks(); return right }() {
		if !right {
			t.Errorf("block %d was given up", i)
		}
	}
	if n := r.v.Stats.Rotten.Load(); n != 0 {
		t.Errorf("%d blocks counted as rotten", n)
	}
}
