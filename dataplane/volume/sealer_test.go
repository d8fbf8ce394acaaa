package volume

import (
	"context"
	"testing"
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/volume/pagemap"
)

// Slots go to who asked first; who gives up leaves the queue, and does not keep a slot that it was given meanwhile.
func TestSlots(t *testing.T) {
	s := NewSealer(1)
	defer s.Close()
	ctx, cancel := context.WithCancel(context.Background())
	if !s.acquire(ctx) {
		t.Fatal("no slot, and nobody has one")
	}
	got := make(chan int, 3)
	ask := func(i int, ctx context.Context) {
		go func() {
			if !s.acquire(ctx) {
				i = -i
			}
			got <- i
		}()
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			s.mu.Lock()
			n := len(s.waiting)
			s.mu.Unlock()
			if n == i {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%d wait, want %d", n, i)
			}
		}
	}
	ask(1, context.Background())
	ask(2, ctx)
	ask(3, context.Background())
	cancel()
	for _, want := range []int{-2, 1, 3} {
		if i := <-got; i != want {
			t.Fatalf("%d, want %d", i, want)
		}
		s.release() // the first time that of the test itself
	}
	late := make(chan struct{})
	s.leave(late) // given a slot and gone: it is the next one's
	if s.free != 2 || len(s.waiting) != 0 {
		t.Errorf("%d free, %d wait", s.free, len(s.waiting))
	}
}

// A vDisk whose SCOs find no room stops the sealing of no other, and when there is none the trims of all are sealed at
// once: they may be what gives room.
func TestFullHoldsUpNobodyElse(t *testing.T) {
	r := newRig(t, 64<<20, 1<<20)
	m, _, err := r.db.Open(pagemap.Options{ID: 2, Size: ids.BlockAddr(r.size / ids.BlockSize), Budget: r.budget,
		Poster: r, LoadsMax: 64})
	r.must(err)
	other := r.v
	r.loop.Call(func() {
		opts := other.opts
		opts.ID, opts.Name, opts.Map = 2, "w", m
		other = New(opts)
		r.keeper.Add(other)
	})
	r.objects.setFull(func(s PutSpec) bool { return s.Namespace == 1 && s.Content.Size() > 2*ids.BlockSize })
	r.must(other.Recover(context.Background(), nil))
	for i := range ids.BlockAddr(4) {
		r.do(block.Put, 1000*i, 200)
		r.loop.Call(r.v.Seal)
	}
	r.settle("SCOs find no room", func() bool { return r.v.Stats.SealRetries.Load() > 0 })
	mine := r.v
	r.v = other
	r.do(block.Discard, 0, 100)
	r.settle("trims are sealed", func() bool { return other.Stats.Sealed.Load() == 1 })
	r.do(block.Put, 0, 200)
	r.loop.Call(other.Seal)
	r.settle("blocks are sealed", func() bool { return other.Stats.Sealed.Load() == 2 })
	r.v = mine
	if n := mine.Stats.Sealed.Load(); n != 0 {
		t.Errorf("%d SCOs sealed without room", n)
	}
	closed := make(chan struct{})
	r.loop.Call(func() { other.Close(func() { close(closed) }) })
	<-closed
}

// Close waits for what runs, and nothing runs behind it.
func TestSealerClose(t *testing.T) {
	s := NewSealer(1)
	ended := false
	s.background(func(ctx context.Context) {
		s.acquire(ctx)
		if s.acquire(ctx) {
			t.Error("two slots of one")
		}
		time.Sleep(10 * time.Millisecond)
		ended = true
	})
	s.Close()
	if !ended {
		t.Error("Close did not wait")
	}
	s.background(func(context.Context) { t.Error("begun behind Close") })
}

// While its first SCO finds no room a vDisk has one more stored at most, whose pages may leave RAM; the others do not
// begin. With room all commit.
func TestFirstFindsNoRoom(t *testing.T) {
	r := newRig(t, 64<<20, 1<<20)
	first, tried := ids.Seq(1), map[ids.Seq]bool{}
	r.objects.setFull(func(s PutSpec) bool {
		tried[s.SeqLo] = true
		return s.SeqLo == first
	})
	for i := range ids.BlockAddr(5) {
		r.do(block.Put, 1000*i, 200)
		r.loop.Call(r.v.Seal)
		r.settle("the first has found no room", func() bool { return r.keeper.why == errs.Full })
	}
	r.settle("the first was tried again, others are stored and let go", func() bool {
		return r.v.Stats.SealRetries.Load() > 2 && r.objects.count() > 0 && !r.v.ov.Closed()[1].Sealing
	})
	n := r.objects.count()
	r.objects.setFull(nil)
	if n != 1 || len(tried) != 2 || !tried[first] {
		t.Errorf("%d are stored, tried the SCOs that begin with %v", n, tried)
	}
	r.settle("all are sealed", func() bool { return r.v.Stats.Sealed.Load() == 5 })
}

// SCOs that find no room while a vDisk is being opened are tried again once it is.
func TestNoRoomWhileOpening(t *testing.T) {
	r := newRig(t, 64<<20, 1<<20)
	r.objects.setFull(func(PutSpec) bool { return true })
	for i := range ids.BlockAddr(4) {
		r.do(block.Put, 1000*i, 200)
	}
	r.close()
	r.beforeAttach = func() {
		r.settle("SCOs find no room", func() bool { return r.v.Stats.SealRetries.Load() > 2 })
	}
	r.open()
	r.objects.setFull(nil)
	r.seal()
}

// What has one sequence enters the overlay in one go, whatever its length.
func TestLogSlices(t *testing.T) {
	log := make([]LogEntry, 3000)
	for i := range log {
		log[i].Seq = ids.Seq(i + 1)
		if i >= 1000 && i < 2500 {
			log[i].Seq = 1001
		}
	}
	if a, b := logSlice(log), logSlice(log[2500:]); a != 2500 || b != 500 {
		t.Errorf("%d and %d", a, b)
	}
}
