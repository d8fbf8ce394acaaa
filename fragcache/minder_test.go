package fragcache

import (
	"testing"
	"testing/synctest"
	"time"

	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
)

func mindedOptions(f dio.File) Options {
	o := testOptions(f)
	o.Tick = 0
	return o
}

// traffic reads as PRACC does, from the cache or from an ASD that takes a millisecond, for some virtual time, and
// counts what came from where.
type traffic struct {
	t           *testing.T
	c           *Cache
	r           *Reader
	here, there int
}

func (tr *traffic) run(d time.Duration) {
	tr.here, tr.there = 0, 0
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Millisecond) {
		key := fragKey(1, 0)
		start := time.Now()
		_, kind := locate(tr.t, tr.r, key, 0, 4096)
		switch kind {
		case errs.OK:
			tr.here++
			tr.r.Served(key, 4096, int64(time.Since(start)), errs.OK)
		case errs.IO:
		default:
			tr.there++
			time.Sleep(time.Millisecond)
			tr.r.Passed(key, 4096, int64(time.Since(start)))
		}
	}
}

// A cache that gets slower than the ASDs is bypassed until it is fast again; one that is fast is not.
func TestSlowCacheIsBypassed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := dio.NewMem(8 << 20)
		c := open(t, mindedOptions(f))
		defer c.Close()
		tr := &traffic{t: t, c: c, r: c.NewReader()}
		fill(t, c, fragKey(1, 0), 8192)
		f.SetDelay(100 * time.Microsecond)
		tr.run(10 * time.Second)
		s := c.Stats()
		if s.BypassedNow || s.Bypasses != 0 || s.Sampled == 0 || tr.there > 20 {
			t.Fatalf("fast: %d from the cache, %d from ASDs; %+v", tr.here, tr.there, s)
		}
		f.SetDelay(10 * time.Millisecond)
		tr.run(5 * time.Second)
		tr.run(5 * time.Second)
		if s = c.Stats(); !s.BypassedNow || tr.here != 0 || s.Bypasses != 1 || s.Bypassed == 0 || s.Probes == 0 {
			t.Fatalf("slow: %d from the cache, %d from ASDs; %+v", tr.here, tr.there, s)
		}
		if offer(c, fragKey(1, 1), content(fragKey(1, 1), 4096)) {
			t.Fatal("filled while it is bypassed")
		}
		f.SetDelay(100 * time.Microsecond)
		tr.run(5 * time.Second)
		tr.run(5 * time.Second)
		if s = c.Stats(); s.BypassedNow || tr.there > 20 || s.Bypasses != 1 {
			t.Fatalf("fast again: %d from the cache, %d from ASDs; %+v", tr.here, tr.there, s)
		}
	})
}

// A cache whose reads do not come back is bypassed though nobody knows how slow it is.
func TestSilentCacheIsBypassed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, mindedOptions(dio.NewMem(8<<20)))
		defer c.Close()
		tr := &traffic{t: t, c: c, r: c.NewReader()}
		fill(t, c, fragKey(1, 0), 8192)
		tr.run(time.Second)
		_, pin, kind := tr.r.Locate(fragKey(1, 0), 0, 4096, nil)
		for range 20 { // a sample or two may be an ASD's
			if kind == errs.OK {
				break
			}
			_, pin, kind = tr.r.Locate(fragKey(1, 0), 0, 4096, nil)
		}
		time.Sleep(time.Second)
		if s := c.Stats(); !s.BypassedNow {
			t.Fatalf("a read hangs: %+v", s)
		}
		time.Sleep(10 * time.Second)
		if s := c.Stats(); !s.BypassedNow || s.Bypasses != 1 {
			t.Fatalf("it still hangs: %+v", s)
		}
		tr.r.Unpin(pin)
		time.Sleep(time.Second)
		if s := c.Stats(); s.BypassedNow {
			t.Fatalf("it came back: %+v", s)
		}
	})
}

// A cache that gives out rot again and again is bypassed for a while, like one that fails.
func TestRottenCacheIsBypassed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, mindedOptions(dio.NewMem(8<<20)))
		defer c.Close()
		r := c.NewReader()
		for i := range 2 * failedMin {
			fill(t, c, fragKey(1, i), 4096)
		}
		for i := range 2 * failedMin {
			if _, kind := locate(t, r, fragKey(1, i), 0, 4096); kind == errs.OK {
				r.Served(fragKey(1, i), 4096, 1000, errs.Corrupt)
			}
		}
		time.Sleep(150 * time.Millisecond)
		if s := c.Stats(); !s.BypassedNow || s.Corrupt != 2*failedMin {
			t.Fatalf("%+v", s)
		}
		time.Sleep(time.Second)
		if s := c.Stats(); s.BypassedNow {
			t.Fatalf("the file reads well: %+v", s)
		}
	})
}

func TestVerdict(t *testing.T) {
	fast, slow := uint64(1e5), uint64(5e6)
	for _, c := range []struct {
		name   string
		n      int
		see    sighting
		bypass bool
		first  verdict
	}{
		{"nothing", 100, sighting{}, false, verdict{}},
		{"as fast", 100, sighting{here: 10, hereNanos: 10 * slow, there: 10, thereNanos: 10 * slow, ended: 10}, false,
			verdict{}},
		{"faster", 100, sighting{here: 10, hereNanos: 10 * fast, there: 10, thereNanos: 10 * slow, ended: 10}, false,
			verdict{}},
		{"a little slower", 100, sighting{here: 10, hereNanos: 10 * 1e5, there: 10, thereNanos: 10 * 8e4, ended: 10}, false,
			verdict{}},
		{"slower", ticksToBypass, sighting{here: 10, hereNanos: 10 * slow, there: 10, thereNanos: 10 * fast, ended: 10}, true,
			verdict{}},
		{"slower, and ASDs unknown", 100, sighting{here: 10, hereNanos: 10 * slow, ended: 10}, false, verdict{}},
		{"slower for a moment", ticksToBypass - 1, sighting{here: 10, hereNanos: 10 * slow, there: 10, thereNanos: 10 * fast,
			ended: 10}, false, verdict{}},
		{"fails", 1, sighting{ended: 20, failed: 15}, true, verdict{}},
		{"fails now and then", 100, sighting{ended: 20, failed: 1}, false, verdict{}},
		{"hangs", ticksStalled, sighting{located: 3}, true, verdict{}},
		{"works", 100, sighting{located: 3, ended: 1}, false, verdict{}},
		{"probes slow", 100, sighting{probed: true, probe: 5e6, there: 1, thereNanos: fast}, true, verdict{bypass: true}},
		{"probes fail", 100, sighting{probed: true, probe: probeFailed}, true, verdict{bypass: true}},
		{"probes fast, one hangs", 100, sighting{probed: true, probe: 1e4, located: 1}, true, verdict{bypass: true}},
		{"probes fast", ticksToReturn, sighting{probed: true, probe: 1e4, there: 1, thereNanos: fast}, false,
			verdict{bypass: true}},
		{"probes fast for a moment", ticksToReturn - 1, sighting{probed: true, probe: 1e4}, true, verdict{bypass: true}},
	} {
		v := c.first
		for range c.n {
			v.tick(c.see)
		}
		if v.bypass != c.bypass {
			t.Errorf("%s: bypass is %v; %+v", c.name, v.bypass, v)
		}
	}
}
