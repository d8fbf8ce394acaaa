package blockcache

import "time"

// gate decides whether the SSD is worth asking. It compares mean latencies of SSD reads and of reads of the backend,
// each in the same class of sizes. It is a plain step function over a clock that the caller has.
type gate struct {
	class [classes]struct {
		ssd, below mean
		slow       bool
		probed     int64 // when the last probe went, either way
	}
}

// classes of sizes, in blocks: up to 4, up to 32, more.
const classes = 3

func classOf(blocks int) int {
	switch {
	case blocks <= 4:
		return 0
	case blocks <= 32:
		return 1
	}
	return 2
}

// mean is a moving mean over about the last 16 samples, if they are not too old.
type mean struct {
	ns int64
	n  int
	at int64 // of the last sample
}

const (
	enough     = 16                            // samples before a mean says something
	stale      = int64(10 * time.Second)       // after which it does no more
	refresh    = int64(time.Second)            // after which the backend's mean wants a new sample
	probeEvery = int64(100 * time.Millisecond) // at most one probe in that time
	lateMin    = int64(10 * time.Millisecond)
	lateBlind  = int64(250 * time.Millisecond) // where nothing is known of the backend
)

func (m *mean) add(ns, now int64) {
	if m.n > 0 && now-m.at > stale {
		m.n = 0
	}
	m.n++
	m.ns += (ns - m.ns) / int64(min(m.n, enough))
	m.at = now
}

func (m *mean) known(now int64) bool { return m.n >= enough && now-m.at <= stale }

// verdict is what the gate says of a read.
type verdict uint8

const (
	useSSD     verdict = iota
	probeSSD           // the SSD is slow: look whether it still is
	skipSSD            // the SSD is slow
	probeBelow         // the SSD is fast as far as is known, but the backend's figure is old or missing
)

// ask decides about a read of a class. The SSD is slow once its mean is a quarter above the backend's, and fast again
// once it is not above it.
func (g *gate) ask(class int, now int64) verdict {
	c := &g.class[class]
	below := g.below(class, now)
	switch {
	case !c.ssd.known(now) || below == 0:
		c.slow = false
	case c.slow:
		c.slow = c.ssd.ns > below
	default:
		c.slow = c.ssd.ns > below+below/4
	}
	due := now-c.probed >= probeEvery
	switch {
	case c.slow && due:
		c.probed = now
		return probeSSD
	case c.slow:
		return skipSSD
	case due && c.ssd.known(now) && (!c.below.known(now) || now-c.below.at > refresh):
		c.probed = now
		return probeBelow
	}
	return useSSD
}

// below is what the backend takes for a class, or for a larger one, which is more; 0 = not known.
func (g *gate) below(class int, now int64) int64 {
	for ; class < classes; class++ {
		if b := &g.class[class].below; b.known(now) {
			return b.ns
		}
	}
	return 0
}

// slow reports whether the SSD is slow for any size: then it is not written to either.
func (g *gate) slow(now int64) bool {
	for i := range g.class {
		if c := &g.class[i]; c.slow && c.ssd.known(now) {
			return true
		}
	}
	return false
}

// late is how long a read of the SSD may take before the backend is asked as well.
func (g *gate) late(class int) int64 {
	b := &g.class[class].below
	if b.n < enough {
		return lateBlind
	}
	return max(lateMin, 4*b.ns)
}
