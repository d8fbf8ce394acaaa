package pracc

import "math/bits"

// Reads are told apart by size: up to 64 KiB the drive's own delay is what counts, beyond it the bytes.
type sizeClass uint8

const (
	sizeSmall sizeClass = iota
	sizeLarge
	sizeClasses
)

const smallBytes = 64 << 10

// SizeNames are the names of the classes, in the order of ASDStats.
var SizeNames = [sizeClasses]string{"to_64k", "above_64k"}

func classOf(bytes uint32) sizeClass {
	if bytes <= smallBytes {
		return sizeSmall
	}
	return sizeLarge
}

// Latencies are counted in steps, 8 per power of two from 8 us to 69 s: what is shorter or longer counts as that,
// and a quantile overstates by at most an eighth.
const (
	latBits  = 3
	latLow   = 13
	latHigh  = 36
	latSteps = (latHigh - latLow) << latBits
	// latFull samples, and all counts are halved: what is older than that fades. latFew are too few to go by.
	latFull = 512
	latFew  = 16
	// latEvery is after how many samples the quantiles are computed anew.
	latEvery = 32
)

// latency is how long an ASD's reads took lately: a histogram that forgets, 400 bytes. A running estimate of
// one quantile would do with a few bytes, but it crawls when a drive falls from 100 us to 10 ms, and this one
// must be right within a few dozen reads.
type latency struct {
	steps    [latSteps]uint16
	n        uint16
	fresh    uint16 // samples since the quantiles were computed
	p50, p95 int64  // ns; 0 = too few samples
	at       int64  // when the last came
}

// add counts one read of ns, at a time of the loop. True if the quantiles are new.
func (l *latency) add(ns, now int64) bool {
	l.steps[latStep(ns)]++
	l.n++
	l.fresh++
	l.at = now
	if l.fresh < latEvery && !(l.p95 == 0 && l.n >= latFew) {
		return false
	}
	l.fresh = 0
	l.p50, l.p95 = l.quantiles()
	if l.n >= latFull {
		l.n = 0
		for i := range l.steps {
			l.steps[i] /= 2
			l.n += l.steps[i]
		}
	}
	return true
}

// quantiles walks the steps once.
func (l *latency) quantiles() (p50, p95 int64) {
	seen, half, most := uint16(0), l.n/2, uint16(uint32(l.n)*95/100)
	for i, c := range l.steps {
		seen += c
		if p50 == 0 && seen > half {
			p50 = latBound(i)
		}
		if seen > most {
			return p50, latBound(i)
		}
	}
	return p50, latBound(latSteps - 1)
}

// latStep is the step of a duration: of [2^e, 2^(e+1)) one of 8.
func latStep(ns int64) int {
	v := uint64(max(ns, 0)) >> (latLow - latBits)
	if v < 1<<latBits {
		return 0
	}
	e := bits.Len64(v) - 1 - latBits
	return min(e<<latBits+int(v>>e)-1<<latBits, latSteps-1)
}

// latBound is the end of a step.
func latBound(i int) int64 {
	e := i >> latBits
	return int64(i&(1<<latBits-1)+1<<latBits+1) << (e + latLow - latBits)
}

// guess is what a read is expected to take, for choosing among ASDs; 0 for one that is not known. It fades by half
// each second without a sample: an ASD that was slow once, and is not read for it, is tried again.
func (l *latency) guess(now int64) int64 {
	return l.p50 >> min(uint64(max(now-l.at, 0))/1e9, 63)
}
