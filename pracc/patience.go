package pracc

import (
	"time"

	"vstor/dataplane/errs"
)

// parkedFor is how long a fetch rests that failed because too few ASDs could be asked. After every
// parksPerRefresh rests its manifest is asked for anew: a repair may have moved what it lacks.
const (
	parkedFor       = 50 * time.Millisecond
	parksPerRefresh = 20
)

// park lets a failed fetch rest and begin anew, as long as what it lacks are answers and its patience
// lasts; else false. Rebuilding goes round ASDs that are slow or gone, but when a busy machine makes all of
// them slow there is no way round, and an error that a moment would have spared is the worst answer.
func (c *Client) park(f *Fetch) bool {
	if f.Err != errs.Unreachable || f.ent == nil || c.closing {
		return false
	}
	silent, hopeless := c.silence(f.ent)
	switch {
	case c.now()-f.since >= int64(c.opt.Patience):
		for _, t := range silent {
			t.hopeless = true
		}
		return false
	case hopeless:
		return false
	}
	c.stats.Parked.Inc()
	if f.parks++; f.parks%parksPerRefresh == 0 {
		f.refreshed = 0
	}
	c.parked.push(f)
	if !c.unpark.Armed() {
		c.loop.After(&c.unpark, parkedFor)
	}
	return true
}

// silence lists the ASDs of an object that cannot be asked now, and reports whether there are any and somebody
// has waited in vain for each of them: who reads a whole disk without them must not wait for every block.
func (c *Client) silence(e *entry) (silent []*target, hopeless bool) {
	hopeless = true
	for _, ref := range e.frags[:e.n] { // all chunks lie on the same ASDs
		if ref.state != refASD {
			continue
		}
		if c.opt.Remotes == nil || c.opt.Remotes(ref.asd) == nil {
			continue // nobody knows it, and waiting will not change that
		}
		if _, rm := c.reach(ref.asd); rm != nil {
			continue
		}
		t := c.targetOf(ref.asd)
		silent = append(silent, t)
		hopeless = hopeless && t.hopeless
	}
	return silent, hopeless && len(silent) > 0
}

// unparkAll is the timer's: those that rested begin anew.
func (c *Client) unparkAll() {
	l := c.parked.take()
	for f := l.pop(); f != nil; f = l.pop() {
		f.Err = errs.OK
		e := c.cache.get(f.ent.key)
		if e == nil {
			e = f.ent
		}
		c.admit(f, e)
	}
	c.settle()
}
