package volume

import (
	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/volume/overlay"
)

// Resolve says where n blocks from addr lie: what the overlay knows is newest, the map knows the rest.
// False means that a page of the map is not in RAM: it is being loaded, and l is told. On the loop.
func (v *Volume) Resolve(addr ids.BlockAddr, n int, r *block.Resolution, l block.Loaded) bool {
	empty := v.ov.Empty()
	for i := range n {
		a := addr + ids.BlockAddr(i)
		if !empty {
			kind, e := v.ov.Lookup(a)
			if kind == overlay.Data {
				v.addEntry(r, e)
				continue
			}
			if kind != overlay.Unknown {
				r.Add(block.Piece{Kind: block.Zeros}, 0)
				continue
			}
		}
		loc, ok := v.m.Lookup(a)
		if !ok {
			v.loadPage(a, l)
			return false
		}
		if loc.Hole() {
			r.Add(block.Piece{Kind: block.Zeros}, 0)
			continue
		}
		r.Add(block.Piece{Kind: block.Stored, NS: v.namespace(loc), SCO: loc.SCO, Off: loc.Off}, loc.Sum)
	}
	return true
}

// addEntry shares the page of a block that is in RAM, unless very many have it already: any number of clients may ask
// for one block and not take the answer, and references are counted in 16 bits. They are given the journal's copy.
func (v *Volume) addEntry(r *block.Resolution, e *overlay.Entry) {
	if e.Page != 0 && v.pool.Refs(e.Page) < buf.RefsMost {
		r.Add(block.Piece{Kind: block.InRAM, Page: e.Page}, e.Sum)
		return
	}
	r.Add(block.Piece{Kind: block.Logged, Pos: e.Pos}, e.Sum)
}

// namespace is where a location's object lies. Index 0 of every clone family's table is the vDisk's own.
func (v *Volume) namespace(layout.Location) ids.NamespaceID { return v.opts.ID }
