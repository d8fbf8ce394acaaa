package journal

import "vstor/dataplane/errs"

// find looks for record p.number where it can be: behind its predecessor, or at the start of the next
// segment. It moves the head there.
//
// Both can hold one: a life dies with record 8 torn behind 7, and 8 of the next life is larger and goes to
// the next segment. Both are chained to 7. The later incarnation is the true one, since a life that
// accepts a record never writes that number again.
func (p *replayer) find() (Header, bool, error) {
	s := &p.j.segs
	here, ok, err := p.behind()
	if err != nil {
		return Header{}, false, err
	}
	// The tail is the first of its segment, and the ring does not run into its own tail.
	if s.headOff > 0 && s.free() > 0 {
		next := s.next(s.head)
		if err := p.peekAt(next); err != nil {
			return Header{}, false, err
		}
		lap := s.state[s.head].lap
		if next == 0 {
			lap++
		}
		there := p.peek.is && p.expected(&p.peek.h, p.j.segPos(next), s.blocks, lap)
		if there && (!ok || p.peek.h.Incarnation > here.Incarnation) {
			s.advanceHead()
			here, ok = p.peek.h, true
			copy(p.header[:], p.start.b)
		}
	}
	if ok {
		p.learn(&here)
	}
	return here, ok, nil
}

// behind looks right behind the predecessor.
func (p *replayer) behind() (Header, bool, error) {
	s := &p.j.segs
	room := s.blocks - s.headOff
	if room == 0 {
		return Header{}, false, nil
	}
	pos := p.j.headPos()
	b, err := p.w.blocks(pos, 1, pos+room)
	if err != nil {
		return Header{}, false, err
	}
	h, ok, err := p.decode(b)
	copy(p.header[:], b)
	return h, ok && p.expected(&h, pos, room, s.state[s.head].lap), err
}

// peek is the header at the start of a segment, read once.
type peek struct {
	seg int // + 1; 0 = none
	is  bool
	h   Header
}

func (p *replayer) peekAt(seg int) error {
	if p.peek.seg == seg+1 {
		return nil
	}
	pos := p.j.segPos(seg)
	b, err := p.start.blocks(pos, 1, pos+1)
	if err != nil {
		return err
	}
	h, ok, err := p.decode(b)
	p.peek = peek{seg: seg + 1, is: ok, h: h}
	return err
}

// decode reads a block that may be a header. Only a newer version is an error.
func (p *replayer) decode(b []byte) (Header, bool, error) {
	if !isHeader(b) {
		return Header{}, false, nil
	}
	h, err := DecodeHeader(b)
	if errs.Of(err) == errs.Version {
		return Header{}, false, err
	}
	return h, err == nil, nil
}

// expected reports whether h is the header of record p.number: of this journal, in this place, lap and
// incarnation, chained to its predecessor, and within the room of its segment.
func (p *replayer) expected(h *Header, pos, room, lap uint32) bool {
	return h.Number == p.number && p.native(h, pos) && h.Lap == lap && h.Incarnation >= p.lastInc &&
		(p.lastSum == 0 || h.Prev == p.lastSum) && 1+h.Blocks <= room
}

// native reports whether a header belongs to this journal and place, and to the life that had the right
// to its number: from First on that is the last incarnation alone, below it all earlier ones.
func (p *replayer) native(h *Header, pos uint32) bool {
	root := &p.j.root
	if h.UUID != root.UUID || h.Position != pos {
		return false
	}
	if h.Number >= root.First {
		return h.Incarnation == root.Incarnation
	}
	return h.Incarnation < root.Incarnation
}

// learn takes over what a header says about those before it.
func (p *replayer) learn(h *Header) {
	p.mark = max(p.mark, h.Durable)
	if p.sameBoot && h.Number >= p.j.root.First {
		p.mark = max(p.mark, h.Complete)
	}
}

// must reports whether record p.number has to be there. from is the block from which on later records
// may lie.
func (p *replayer) must(from uint32) (bool, error) {
	if p.number > p.mark && !p.scanned {
		if err := p.scan(from); err != nil {
			return false, err
		}
		p.scanned = true
	}
	return p.number <= p.mark, nil
}

// scan looks for later records, which may know that this one had completed: in the rest of this segment,
// in the next, and in each that begins with a later record or follows one that holds any. For all
// others one look at the start is enough, where a record always begins: a torn tail costs little.
func (p *replayer) scan(from uint32) error {
	s := &p.j.segs
	seg, live := s.head, true
	for i := range s.free() + 1 {
		first := p.j.segPos(seg)
		end := first + s.blocks
		if i == 0 {
			first = from
		} else if !live {
			var err error
			if live, err = p.look(first, first+1); err != nil {
				return err
			}
		}
		if live {
			found, err := p.look(first, end)
			if err != nil {
				return err
			}
			live = found || i == 0
		}
		seg = s.next(seg)
	}
	return nil
}

// look learns from the later records whose headers are in blocks [from, to), and reports whether there
// are any.
func (p *replayer) look(from, to uint32) (bool, error) {
	found := false
	for pos := from; pos < to; pos++ {
		b, err := p.w.blocks(pos, 1, to)
		if err != nil {
			return false, err
		}
		if h, ok, _ := p.decode(b); ok && h.Number > p.number && p.native(&h, pos) {
			p.learn(&h)
			p.j.replay.Torn = true
			found = true
		}
	}
	return found, nil
}
