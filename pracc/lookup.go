package pracc

import (
	"context"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// askedEvery is how long after a manifest was asked for because a fragment was missing it is not asked for
// again for that reason.
const askedEvery = int64(1e9)

// lookup is one question to Manifests, for all fetches that wait for the same object. It is made by
// the loop, handed to a goroutine, and posted back as a message; in between the goroutine alone
// touches m and err.
type lookup struct {
	c       *Client
	key     objKey
	waiting fetchList
	// late are fetches that failed with a manifest that may be newer than what this question is going to
	// bring: a new one is asked for them when this is answered.
	late      fetchList
	running   bool
	forgotten bool // Forget was called meanwhile: the answer is not kept
	next      *lookup

	m   *layout.Manifest
	err error
}

// miss makes f wait for its manifest.
func (c *Client) miss(f *Fetch) {
	c.stats.Misses.Inc()
	c.lookupOf(objKey{f.NS, f.SCO}).waiting.push(f)
	c.startLookups()
}

// refresh makes f, which failed, wait for what its manifest is now.
func (c *Client) refresh(f *Fetch) {
	c.stats.Refreshes.Inc()
	q := c.lookupOf(objKey{f.NS, f.SCO})
	if q.running {
		q.late.push(f)
	} else {
		q.waiting.push(f)
	}
	c.startLookups()
}

// suspect asks for the manifest in the background: the fragment that it names is not there, which is
// served by a rebuild, but a repair may have given the fragment a new version in another place.
func (c *Client) suspect(e *entry) {
	now := c.now()
	if c.closing || (e.asked != 0 && now-e.asked < askedEvery) || c.nlookups >= lookupsMax {
		return
	}
	e.asked = now
	c.lookupOf(e.key)
	c.startLookups()
}

// lookupsMax bounds the questions that wait without a fetch that waits for them.
const lookupsMax = 256

// lookupOf finds the question about an object that is not answered yet, or puts one in line.
func (c *Client) lookupOf(key objKey) *lookup {
	q := c.lookups[key]
	if q != nil {
		return q
	}
	q = &lookup{c: c, key: key}
	c.lookups[key] = q
	c.nlookups++
	if c.lookupHead == nil {
		c.lookupHead = q
	} else {
		c.lookupTail.next = q
	}
	c.lookupTail = q
	return q
}

// startLookups asks the next questions in line, as many as goroutines are allowed.
func (c *Client) startLookups() {
	for c.asking < c.opt.Lookups && c.lookupHead != nil {
		q := c.lookupHead
		c.lookupHead, q.next = q.next, nil
		q.running = true
		c.asking++
		c.stats.Lookups.Inc()
		go q.ask()
	}
}

// ask runs in a goroutine of its own. If the loop has stopped, nobody waits for the answer any more.
func (q *lookup) ask() {
	ctx, cancel := context.WithTimeout(q.c.ctx, q.c.opt.LookupTimeout)
	defer cancel()
	q.m, q.err = q.c.opt.Manifests.Manifest(ctx, q.key.ns, q.key.sco)
	q.c.loop.Post(q)
}

// RunOnLoop implements ring.Message: the answer is here.
func (q *lookup) RunOnLoop() {
	c := q.c
	c.asking--
	delete(c.lookups, q.key)
	c.nlookups--
	e, kind := q.answer()
	if e != nil && !q.forgotten && !c.closing {
		e = c.keep(e)
	} else if kind == errs.Absent {
		c.forget(q.key)
	}
	for f := q.waiting.pop(); f != nil; f = q.waiting.pop() {
		c.answered(f, e, kind)
	}
	for f := q.late.pop(); f != nil; f = q.late.pop() {
		if c.closing {
			c.answered(f, nil, errs.Closed)
			continue
		}
		c.lookupOf(q.key).waiting.push(f)
	}
	c.startLookups()
	c.settle()
}

// answer is what the authority said, in our terms.
func (q *lookup) answer() (*entry, errs.Kind) {
	switch kind := errs.Of(q.err); {
	case q.c.closing:
		return nil, errs.Closed
	case kind == errs.Absent:
		return nil, errs.Absent
	case kind != errs.OK || q.m == nil:
		return nil, errs.Unreachable // also when it ran into the timeout
	case q.m.Namespace != q.key.ns || q.m.SCO != q.key.sco:
		return nil, errs.Corrupt
	}
	return resolve(q.m, q.c.opt.MaxFragments), errs.OK
}

// answered goes on with a fetch that waited.
func (c *Client) answered(f *Fetch, e *entry, kind errs.Kind) {
	first := f.Err == errs.OK // it had not failed before
	switch {
	case c.closing:
		f.Err = errs.Closed
	case kind == errs.Absent || (kind != errs.OK && first):
		f.Err = kind
	case kind == errs.OK && (first || !e.same(f.ent)):
		if !first {
			c.stats.Retries.Inc()
		}
		f.Err = errs.OK
		c.admit(f, e)
		return
	case c.park(f):
		return
	}
	c.ended.push(f)
}

// keep puts e in the cache unless what is there is newer, and returns what is there then.
func (c *Client) keep(e *entry) *entry {
	if old := c.cache.table[e.key]; old != nil {
		if old.put == e.put && old.version >= e.version {
			return old
		}
		e.asked = old.asked
	}
	c.cache.put(e)
	c.cacheChanged()
	return e
}

// Install puts the manifest of an object in the cache, so that the first read of an object just committed,
// or amended by a repair, is no miss. m is only read, and not kept.
func (c *Client) Install(m *layout.Manifest) {
	if !c.closing {
		c.keep(resolve(m, c.opt.MaxFragments))
	}
}

// Known reports whether the manifest of an object is in the cache.
func (c *Client) Known(ns ids.NamespaceID, sco ids.SCONum) bool {
	return c.cache.table[objKey{ns, sco}] != nil
}

// Forget drops what is known of a deleted object. Fetches under way go on with what they have.
func (c *Client) Forget(ns ids.NamespaceID, sco ids.SCONum) {
	k := objKey{ns, sco}
	if q := c.lookups[k]; q != nil {
		q.forgotten = true
	}
	c.forget(k)
}

func (c *Client) forget(key objKey) {
	if e := c.cache.table[key]; e != nil {
		c.cache.drop(e)
		c.cacheChanged()
	}
}

func (c *Client) cacheChanged() {
	c.stats.CacheBytes.Set(c.cache.bytes)
	c.stats.CacheEntries.Set(int64(len(c.cache.table)))
	if n := c.cache.evicted; n > 0 {
		c.stats.Evictions.Add(n)
		c.cache.evicted = 0
	}
}
