package volume

import (
	"time"

	"vstor/dataplane/volume/overlay"
)

// keepRAM drops overlay pages from RAM when the pool runs low: they are in the journal too. This is the writer's own
// share, as it goes; the Keeper does the same over all vDisks of the loop.
func (v *Volume) keepRAM() {
	if v.keeper.mustEvict() {
		v.Stats.Evicted.Add(uint64(v.ov.Evict(evictSome)))
	}
}

// dropCoded drops the pages of entries of a batch whose seal has done with them. That frees pages as the end of a SCO
// does, and is progress as that is.
func (v *Volume) dropCoded(b *overlay.Batch, entries []uint32) {
	if v.ov.EvictEntries(b, entries) > 0 {
		v.keeper.progress = v.loop.Now()
	}
}

// evictSome is how many pages leave RAM at a time: a few more than one entry brings.
const evictSome = 64

// lowRAM reports whether receiving will soon find no pages. What Alloc leaves alone does not count.
func (k *Keeper) lowRAM() bool {
	p := k.loop.Pool()
	return p.Free() < p.Reserve()+p.Pages()/8
}

// sealPatience is how long sealing may make no progress before blocks that wait for it leave RAM.
const sealPatience = 250 * time.Millisecond

// sealing counts batches on their way. The clock begins anew with the first, and with each that ends, if it has pages
// in RAM: the end of one that had none gives nobody a page.
func (k *Keeper) sealing(by int, pages bool) {
	if k.jobs += by; pages && (by < 0 || k.jobs == 1) {
		k.progress = k.loop.Now()
	}
}

// mustEvict reports whether blocks have to leave RAM. Not whenever it is low: what has left is read back when it is
// sealed, mostly block by block, which takes more than twice as long; so more leaves meanwhile, and a burst would be
// paid for as long as writes come as fast as they can. While sealing gets on, it frees pages, and who wants to write
// waits for those. When it does not, the backend may be away for hours, and the journal is to take what it can.
func (k *Keeper) mustEvict() bool {
	return k.lowRAM() && (k.jobs <= 0 || time.Duration(k.loop.Now()-k.progress) > sealPatience)
}

// keepRAM evicts over all vDisks until there is room again, or nothing is left that may go.
func (k *Keeper) keepRAM() {
	for _, v := range k.vols {
		for k.mustEvict() {
			n := v.ov.Evict(8 * evictSome)
			v.Stats.Evicted.Add(uint64(n))
			if n == 0 {
				break
			}
		}
	}
}
