package pracc

import (
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// troubleNanos is how long an ASD that failed a read is asked last when sources are chosen.
const troubleNanos = 2e9

// target is what a Client knows of one ASD.
type target struct {
	id       ids.ASDID
	flying   int32 // range reads under way
	troubled int64 // the Client's time until which others are better sources
	hopeless bool  // a fetch has waited all its patience for it, and it has not been read since
	stats    ASDStats

	lat        [sizeClasses]latency
	hedgeAfter [sizeClasses]int64 // how long its reads may take before something is done
	fails      uint8              // reads in a row that failed, saturating
	losses     uint8              // reads in a row that were overtaken, saturating

	heard int64 // when it brought bytes last

	out     bool // of the fast set
	back    int64
	probe   probe
	overdue bool // sweep's: a read of it is older than any should be
	drags   bool // sweep's: a read of it is on the way there
}

// targetOf finds the state of an ASD, or makes it. Only ASDs that could be asked once get one, so a
// manifest full of nonsense cannot fill memory.
func (c *Client) targetOf(id ids.ASDID) *target {
	t := c.targets[id]
	if t == nil {
		t = &target{id: id}
		t.probe.t, t.probe.c = t, c
		t.stats.Fast.Set(1)
		c.setHedgeAfter(t)
		c.targets[id] = t
		c.publish(t)
	}
	return t
}

// isOut reports whether an ASD is out of the fast set.
func (c *Client) isOut(id ids.ASDID) bool {
	if c.outs == 0 {
		return false
	}
	t := c.targets[id]
	return t != nil && t.out
}

// timed counts how long a read took.
func (c *Client) timed(t *target, class sizeClass, ns int64) {
	l := &t.lat[class]
	t.stats.Latency[class].Record(ns)
	if l.add(ns, c.now()) {
		t.stats.P50[class].Set(l.p50)
		t.stats.P95[class].Set(l.p95)
		c.setHedgeAfter(t)
		c.judgeMedian(t, class)
	}
}

// located counts an answer of Locate, or a read's end, that was not OK.
func (c *Client) located(t *target, kind errs.Kind) {
	switch kind {
	case errs.Absent:
		t.stats.Absent.Inc()
		return
	case errs.Corrupt, errs.Invalid:
		t.stats.Errors.Inc()
		return
	}
	t.stats.Errors.Inc()
	t.troubled = c.now() + troubleNanos
	t.fails = min(t.fails, failsMax-1) + 1
	if t.fails == failsMax {
		c.judgeFails(t)
	}
}
