package node

import (
	"context"
	"fmt"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/proxy"
	"vstor/dataplane/volume/sco"
)

// candidates looks closer at the objects that no whole manifest names: at all of them, or, where the
// metadata store lost nothing, at those that it or the map names.
func (c *checker) candidates(ctx context.Context, s *space, h *history) error {
	numbers := h.numbers()
	census := c.census()
	for i, n := range s.orphans {
		if i%1000 == 999 {
			c.progress("vDisk %s: %d of %d objects without a manifest", s.Name, i+1, len(s.orphans))
		}
		if _, named := numbers[n]; h.intact && !named {
			continue
		}
		held, err := census.Object(s.ID, n)
		if err != nil {
			return err
		}
		for _, put := range proxy.Puts(held) {
			cand, err := candidateOf(ctx, census, put)
			if err != nil {
				return err
			}
			h.cands = append(h.cands, cand)
			s.epoch = max(s.epoch, cand.Epoch)
		}
	}
	return nil
}

// candidateOf judges one put. What is wrong with it is part of the answer.
func candidateOf(ctx context.Context, census *proxy.Census, put []proxy.Held) (candidate, error) {
	k := put[0].Info.Key
	c := candidate{SCO: k.SCO, Object: proxy.Object{Put: k.Put}}
	m, err := census.Assemble(ctx, put)
	if ctx.Err() != nil {
		return c, errs.Wrap(errs.Canceled, ctx.Err(), "fsck was given up")
	}
	c.Whole = err == nil
	if err != nil {
		c.Why = err.Error()
		if m, err = census.Sketch(ctx, put); err != nil {
			return c, nil
		}
	}
	c.Object = proxy.ObjectOf(m)
	return c, nil
}

// cleaned reports whether there is a cleaning SCO.
func (s *space) cleaned(h *history) bool {
	for _, o := range s.rec.Objects {
		if o.Kind == layout.KindCleaning {
			return true
		}
	}
	for _, o := range h.cands {
		if o.Kind == layout.KindCleaning {
			return true
		}
	}
	return false
}

// joinLog lets the history ask the journal.
func (c *checker) joinLog(ctx context.Context, s *space, h *history) error {
	if c.logs == nil {
		var err error
		if c.logs, err = c.readLogs(); err != nil {
			return err
		}
	}
	log := c.logs[s.ID]
	h.log = log
	h.agrees = func(cand *candidate) bool {
		head, index, err := c.readIndex(ctx, s, cand)
		if err != nil {
			c.find("vDisk %s: SCO %d cannot be read: %v", s.Name, cand.SCO, err)
			return false
		}
		return log.agrees(&head, index)
	}
	return nil
}

// readIndex reads header and index of an object that has no manifest.
func (c *checker) readIndex(ctx context.Context, s *space, cand *candidate) (head sco.Header, index []byte, err error) {
	m, err := assemble(ctx, c.census(), s.ID, cand.SCO, cand.Put)
	if err != nil {
		return head, nil, err
	}
	first := make([]byte, ids.BlockSize)
	if err = c.px.Get(ctx, m, 0, first); err != nil {
		return head, nil, err
	}
	if head, err = sco.ParseHeader(first); err != nil {
		return head, nil, err
	}
	if head.Volume != s.ID || head.SCO != cand.SCO {
		return head, nil, errs.New(errs.Corrupt, "it says that it is SCO %d of vDisk %d", head.SCO, head.Volume)
	}
	index = make([]byte, (head.DataStart()-1)*ids.BlockSize)
	if len(index) > 0 {
		err = c.px.Get(ctx, m, ids.BlockSize, index)
	}
	return head, index, err
}

// assemble makes the manifest of a put of an object.
func assemble(ctx context.Context, census *proxy.Census, ns ids.NamespaceID, n ids.SCONum, put ids.PutID) (
	*layout.Manifest, error) {
	held, err := census.Object(ns, n)
	if err != nil {
		return nil, err
	}
	for _, p := range proxy.Puts(held) {
		if p[0].Info.Key.Put == put {
			return census.Assemble(ctx, p)
		}
	}
	return nil, errs.New(errs.Absent, "put %d of SCO %d/%d is not there any more", put, ns, n)
}

// judge turns a verdict into sentences, and numbers that lag behind into new ones.
func (c *checker) judge(s *space) {
	v := s.verdict
	s.row.Rebuilt, s.row.Lost = len(v.restore), len(v.lost)
	for _, r := range v.restore {
		s.row.Leftover -= s.orphaned[r.SCO]
		c.find("vDisk %s: the manifest of SCO %d (commit %d) is lost or damaged; the ASDs have what is needed to make it",
			s.Name, r.SCO, r.Commit)
	}
	for n, commit := range v.commits {
		c.find("vDisk %s: the manifest of SCO %d has another commit number than %d", s.Name, n, commit)
	}
	for commit, n := range v.order {
		if !v.restores(n, commit) {
			c.find("vDisk %s: commit %d is not entered as what it was (SCO %d)", s.Name, commit, n)
		}
	}
	for _, n := range v.drop {
		c.find("vDisk %s: the manifest of SCO %d names what was deleted (an older copy of the metadata store?)",
			s.Name, n)
	}
	for _, l := range v.lost {
		c.find("vDisk %s: SCO %d (commit %d) is lost: %s", s.Name, l.SCO, l.Commit, l.Why)
	}
	s.renumber(c)
	if gone := c.unopened(); len(gone) > 0 && len(v.lost) > 0 {
		s.block(c, "some of it is only on ASDs that do not open: %v; bring them back first", gone)
	}
}

func (v *verdict) restores(n ids.SCONum, commit ids.CommitNum) bool {
	for _, r := range v.restore {
		if r.SCO == n && r.Commit == commit {
			return true
		}
	}
	return false
}

// renumber raises the numbers that would be given out a second time.
func (s *space) renumber(c *checker) {
	next := func(cell proxy.Cell, used uint64, top uint64) uint64 {
		if cell.Err == nil && cell.Value >= used || used == 0 && errs.Of(cell.Err) == errs.Absent {
			return 0
		}
		return min(used+margin, top)
	}
	put, sco := uint64(s.put), uint64(s.sco)
	if put > 0 {
		put++
	}
	if sco > 0 {
		sco++
	}
	const top32 = 1<<32 - 1
	s.spacePlan.epoch = ids.Epoch(next(s.rec.Owner, uint64(s.epoch), 1<<63))
	s.spacePlan.put = ids.PutID(next(s.rec.Puts, put, top32))
	s.spacePlan.sco = ids.SCONum(next(s.rec.SCOs, sco, top32))
	var what string
	for _, x := range []struct {
		name string
		v    uint64
	}{{"epoch", uint64(s.spacePlan.epoch)}, {"put id", uint64(s.spacePlan.put)}, {"SCO number", uint64(s.spacePlan.sco)}} {
		if x.v != 0 {
			what += fmt.Sprintf(", %s %d", x.name, x.v)
		}
	}
	if what != "" {
		c.find("vDisk %s: numbers are lost or behind those in use; new ones begin at%s", s.Name, what[1:])
	}
}
