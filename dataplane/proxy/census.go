package proxy

import (
	"context"
	"slices"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// Surveyor is what a census needs of an ASD. asd/store satisfies it.
type Surveyor interface {
	// List returns, in key order, up to limit fragments behind after; the zero key begins at the first.
	List(after layout.FragKey, limit int) ([]layout.FragInfo, error)
	// Describe appends the descriptor of a fragment to dst. Errors: Absent, Corrupt, IO.
	Describe(ctx context.Context, key layout.FragKey, dst []byte) ([]byte, error)
}

// Surveyed is one ASD of a census.
type Surveyed struct {
	ID    ids.ASDID
	Store Surveyor
}

// Held is a fragment that an ASD has.
type Held struct {
	ASD  ids.ASDID
	Info layout.FragInfo
}

// Census goes through the fragments of all ASDs at once, object by object, in key order. It holds a page of
// keys per ASD and the fragments of one object. One goroutine.
type Census struct {
	asds    []Surveyed
	streams []infoStream
	held    []Held
	desc    []byte
}

// infoStream gives what one ASD lists, a page at a time.
type infoStream struct {
	page []layout.FragInfo
	last layout.FragKey
	end  bool
}

// NewCensus starts at the first object.
func NewCensus(asds []Surveyed) *Census {
	return &Census{asds: asds, streams: make([]infoStream, len(asds)), desc: make([]byte, 0, layout.DescMax)}
}

func (s *infoStream) fill(a *Surveyed) error {
	if len(s.page) > 0 || s.end {
		return nil
	}
	page, err := a.Store.List(s.last, listPage)
	if err != nil {
		return errs.Wrap(errs.Of(err), err, "proxy: listing ASD %d", a.ID)
	}
	if s.page, s.end = page, len(page) == 0; !s.end {
		s.last = page[len(page)-1].Key
	}
	return nil
}

// Peek names the next object; false at the end.
func (c *Census) Peek() (ns ids.NamespaceID, sco ids.SCONum, ok bool, err error) {
	for i := range c.streams {
		s := &c.streams[i]
		if err := s.fill(&c.asds[i]); err != nil {
			return 0, 0, false, err
		}
		if s.end {
			continue
		}
		k := s.page[0].Key
		if !ok || k.Namespace < ns || k.Namespace == ns && k.SCO < sco {
			ns, sco, ok = k.Namespace, k.SCO, true
		}
	}
	return ns, sco, ok, nil
}

// Next takes all fragments of the next object, of every put of it, in key order; nil at the end. The slice
// is the Census's, until the next call.
func (c *Census) Next() ([]Held, error) {
	ns, sco, ok, err := c.Peek()
	if err != nil || !ok {
		return nil, err
	}
	c.held = c.held[:0]
	for i := range c.streams {
		s := &c.streams[i]
		for {
			if err := s.fill(&c.asds[i]); err != nil {
				return nil, err
			}
			if s.end || s.page[0].Key.Namespace != ns || s.page[0].Key.SCO != sco {
				break
			}
			c.held = append(c.held, Held{c.asds[i].ID, s.page[0]})
			s.page = s.page[1:]
		}
	}
	sortHeld(c.held)
	return c.held, nil
}

func sortHeld(list []Held) {
	slices.SortStableFunc(list, func(a, b Held) int { return a.Info.Key.Compare(b.Info.Key) })
}

// Object finds all fragments of one object, wherever the census stands.
func (c *Census) Object(ns ids.NamespaceID, sco ids.SCONum) ([]Held, error) {
	var out []Held
	for i := range c.asds {
		after := before(layout.FragKey{Namespace: ns, SCO: sco})
		for more := true; more; {
			page, err := c.asds[i].Store.List(after, listPage)
			if err != nil {
				return nil, errs.Wrap(errs.Of(err), err, "proxy: listing ASD %d", c.asds[i].ID)
			}
			more = len(page) > 0
			for _, f := range page {
				if f.Key.Namespace != ns || f.Key.SCO != sco {
					more = false
					break
				}
				out = append(out, Held{c.asds[i].ID, f})
				after = f.Key
			}
		}
	}
	sortHeld(out)
	return out, nil
}

// Puts cuts an object's fragments into those of each put, in the order of put ids.
func Puts(held []Held) [][]Held {
	var out [][]Held
	for len(held) > 0 {
		n := 1
		for n < len(held) && held[n].Info.Key.Put == held[0].Info.Key.Put {
			n++
		}
		out = append(out, held[:n])
		held = held[n:]
	}
	return out
}

// describe reads a fragment's descriptor and checks that it is of the fragment's put and chunk.
func (c *Census) describe(ctx context.Context, h *Held) (*layout.Descriptor, error) {
	i := slices.IndexFunc(c.asds, func(a Surveyed) bool { return a.ID == h.ASD })
	b, err := c.asds[i].Store.Describe(ctx, h.Info.Key, c.desc[:0])
	if err != nil {
		return nil, err
	}
	d, err := layout.ParseDescriptor(b)
	if err != nil {
		return nil, errs.Wrap(errs.Of(err), err, "fragment %v on ASD %d", h.Info.Key, h.ASD)
	}
	k := h.Info.Key
	if o := &d.Object; o.Namespace != k.Namespace || o.SCO != k.SCO || o.Put != k.Put || d.Chunk != k.Chunk {
		return nil, errs.New(errs.Corrupt, "fragment %v on ASD %d has the descriptor of another", k, h.ASD)
	}
	return d, nil
}
