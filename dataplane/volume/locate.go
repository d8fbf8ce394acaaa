package volume

import (
	"vstor/dataplane/block"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/volume/overlay"
)

// Locate says where the blocks from addr on lie, for those who keep the answer. What the overlay knows of is
// layout.OffAsk, zeros too: it may be newer than any committed object, and what is not committed may be gone after
// a power loss. False means that a page of the map is not in RAM: it is being loaded, and l is told. On the loop.
func (v *Volume) Locate(addr ids.BlockAddr, out []layout.Location, l block.Loaded) bool {
	empty := v.ov.Empty()
	for i := range out {
		a := addr + ids.BlockAddr(i)
		if !empty {
			if kind, _ := v.ov.Lookup(a); kind != overlay.Unknown {
				out[i] = layout.Location{Off: layout.OffAsk}
				continue
			}
		}
		loc, ok := v.m.Lookup(a)
		if !ok {
			v.loadPage(a, l)
			return false
		}
		out[i] = loc
	}
	return true
}

// Namespace is where a location's object lies.
func (v *Volume) Namespace(loc layout.Location) ids.NamespaceID { return v.namespace(loc) }

// Sequence is the highest one whose change is in the journal and in what Resolve and Locate say. On the loop.
func (v *Volume) Sequence() ids.Seq { return v.entered }
