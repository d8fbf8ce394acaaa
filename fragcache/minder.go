package fragcache

import (
	"math/rand/v2"
	"time"

	"vstor/dataplane/dio"
)

// windowTicks is how long a window of Options.ReadsWanted is: 10 s.
const windowTicks = 100

// saidEvery is how often the log tells of a bypass: on a busy machine they come and go several times a second.
const saidEvery = time.Minute

// mind is the minder: it decides on the bypass.
func (c *Cache) mind() {
	defer c.wg.Done()
	block, err := dio.AlignedBuf(blockSize)
	if err != nil {
		c.opt.Log("fragcache: no memory to probe with, so the cache is never bypassed: %v", err)
		return
	}
	defer dio.FreeBuf(block)
	tick := time.NewTicker(c.opt.Tick)
	defer tick.Stop()
	var j verdict
	var was sighting
	said := time.Now().Add(-saidEvery)
	for n := 1; ; n++ {
		select {
		case <-c.stop:
			return
		case <-tick.C:
		}
		if n%windowTicks == 0 {
			c.window.Add(1)
		}
		now := c.look()
		seen := now.since(was)
		was = now
		if j.bypass {
			seen.probe, seen.probed = c.probe(block), true
		}
		if changed := j.tick(seen); changed {
			c.bypassed.Store(j.bypass)
			if j.bypass {
				c.count.bypasses.Add(1)
			}
			if j.bypass && time.Since(said) >= saidEvery {
				said = time.Now()
				c.opt.Log("fragcache: bypassed, as %s; metrics count how often", j.why)
			}
		}
		if j.wantSample() {
			c.askSample()
		}
	}
}

// sighting is what readers counted, or what they counted within a tick.
type sighting struct {
	here, hereNanos, there, thereNanos uint64
	located, ended, failed             uint64
	probe                              time.Duration
	probed                             bool
}

func (c *Cache) look() (s sighting) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.readers {
		s.here += r.here.n.Load()
		s.hereNanos += r.here.nanos.Load()
		s.there += r.there.n.Load()
		s.thereNanos += r.there.nanos.Load()
		s.ended += r.ended.Load()
		s.located += r.located.Load()
		s.failed += r.failed.Load()
	}
	return s
}

// since is what came after an earlier sighting; located stays how many are under way.
func (s sighting) since(was sighting) sighting {
	return sighting{here: s.here - was.here, hereNanos: s.hereNanos - was.hereNanos, there: s.there - was.there,
		thereNanos: s.thereNanos - was.thereNanos, ended: s.ended - was.ended, located: s.located - min(s.located, s.ended),
		failed: s.failed - was.failed}
}

// askSample sends the next read of each Reader to an ASD.
func (c *Cache) askSample() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.readers {
		r.sample.Store(true)
	}
}

// probes is how many reads of its own the minder times in a tick.
const probes = 4

// probeFailed stands for a probe that the file did not do.
const probeFailed = time.Hour

// probe is how long a read of the file takes now.
func (c *Cache) probe(block []byte) time.Duration {
	start := time.Now()
	for range probes {
		c.count.probes.Add(1)
		if c.file.ReadAt(block, c.probePlace()) != nil {
			return probeFailed
		}
	}
	return time.Since(start) / probes
}

// probePlace is a block that was written, if chance finds one: a file system answers for what never was without
// asking the device.
func (c *Cache) probePlace() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	seg := 0
	for range 8 {
		if seg = rand.IntN(len(c.segs)); c.segs[seg].end > 0 {
			return c.at(uint32(seg), uint32(rand.Int64N(c.segs[seg].end>>blockShift)))
		}
	}
	return c.at(uint32(seg), 0)
}

// How the verdict is found. A device must be slower, or fast again, for some ticks on end: times of single reads
// vary by more than the devices do. slackNanos spares caches that are about as fast as the ASDs, as where both lie
// on one device, from going back and forth.
const (
	ticksToBypass = 3
	ticksToReturn = 3
	ticksStalled  = 2   // with reads under way of which none ended
	ticksFresh    = 10  // a mean is no newer: worth a sample
	ticksStale    = 50  // a mean is not worth comparing with
	failedMin     = 8   // failures in a tick that are more than bad luck
	slackNanos    = 5e4 // 50 us
)

// verdict decides on the bypass, tick by tick, from what was seen. It knows no clock.
type verdict struct {
	bypass bool
	why    string

	here, there       mean
	slow, fast, still int // ticks on end
}

// mean is a moving mean of a tick's mean times, in ns.
type mean struct {
	ns    float64
	age   int // ticks since the last
	known bool
}

func (m *mean) tick(n, nanos uint64) {
	if n == 0 {
		m.age++
		return
	}
	x := float64(nanos) / float64(n)
	switch {
	case !m.known || m.age > ticksStale:
		m.ns = x
	default:
		m.ns += (x - m.ns) / 4
	}
	m.known, m.age = true, 0
}

func (m *mean) fit() bool { return m.known && m.age <= ticksStale }

// tick takes what was seen and reports whether the verdict changed.
func (v *verdict) tick(s sighting) bool {
	v.there.tick(s.there, s.thereNanos)
	if v.bypass {
		return v.tickBypassed(s)
	}
	v.here.tick(s.here, s.hereNanos)
	if s.located > 0 && s.ended == 0 {
		v.still++
	} else {
		v.still = 0
	}
	if s.here > 0 && v.here.fit() && v.there.fit() && v.here.ns > v.there.ns*1.25+slackNanos {
		v.slow++
	} else if s.here > 0 {
		v.slow = 0
	}
	switch {
	case v.still >= ticksStalled:
		v.why = "it does not answer"
	case s.failed >= failedMin && s.failed*2 > s.ended:
		v.why = "it fails"
	case v.slow >= ticksToBypass:
		v.why = "it is slower than the ASDs: " + time.Duration(v.here.ns).String() + " to " +
			time.Duration(v.there.ns).String()
	default:
		return false
	}
	v.bypass, v.fast = true, 0
	return true
}

// tickBypassed looks for the end of a bypass: some fast probes, and nothing under way that got stuck. What is not
// known of the ASDs does not hold it up.
func (v *verdict) tickBypassed(s sighting) bool {
	fine := s.probed && s.probe < probeFailed &&
		(!v.there.known || float64(s.probe) < v.there.ns+slackNanos) && (s.located == 0 || s.ended > 0)
	if !fine {
		v.fast = 0
		return false
	}
	if v.fast++; v.fast < ticksToReturn {
		return false
	}
	*v = verdict{there: v.there}
	return true
}

// wantSample reports whether the cache is read and ASDs were not for a while.
func (v *verdict) wantSample() bool {
	return !v.bypass && v.here.known && v.here.age == 0 && (!v.there.known || v.there.age >= ticksFresh)
}
