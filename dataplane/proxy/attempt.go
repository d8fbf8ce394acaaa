package proxy

import (
	"context"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/invariants"
	"vstor/dataplane/layout"
)

// slot is one of the k+m places of an object; its ASD takes one fragment of every chunk.
type slot struct {
	asd *ASD  // nil: nobody
	err error // guarded by Pending.mu: why the slot takes nothing any more
	lag int   // guarded by Pending.mu: fragments that the put no longer waits for
}

// chunk is the state of one chunk's writes. Guarded by Pending.mu.
type chunk struct {
	lease   *lease
	started time.Time // when the writes were handed out
	enough  time.Time // when the c-th was done
	written int
	out     int
	passed  bool    // the put no longer waits
	writing []uint8 // the fragments that are out
}

// run codes and writes chunk by chunk. While one chunk is written the next is coded; the third waits, so
// one put holds two leases at most. It returns nil when every chunk has c fragments on ASDs and was
// given its grace.
//
// A put never blocks on a lease while it holds one: many puts with one each would wait for each other
// for ever, since a lease is given up only by the put that waits here. If there is no second one to be
// had, the chunk before is finished first, and nothing overlaps.
func (p *Pending) run(ctx context.Context) error {
	start := time.Now()
	waited := -1 // last chunk that was awaited
	for i := range p.chunks {
		l := p.px.mem.tryLease()
		if l == nil {
			if i > 0 {
				if err := p.await(ctx, i-1, start); err != nil {
					return err
				}
				waited = i - 1
			}
			var err error
			if l, err = p.px.mem.lease(ctx); err != nil {
				return err
			}
		}
		if err := p.codeAndWrite(ctx, l, i); err != nil {
			return err
		}
		if waited < i-1 {
			if err := p.await(ctx, i-1, start); err != nil {
				return err
			}
			waited = i - 1
		}
	}
	return p.await(ctx, len(p.chunks)-1, start)
}

// codeAndWrite codes chunk i and hands its fragments to the ASDs. The lease is the chunk's from here on.
func (p *Pending) codeAndWrite(ctx context.Context, l *lease, i int) error {
	n := p.man.Policy.N()
	t := &codeTask{codec: p.codec, src: p.spec.Source, geo: p.geo, chunk: i,
		frags: make([]*fragBuf, n), sums: make([]uint64, n), done: make(chan struct{})}
	err := p.takeBuffers(l, t)
	if err == nil {
		err = p.code(ctx, t)
	}
	if err != nil {
		for _, fb := range t.frags {
			if fb != nil {
				l.put(fb)
			}
		}
		l.pass()
		return err
	}
	p.write(l, t)
	p.spec.Source.Coded(int64(i+1) * p.geo.ChunkLen)
	return nil
}

// takeBuffers gets a buffer for each fragment that has somebody to take it.
func (p *Pending) takeBuffers(l *lease, t *codeTask) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	have := 0
	for f := range t.frags {
		s := &p.slots[layout.Slot(t.chunk, f, len(t.frags))]
		if s.asd == nil || s.err != nil || s.lag > 0 {
			continue
		}
		fb, err := l.get()
		if err != nil {
			return err
		}
		t.frags[f] = fb
		have++
	}
	if have < int(p.man.Policy.C) {
		return p.tooFew(t.chunk, have)
	}
	return nil
}

// tooFew is the error of a chunk that cannot reach c. REQUIRES: p.mu is held.
func (p *Pending) tooFew(i, have int) error {
	kind := errs.Unreachable
	for f := range p.slots {
		switch errs.Of(p.slots[f].err) {
		case errs.Refused: // the ASD has seen a higher epoch; no other ASD will help
			return errs.Wrap(errs.Refused, ErrFenced, "proxy: ASD refuses epoch %d: %v", p.spec.Epoch, p.slots[f].err)
		case errs.Full:
			kind = errs.Full
		}
	}
	return errs.Wrap(kind, errStores, "proxy: chunk %d of SCO %d/%d has %d of the %d fragments it needs",
		i, p.spec.Namespace, p.spec.SCO, have, p.man.Policy.C)
}

// code waits for a worker, and then for its work, which holds the buffers, whatever happens to ctx.
func (p *Pending) code(ctx context.Context, t *codeTask) error {
	select {
	case p.px.coder.tasks <- t:
	case <-ctx.Done():
		return errs.Wrap(errs.Canceled, ctx.Err(), "proxy: waiting for a coding worker")
	}
	<-t.done
	if t.err == nil && ctx.Err() != nil {
		return errs.Wrap(errs.Canceled, ctx.Err(), "proxy: put")
	}
	return t.err
}

// write hands all fragments of a coded chunk to their ASDs.
func (p *Pending) write(l *lease, t *codeTask) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := &p.chunks[t.chunk]
	c.lease, c.started = l, time.Now()
	for f, fb := range t.frags {
		p.man.Frag(t.chunk, f).Sum = t.sums[f]
		if fb != nil {
			c.out++
			p.out++
			c.writing = append(c.writing, uint8(f))
		}
	}
	for f, fb := range t.frags {
		if fb == nil {
			continue
		}
		fb.desc = p.man.AppendDescriptor(fb.desc[:0], t.chunk, f)
		s := &p.slots[layout.Slot(t.chunk, f, len(t.frags))]
		// The Put call under way holds the Proxy open, so this cannot come after Close.
		p.px.wg.Add(1)
		go func() {
			defer p.px.done()
			err := p.writeOne(s.asd, t.chunk, f, fb)
			p.offer(t.chunk, f, fb)
			p.landed(t.chunk, f, s, fb, err)
		}()
	}
}

func (p *Pending) writeOne(a *ASD, i, f int, fb *fragBuf) error {
	ctx, cancel := context.WithTimeout(p.ctx, p.px.opts.StallTimeout)
	defer cancel()
	n := int(p.geo.FragLen)
	end := layout.FragHeaderSize + n
	return a.Store.Put(ctx, &layout.FragPut{
		Key:   p.fragKey(i, f),
		Epoch: p.spec.Epoch,
		Class: p.spec.Class,
		Buf:   fb.mem[:end:end],
		Sums:  fb.sums[:layout.Regions(n)],
		Desc:  fb.desc,
	})
}

// fragKey names a fragment of this attempt.
func (p *Pending) fragKey(i, f int) layout.FragKey {
	return layout.FragKey{Namespace: p.spec.Namespace, SCO: p.spec.SCO, Put: p.man.Put, Chunk: uint16(i), Frag: uint8(f)}
}

// landed notes the end of a fragment's write.
func (p *Pending) landed(i, f int, s *slot, fb *fragBuf, err error) {
	px := p.px
	p.mu.Lock()
	c := &p.chunks[i]
	c.lease.put(fb)
	c.out--
	p.out--
	for j, w := range c.writing {
		if w == uint8(f) {
			c.writing = append(c.writing[:j], c.writing[j+1:]...)
			break
		}
	}
	if c.passed {
		s.lag--
		px.addLag(s.asd.ID, -1)
		px.count.fragsLate.Add(1)
	}
	if err != nil {
		if s.err == nil {
			s.err = err
		}
		px.count.fragsFailed.Add(1)
	} else {
		p.man.Frag(i, f).State = layout.FragPresent
		c.written++
		if c.written == int(p.man.Policy.C) {
			c.enough = time.Now()
		}
		px.count.fragsWritten.Add(1)
		px.count.fragBytes.Add(p.geo.FragLen)
	}
	todo := p.afterLanding(i, f, err == nil)
	p.mu.Unlock()
	if todo != nil {
		todo()
	}
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// await waits until chunk i is good enough, and lets go of the rest.
func (p *Pending) await(ctx context.Context, i int, start time.Time) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		wait, err := p.verdict(i, start)
		if wait <= 0 || err != nil {
			return err
		}
		timer.Reset(wait)
		select {
		case <-p.changed:
		case <-timer.C:
		case <-ctx.Done():
			return errs.Wrap(errs.Canceled, ctx.Err(), "proxy: put of SCO %d/%d", p.spec.Namespace, p.spec.SCO)
		}
	}
}

// verdict says how long chunk i should be waited for at most; 0: no longer, it is good.
func (p *Pending) verdict(i int, start time.Time) (time.Duration, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c, need := &p.chunks[i], int(p.man.Policy.C)
	now := time.Now()
	if c.written+c.out < need {
		return 0, p.tooFew(i, c.written)
	}
	if c.written < need {
		if left := c.started.Add(p.px.opts.StallTimeout).Sub(now); left > 0 {
			return left, nil
		}
		for _, f := range c.writing {
			s := &p.slots[layout.Slot(i, int(f), len(p.slots))]
			s.err = errs.New(errs.Unreachable, "proxy: ASD %d did not answer in %v", s.asd.ID, p.px.opts.StallTimeout)
		}
		return 0, p.tooFew(i, c.written)
	}
	if c.out > 0 {
		grace := max(p.px.opts.Grace, c.enough.Sub(start)/5)
		if left := c.enough.Add(grace).Sub(now); left > 0 {
			return left, nil
		}
	}
	p.pass(i)
	return 0, nil
}

// pass stops waiting for chunk i: the lease is given up, what is still out lags. REQUIRES: p.mu is held.
func (p *Pending) pass(i int) {
	c := &p.chunks[i]
	invariants.Assert(!c.passed, "proxy: chunk %d passed twice", i)
	c.passed = true
	for _, f := range c.writing {
		s := &p.slots[layout.Slot(i, int(f), len(p.slots))]
		s.lag++
		p.px.addLag(s.asd.ID, 1)
	}
	c.lease.pass()
}

// failures are the ASDs to avoid in another attempt.
func (p *Pending) failures() map[ids.ASDID]error {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make(map[ids.ASDID]error)
	for i := range p.slots {
		if s := &p.slots[i]; s.err != nil {
			out[s.asd.ID] = s.err
		} else if s.lag > 0 {
			out[s.asd.ID] = errs.New(errs.Unreachable, "proxy: ASD %d lags", s.asd.ID)
		}
	}
	return out
}

// drain gives the writes of a failed attempt the grace to end: an ASD that is merely at work must not be
// taken for one that hangs when the next attempt is placed.
func (p *Pending) drain(ctx context.Context) {
	timer := time.NewTimer(p.px.opts.Grace)
	defer timer.Stop()
	for p.Outstanding() > 0 {
		select {
		case <-p.changed:
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}
