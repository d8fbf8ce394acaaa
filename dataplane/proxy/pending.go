package proxy

import (
	"context"
	"errors"
	"sync"

	"vstor/dataplane/erasure"
	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
	"vstor/dataplane/meta"
)

// phase is where a Pending stands.
//
//	open ---Commit---> committing ---> committed ---> (nothing out, manifest amended) settled
//	  |                    | error
//	  |<-------------------+
//	  +---Abandon----> abandoned ---> (nothing out, condemned and deleted) settled
type phase uint8

const (
	phaseOpen phase = iota
	phaseCommitting
	phaseCommitted
	phaseAbandoned
)

// Pending is an object that was put and waits for its Commit, or for its last fragments after it. Safe
// for concurrent use.
type Pending struct {
	px    *Proxy
	spec  PutSpec
	codec *erasure.Codec
	geo   layout.Geometry

	ctx     context.Context // of the fragment writes; ends with the Proxy, or when abandoned
	cancel  context.CancelFunc
	changed chan struct{} // a write landed
	settled chan struct{}

	mu       sync.Mutex
	man      *layout.Manifest // guarded by mu: sums and states; the rest is constant
	slots    []slot
	chunks   []chunk
	out      int   // guarded by mu: fragment writes under way
	phase    phase // guarded by mu
	dirty    bool  // guarded by mu: landed since the manifest was last written
	cleaning bool  // guarded by mu: amend, or the clean-up, is running
	isDone   bool  // guarded by mu: settled is closed
}

// Manifest is a copy of the manifest as it stands.
func (p *Pending) Manifest() *layout.Manifest {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.man.Clone()
}

// Missing is how many fragments are not on their ASDs, now.
func (p *Pending) Missing() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.man.Missing())
}

// Outstanding is how many fragment writes are still under way.
func (p *Pending) Outstanding() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out
}

// Settled is closed once nothing more will happen: no write is under way, and what landed is in the
// manifest, or cleaned up after Abandon. Before Commit or Abandon it stays open, and it may stay open
// for ever once the Proxy is closed.
func (p *Pending) Settled() <-chan struct{} { return p.settled }

// Commit makes the object exist: one transaction that asserts the owner's epoch, that the put id is not
// condemned and that the SCO has no manifest, and writes this one. The caller commits write SCOs in
// seal order. It may be called again after an error that left the outcome open; a commit that did
// happen is then found. Errors: Refused with ErrFenced, Canceled with ErrCondemned, Exists if the
// SCO has another manifest; after those, Abandon. Others as the metadata store has them.
func (p *Pending) Commit(ctx context.Context) error {
	p.mu.Lock()
	if p.phase != phaseOpen {
		defer p.mu.Unlock()
		if p.phase == phaseCommitted {
			return nil
		}
		return errs.New(errs.Invalid, "proxy: commit of a put that is abandoned or being committed")
	}
	p.phase, p.dirty = phaseCommitting, false
	m := p.man.Clone()
	p.mu.Unlock()

	err := p.px.commit(ctx, m)

	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.phase = phaseOpen
		return err
	}
	p.phase = phaseCommitted
	p.px.count.commits.Add(1)
	if p.dirty {
		p.startAmend()
	}
	p.checkSettled()
	return nil
}

func (px *Proxy) commit(ctx context.Context, m *layout.Manifest) error {
	mk := manifestKey(m.Namespace, m.SCO)
	t := assertOwner(new(meta.Txn), m.Namespace, m.Epoch).
		Absent(condemnedKey(m.Namespace, m.Put)).
		Absent(mk).
		Put(mk, m.Append(nil))
	if m.Commit != 0 {
		ok := orderKey(m.Namespace, m.Commit)
		t.Absent(ok).Put(ok, encodeCell(keyOrder, uint64(m.SCO)))
		t.Put(nsKey(keyLast, m.Namespace), encodeCell(keyLast, uint64(m.Commit)))
	}
	err := px.opts.Meta.Apply(ctx, t)
	switch conflict(err) {
	case 0, 1, 2, 3:
		// The first two may hold no more after a commit of ours that came through: it stands.
		if old, _, e := px.manifest(ctx, m.Namespace, m.SCO); e == nil && old.Put == m.Put {
			return nil
		}
		px.count.commitsRefused.Add(1)
	}
	switch conflict(err) {
	case 0:
		return fenced(m.Namespace, m.Epoch)
	case 1:
		return errs.Wrap(errs.Canceled, ErrCondemned, "proxy: put %d of SCO %d/%d", m.Put, m.Namespace, m.SCO)
	case 2:
		return errs.New(errs.Exists, "proxy: SCO %d/%d exists, from another put than %d", m.Namespace, m.SCO, m.Put)
	case 3:
		return errs.New(errs.Exists, "proxy: commit %d of namespace %d is another SCO than %d", m.Commit, m.Namespace, m.SCO)
	}
	return err
}

// Abandon gives the put up: its id is condemned and its fragments are deleted, in the background; what
// cannot be deleted now is left to CollectGarbage. Not after Commit succeeded.
func (p *Pending) Abandon() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase != phaseOpen {
		return
	}
	p.phase = phaseAbandoned
	for i := range p.chunks {
		if c := &p.chunks[i]; c.lease != nil && !c.passed {
			p.pass(i)
		}
	}
	p.cancel()
	p.cleaning = true
	if !p.px.background(p.cleanUp) {
		p.cleaning = false
	}
}

// cleanUp condemns the put and deletes what is on the ASDs. Fragments that land later delete themselves.
func (p *Pending) cleanUp() {
	ctx, cancel := context.WithTimeout(p.px.ctx, p.px.opts.StallTimeout)
	defer cancel()
	p.mu.Lock()
	m := p.man.Clone()
	p.mu.Unlock()
	err := p.px.condemn(ctx, m.Namespace, m.SCO, m.Put, m.Epoch)
	if err == nil || errors.Is(err, ErrFenced) { // fenced: epochs only grow, so it can never be committed
		err = p.px.deleteFragments(ctx, p.px.keysByASD(m))
	}
	if err != nil && p.px.ctx.Err() == nil {
		p.px.opts.Log("proxy: cleaning up put %d of SCO %d/%d: %v", m.Put, m.Namespace, m.SCO, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cleaning = false
	p.checkSettled()
}

// afterLanding decides what a landed fragment asks for; the caller runs the result without the lock.
// REQUIRES: p.mu is held.
func (p *Pending) afterLanding(i, f int, ok bool) func() {
	switch {
	case p.phase == phaseAbandoned && ok:
		return func() { p.deleteLate(i, f) }
	case p.phase == phaseCommitted && ok:
		p.dirty = true
		p.startAmend()
	case ok:
		p.dirty = true
	}
	p.checkSettled()
	return nil
}

// deleteLate removes a fragment that landed after its put was given up. The put id may not be condemned
// yet, but this process, the only one that could commit it, will not.
func (p *Pending) deleteLate(i, f int) {
	a := p.slots[layout.Slot(i, f, len(p.slots))].asd
	ctx, cancel := context.WithTimeout(p.px.ctx, p.px.opts.StallTimeout)
	defer cancel()
	k := layout.FragKey{Namespace: p.spec.Namespace, SCO: p.spec.SCO, Put: p.man.Put, Chunk: uint16(i), Frag: uint8(f)}
	if err := a.Store.Delete(ctx, []layout.FragKey{k}); err == nil {
		p.px.count.garbage.Add(1)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.checkSettled()
}

// startAmend starts the task that enters late fragments, unless it runs. REQUIRES: p.mu is held.
func (p *Pending) startAmend() {
	if p.cleaning {
		return
	}
	p.cleaning = true
	if !p.px.background(p.amend) {
		p.cleaning = false // closing: repair will find the fragments at their places
	}
}

// amend brings the committed manifest up to what landed, until nothing more did.
func (p *Pending) amend() {
	for {
		p.mu.Lock()
		if !p.dirty {
			p.cleaning = false
			p.checkSettled()
			p.mu.Unlock()
			return
		}
		p.dirty = false
		m := p.man.Clone()
		p.mu.Unlock()
		if err := p.px.enterLanded(p.px.ctx, m); err != nil && p.px.ctx.Err() == nil {
			// Not lost: repair looks at the places of missing fragments before it writes them.
			p.px.opts.Log("proxy: amending SCO %d/%d: %v", m.Namespace, m.SCO, err)
		}
	}
}

// checkSettled closes settled when nothing more can happen. REQUIRES: p.mu is held.
func (p *Pending) checkSettled() {
	if p.isDone || p.out > 0 || p.cleaning || p.phase < phaseCommitted || p.phase == phaseCommitted && p.dirty {
		return
	}
	p.isDone = true
	p.cancel()
	p.px.endFlight(p)
	close(p.settled)
}
