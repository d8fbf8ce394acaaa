package pracc

// cache keeps resolved manifests, bounded in bytes. Eviction is CLOCK with two bits: entries stand on a
// ring, a hit heats its entry up to heatMax, the hand cools what it passes and drops what is cold. A new
// entry is put right behind the hand with no heat: one round later it is gone unless it was hit, so a
// scan that touches every object once drops its own leftovers before what is hit again and again.
//
// An LRU list would move an entry with every hit, six pointers written per 4 KiB read; here a hit
// writes a byte, and nothing once that is at its top.
type cache struct {
	max   int64
	bytes int64
	table map[objKey]*entry
	hand  *entry // next to be looked at; nil = empty

	evicted uint64
}

const heatMax = 3

func (k *cache) init(max int64) {
	k.max = max
	k.table = make(map[objKey]*entry)
}

// get finds an entry and counts the hit; nil if there is none.
func (k *cache) get(key objKey) *entry {
	e := k.table[key]
	if e != nil && e.heat < heatMax {
		e.heat++
	}
	return e
}

// put keeps e in place of an older manifest of the object, and makes room for it.
func (k *cache) put(e *entry) {
	if old := k.table[e.key]; old != nil {
		e.heat = old.heat
		k.drop(old)
	}
	if e.bytes() > k.max/2 {
		return // one giant is not worth all the others; it is asked for each time
	}
	for k.hand != nil && k.bytes+e.bytes() > k.max {
		if h := k.hand; h.heat > 0 {
			h.heat--
			k.hand = h.next
		} else {
			k.drop(h)
			k.evicted++
		}
	}
	k.table[e.key] = e
	k.bytes += e.bytes()
	if k.hand == nil {
		e.prev, e.next = e, e
		k.hand = e
		return
	}
	e.prev, e.next = k.hand.prev, k.hand
	e.prev.next, e.next.prev = e, e
}

// drop takes e out.
func (k *cache) drop(e *entry) {
	delete(k.table, e.key)
	k.bytes -= e.bytes()
	if e.next == e {
		k.hand = nil
	} else {
		if k.hand == e {
			k.hand = e.next
		}
		e.prev.next, e.next.prev = e.next, e.prev
	}
	e.prev, e.next = nil, nil
}
