package node

import (
	"context"
	"fmt"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// rotQueue bounds the fragments that wait to be looked at; more are found again when they are read again.
const rotQueue = 1024

// rot is a fragment that is not as its manifest says.
type rot struct {
	key  layout.FragKey
	asd  ids.ASDID
	kind errs.Kind
}

// onRot notes a fragment that a read found missing, failing or rotten. On a loop: it never blocks.
func (n *Node) onRot(key layout.FragKey, asd ids.ASDID, kind errs.Kind) {
	select {
	case n.rots <- rot{key, asd, kind}:
	default:
	}
}

// repairInterval is how often missing fragments are looked for.
const repairInterval = time.Minute

// maintain deletes what crashed puts left, writes missing fragments again, and repairs what reads find
// rotten, one thing at a time.
func (n *Node) maintain(ctx context.Context) {
	garbage := make(collected)
	n.collectGarbage(ctx, garbage, false)
	audited := make(audits)
	n.auditASDs(ctx, audited)
	left := n.repairMissing(ctx)
	seen := n.proxy.Counters().PutsDegraded
	tick := time.NewTicker(repairInterval)
	defer tick.Stop()
	look := time.NewTicker(auditInterval)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-n.rots:
			n.repair(ctx, r)
		case <-n.returned:
			n.collectGarbage(ctx, garbage, true)
			n.auditASDs(ctx, audited)
			left, seen = n.repairMissing(ctx), n.proxy.Counters().PutsDegraded
		case <-look.C:
			n.collectGarbage(ctx, garbage, false)
			if n.auditASDs(ctx, audited) > 0 {
				left, seen = n.repairMissing(ctx), n.proxy.Counters().PutsDegraded
			}
		case <-tick.C:
			if now := n.proxy.Counters().PutsDegraded; left > 0 || now != seen {
				left, seen = n.repairMissing(ctx), now
			}
		}
	}
}

// repairMissing writes missing fragments again, and says how many could not be.
func (n *Node) repairMissing(ctx context.Context) (left int) {
	for _, d := range n.sortedVDisks() {
		r, err := n.proxy.RepairMissing(ctx, d.ID)
		if ctx.Err() != nil {
			return left
		}
		if err != nil {
			n.log.Warn("missing fragments stay missing for now", "vdisk", d.Name, "error", err)
			r.Left++
		}
		if r.Fragments > 0 {
			n.log.Info("wrote missing fragments again", "vdisk", d.Name, "fragments", r.Fragments, "left", r.Left)
		}
		left += r.Left
	}
	return left
}

// repair has a rotten fragment written again from the others, if it is one.
func (n *Node) repair(ctx context.Context, r rot) {
	if err := n.proxy.RepairFragment(ctx, r.key); err != nil && ctx.Err() == nil {
		n.log.Warn("a damaged fragment is not repaired yet", "fragment", r.key, "asd", r.asd, "found", r.kind, "error", err)
		return
	}
	n.log.Info("looked after a damaged fragment", "fragment", r.key, "asd", r.asd, "found", r.kind)
}

// auditInterval is how often ASDs are looked at for one that was started since it was last audited.
const auditInterval = 5 * time.Second

// audits says of each ASD in which incarnation it was last audited, negative if that failed. An ASD that
// only could not be reached for a while has what it had; one that was started again may be an old copy, or
// damaged.
type audits map[ids.ASDID]int64

// auditASDs audits the ASDs that were started since their last audit, and says how many fragments they lack.
func (n *Node) auditASDs(ctx context.Context, done audits) (lacking int) {
	for _, d := range n.drives {
		s, err := d.stat()
		if err != nil || s.Incarnation == 0 || done[d.id] == s.Incarnation {
			continue
		}
		lacks, err := n.proxy.Audit(ctx, d.id)
		lacking += lacks
		if lacks > 0 {
			n.log.Warn(fmt.Sprintf("ASD %d lacks %d fragments that it should have (an older copy of it, or damage?); "+
				"they are written again from the others", d.id, lacks), "asd", d.id)
		}
		switch {
		case err == nil:
			done[d.id] = s.Incarnation
		case ctx.Err() == nil && done[d.id] != -s.Incarnation:
			done[d.id] = -s.Incarnation // said once
			n.log.Warn("an ASD could not be audited; it is tried again", "asd", d.id, "error", err)
		}
	}
	return lacking
}
