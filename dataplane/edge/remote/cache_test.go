package remote

import (
	"math/rand/v2"
	"testing"

	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// The cache never tells what was dropped, and of a cache that is large enough nothing else is forgotten.
func TestCacheAgainstMap(t *testing.T) {
	for _, pages := range []int64{1, 3, 1000} {
		rng := rand.New(rand.NewPCG(uint64(pages), 1))
		c := NewCache(pages * PageBytes)
		lives := []uint32{c.newLife(), c.newLife()}
		type key struct {
			life uint32
			addr ids.BlockAddr
		}
		known := map[key]layout.Location{}
		const blocks = 64 * 20
		for range 20000 {
			life := lives[rng.IntN(2)]
			addr, n := ids.BlockAddr(rng.IntN(blocks)), uint64(1+rng.IntN(200))
			switch rng.IntN(10) {
			case 0:
				c.drop(life, addr, n)
				for i := range n {
					delete(known, key{life, addr + ids.BlockAddr(i)})
				}
			case 1:
				if rng.IntN(50) == 0 {
					i := rng.IntN(2)
					lives[i] = c.newLife()
				}
			case 2:
				sco := ids.SCONum(1 + rng.IntN(5))
				for at, done := 0, false; !done; {
					at, done = c.dropObject(life, 0, sco, at, 1+rng.IntN(20))
				}
				for k, loc := range known {
					if k.life == life && loc.SCO == sco {
						delete(known, k)
					}
				}
			default:
				loc := layout.Location{SCO: ids.SCONum(1 + rng.IntN(5)), Off: uint16(rng.IntN(100)), Sum: rng.Uint32()}
				c.put(c.make(life, uint32(addr>>pageShift)), addr, loc)
				known[key{life, addr}] = loc
			}
			for range 20 {
				addr := ids.BlockAddr(rng.IntN(blocks + 100))
				got, ok := c.get(c.find(life, uint32(addr>>pageShift)), addr)
				want, is := known[key{life, addr}]
				if ok && (!is || got != want) || !ok && is && pages == 1000 {
					t.Fatalf("%d pages: block %d is %v %v, want %v %v", pages, addr, got, ok, want, is)
				}
			}
		}
		if len(c.pages) > int(pages) {
			t.Errorf("%d pages, %d allowed", len(c.pages), pages)
		}
		known64 := int64(0)
		for i := range c.pages {
			for b := range pageBlocks {
				known64 += int64(c.pages[i].known >> b & 1)
			}
		}
		if known64 != c.blocks {
			t.Errorf("%d blocks are known, %d counted", known64, c.blocks)
		}
	}
}

func TestCacheHitAllocatesNothing(t *testing.T) {
	c := NewCache(1 << 20)
	life := c.newLife()
	c.put(c.make(life, 0), 5, layout.Location{SCO: 1})
	if n := testing.AllocsPerRun(1000, func() {
		i := c.find(life, 0)
		c.heat(i)
		c.get(i, 5)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
