package edge

import (
	"math/rand/v2"
	"testing"
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// closable is a driver that counts what is asked of it after the Disk was closed.
type closable struct {
	*fakeDriver
	closed bool
	late   int
}

func (c *closable) count() {
	if c.closed {
		c.late++
	}
}

func (c *closable) Mutate(m *block.Mutation) {
	c.count()
	c.fakeDriver.Mutate(m)
}

func (c *closable) Resolve(addr ids.BlockAddr, n int, r *block.Resolution, l block.Loaded) bool {
	c.count()
	return c.fakeDriver.Resolve(addr, n, r, l)
}

func (c *closable) Fetch(f *block.Fetch) {
	c.count()
	c.fakeDriver.Fetch(f)
}

func (c *closable) Extents(addr ids.BlockAddr, n int, blind bool, out *[]block.Extent, left *int, l block.Loaded) (int,
	bool) {
	c.count()
	return c.fakeDriver.Extents(addr, n, blind, out, left, l)
}

func (c *closable) Warm(addr ids.BlockAddr, n int, l block.Loaded) {
	c.count()
	c.fakeDriver.Warm(addr, n, l)
}

// closableLease is one whose lease ends with it.
type closableLease struct{ *closable }

func (c closableLease) Holds() bool                 { return !c.closed }
func (c closableLease) Distrust(ids.BlockAddr, int) { c.count() }
func (c closableLease) Disown()                     {}

func (c closableLease) Own(who block.Owner) bool {
	c.count()
	if c.rng.IntN(2) == 0 {
		return true
	}
	c.later(func() { who.Owned([]errs.Kind{errs.OK, errs.Closed}[c.rng.IntN(2)]) })
	return false
}

// Requests that are under way when the Disk is closed end, each once, with all pages given back, and nothing is asked
// of driver and fetcher any more: they close next.
func TestCloseWithRequestsUnderWay(t *testing.T) {
	refused := 0
	for seed := range uint64(120) {
		r := newRig(t, seed)
		rng := rand.New(rand.NewPCG(seed, 98))
		flat, st := make([]byte, r.drv.size), newStates(r.drv.size)
		for range 4 {
			r.round(rng, flat, st)
		}
		c := &closable{fakeDriver: r.drv}
		r.loop.Call(func() {
			r.disk.driver = c
			if r.cache != nil {
				r.cache.below = c
			} else {
				r.disk.fetch = c
			}
			if seed%3 == 0 {
				r.disk.leased = closableLease{c}
			}
		})
		done := make(chan struct{}, 64)
		var ops []*one
		for range 32 {
			o := randomMutation(rng, flat)
			switch rng.IntN(8) {
			case 0, 1:
				o.req.Op, o.req.Flags = block.Read, 0
			case 2:
				o.req.Op, o.req.Flags = block.Cache, 0
			case 3:
				o = askExtents(rng, r.drv.size, done)
			}
			o.req.Done = waiter{done}
			ops = append(ops, o)
		}
		r.loop.Call(func() {
			for _, o := range ops {
				if o.req.Op == block.Write {
					r.fill(o)
				}
				r.disk.Submit(&o.req)
			}
		})
		time.Sleep(time.Duration(rng.IntN(300)) * time.Microsecond)
		r.loop.Call(func() {
			r.disk.Close(nil)
			c.closed = true
		})
		for range ops {
			<-done
		}
		time.Sleep(time.Millisecond) // for what ends twice, and for what is still read ahead
		r.loop.Call(func() {
			for _, o := range ops {
				switch o.req.Err {
				case errs.OK:
					r.content(&o.req)
				case errs.Closed:
					refused++
				default:
					t.Errorf("seed %d: op %d ended with %v", seed, o.req.Op, o.req.Err)
				}
			}
			if len(done) > 0 {
				t.Errorf("seed %d: requests ended twice", seed)
			}
			if c.late > 0 {
				t.Errorf("seed %d: after the close %d things were asked of driver and fetcher", seed, c.late)
			}
		})
	}
	if refused == 0 {
		t.Error("no request was ended by a close")
	}
}
