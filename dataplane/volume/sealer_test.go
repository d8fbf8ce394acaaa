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

// fullObjects has room for blocks of the vDisk that may, and for trims.
type fullObjects struct {
	*memObjects
	may ids.NamespaceID
}

func (o fullObjects) Put(ctx context.Context, s PutSpec) (Stored, error) {
	if s.Namespace != o.may && s.Content.Size() > 2*ids.BlockSize {
		return nil, errs.New(errs.Full, "no room")
	}
	return o.memObjects.Put(ctx, s)
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
		r.v.opts.Objects = fullObjects{r.objects, 2}
	})
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
	r.loop.Call(func() {
		if n := mine.Stats.Sealed.Load(); n != 0 {
			t.Errorf("%d SCOs sealed without room", n)
		}
	})
	closed := make(chan struct{})
	r.loop.Call(func() { other.Close(func() { close(closed) }) })
	<-closed
}
