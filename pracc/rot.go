package pracc

import (
	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
)

// Reports of rotten fragments are remembered in rotSlots places by hash of the key.
const (
	rotSlots = 64
	rotEvery = int64(10e9)
)

type rotSlot struct {
	key   layout.FragKey
	kind  errs.Kind
	until int64 // on the loop's clock
}

// rotSlotOf is the one place where a key may be remembered.
func (c *Client) rotSlotOf(key layout.FragKey) *rotSlot {
	h := uint64(key.Namespace)*0x9e3779b97f4a7c15 + uint64(key.SCO)
	h = h*0x9e3779b97f4a7c15 + uint64(key.Chunk)<<16 + uint64(key.Frag)<<8 + uint64(key.Version)
	h *= 0x9e3779b97f4a7c15
	return &c.rots[h>>32%rotSlots]
}

// rotten reports whether bytes of the fragment failed lately, as far as it is remembered.
func (c *Client) rotten(key layout.FragKey, now int64) bool {
	s := c.rotSlotOf(key)
	return s.kind == errs.Corrupt && now < s.until && s.key == key
}

// faulty acts on a fragment that is not as the manifest says.
func (c *Client) faulty(e *entry, chunk, frag int, kind errs.Kind) {
	if c.closing {
		return
	}
	switch kind {
	case errs.Absent:
		c.suspect(e)
	case errs.Corrupt, errs.IO:
	case errs.Invalid:
		kind = errs.Corrupt // it is shorter than its manifest says
	default:
		return
	}
	key := e.fragKey(chunk, frag)
	slot, now := c.rotSlotOf(key), c.now()
	if slot.key == key && now < slot.until {
		return
	}
	*slot = rotSlot{key, kind, now + rotEvery}
	if c.opt.OnRot != nil {
		c.opt.OnRot(key, e.frag(chunk, frag).asd, kind)
	}
}
