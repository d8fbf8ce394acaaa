package node

import (
	"cmp"
	"context"
	"slices"

	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/proxy"
)

// located is a fragment on an ASD, or the lack of one.
type located struct {
	key layout.FragKey
	asd ids.ASDID
}

// planDamage plans to mark the damaged fragments that a vDisk needs: those that manifests which stay name, and those
// of manifests that are made again or cannot be. The others go anyway, and are no fault: a power cut in the midst of
// a delete may leave one whose header is half overwritten, and until a start deletes it again it looks like any
// other damage.
func (c *checker) planDamage(ctx context.Context, p *fsckPlan, s *space) error {
	if s.blocked != "" {
		c.planAllDamage(p, s.ID)
		return nil
	}
	for _, l := range s.damaged {
		if _, dropped := slices.BinarySearch(s.verdict.drop, l.key.SCO); !dropped {
			p.damage(l)
		}
	}
	for _, r := range s.verdict.restore {
		if c.bad[objectKey{s.ID, r.SCO}] == nil {
			continue
		}
		m, err := assemble(ctx, c.census(), s.ID, r.SCO, r.Put)
		if err != nil {
			return err
		}
		for _, l := range c.namedDamage(m) {
			p.damage(l)
		}
	}
	for _, lost := range s.verdict.lost {
		for _, l := range c.bad[objectKey{s.ID, lost.SCO}] {
			p.damage(l)
		}
	}
	return nil
}

// planAllDamage is planDamage where nobody knows what is needed.
func (c *checker) planAllDamage(p *fsckPlan, ns ids.NamespaceID) {
	for o, list := range c.bad {
		if o.ns == ns {
			p.bad[o] = list
		}
	}
}

func (p *fsckPlan) damage(l located) {
	o := objectKey{l.key.Namespace, l.key.SCO}
	p.bad[o] = append(p.bad[o], l)
}

// namedDamage lists the damaged fragments of an object that its manifest counts on.
func (c *checker) namedDamage(m *layout.Manifest) (out []located) {
	for _, l := range c.bad[objectKey{m.Namespace, m.SCO}] {
		if proxy.Names(m, l.key, l.asd) {
			out = append(out, l)
		}
	}
	return out
}

// findDamaged notes the fragments that are damaged.
func (c *checker) findDamaged(bad map[objectKey][]located) {
	var all []located
	for _, list := range bad {
		all = append(all, list...)
	}
	slices.SortFunc(all, func(a, b located) int {
		return cmp.Or(cmp.Compare(a.asd, b.asd), a.key.Compare(b.key))
	})
	for _, l := range all {
		c.find("fragment %v on ASD %d is damaged", l.key, l.asd)
	}
}
