package edge

import (
	"testing"

	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/ring"
)

// instant is a driver that has all blocks in RAM and takes all changes, at the end of the pass as a journal would. What
// is left is what the Edge itself costs.
type instant struct {
	fakeDriver
	page  buf.Page
	hook  ring.Hook
	taken []*block.Mutation
	told  []*block.Mutation // its backing array serves again
}

func (d *instant) Resolve(addr ids.BlockAddr, n int, r *block.Resolution, _ block.Loaded) bool {
	for i := range n {
		r.Add(block.Piece{Kind: block.InRAM, Page: d.page, SCO: 1, Off: uint16(int(addr) + i)}, 0)
	}
	return true
}

func (d *instant) Mutate(m *block.Mutation) {
	d.loop.Pool().ReleaseVec(&m.Data)
	d.taken = append(d.taken, m)
	d.loop.AtPassEnd(&d.hook)
}

func (d *instant) tell() {
	d.taken, d.told = d.told[:0], d.taken
	for _, m := range d.told {
		m.Done.MutationDone(m) // which brings others
	}
}

// lane keeps one request under way until the benchmark has had enough. The loop owns it.
type lane struct {
	disk *Disk
	pool *buf.Pool
	op   block.Op
	left *int
	req  block.Request
	at   int64
	done chan errs.Kind
}

const laneArea = 1 << 20 // bytes

func (l *lane) next() {
	l.at = (l.at + 37*ids.BlockSize) % laneArea
	l.req = block.Request{Op: l.op, Off: l.at, Len: ids.BlockSize, Done: l, Data: l.req.Data}
	if l.op == block.Write && !l.pool.Alloc(&l.req.Data, 1) {
		l.done <- errs.Full
		return
	}
	l.disk.Submit(&l.req)
}

func (l *lane) Completed(r *block.Request) {
	l.pool.ReleaseVec(&r.Data)
	if *l.left--; *l.left <= 0 || r.Err != errs.OK {
		l.done <- r.Err
		return
	}
	l.next()
}

// BenchmarkDisk is what the Edge costs a request of 4 KiB, 32 at a time: reads of what RAM has, and writes, with their
// checksums, that are answered at once.
func BenchmarkDisk(b *testing.B) {
	for name, op := range map[string]block.Op{"read": block.Read, "write": block.Write} {
		b.Run(name, func(b *testing.B) { benchDisk(b, op) })
	}
}

func benchDisk(b *testing.B, op block.Op) {
	pool, err := buf.NewPool(8<<20, 1<<20)
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	loop, err := ring.New(ring.Options{Name: "edge-bench", Pool: pool})
	if err != nil {
		b.Fatal(err)
	}
	if err := loop.Start(); err != nil {
		b.Fatal(err)
	}
	defer loop.Stop()
	d := &instant{fakeDriver: fakeDriver{loop: loop, size: laneArea}}
	d.hook = ring.Hook{Run: d.tell, Stage: ring.StageDevice}
	disk := NewDisk(loop, d, d, nil)
	const depth = 32
	left, done := b.N, make(chan errs.Kind, depth)
	var hold buf.Vec
	loop.Call(func() {
		pool.Alloc(&hold, 1)
		d.page = hold.Segs[0].Page
	})
	b.ReportAllocs()
	b.SetBytes(ids.BlockSize)
	b.ResetTimer()
	loop.Call(func() {
		for i := range depth {
			l := &lane{disk: disk, pool: pool, op: op, left: &left, at: int64(i) * ids.BlockSize, done: done}
			l.next()
		}
	})
	for range depth {
		if k := <-done; k != errs.OK {
			b.Error(k)
		}
	}
	b.StopTimer()
	closed := make(chan struct{})
	loop.Call(func() {
		pool.ReleaseVec(&hold)
		disk.Close(func() { close(closed) })
	})
	<-closed
}
