package remote

import (
	"testing"

	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// BenchmarkLocate is a hit of the location cache, somewhere in a million known blocks: 16 MiB of locations, so that
// most look-ups miss the processor's caches, as they do under random reads. Miss is a page that is not there.
func BenchmarkLocate(b *testing.B) {
	const blocks = 1 << 20
	c := NewCache(2 * blocks / pageBlocks * PageBytes)
	life := c.newLife()
	for addr := ids.BlockAddr(0); addr < blocks; addr++ {
		c.put(c.make(life, uint32(addr>>pageShift)), addr, layout.Location{SCO: 1, Off: uint16(addr)})
	}
	for name, from := range map[string]ids.BlockAddr{"hit": 0, "miss": blocks} {
		b.Run(name, func(b *testing.B) {
			addr := ids.BlockAddr(0)
			b.ReportAllocs()
			for b.Loop() {
				addr = (addr + 7919*pageBlocks + 1) % blocks
				i := c.find(life, uint32((from+addr)>>pageShift))
				if _, ok := c.get(i, addr); ok != (from == 0) {
					b.Fatalf("block %d: known %v", addr, ok)
				} else if ok {
					c.heat(i)
				}
			}
		})
	}
}
