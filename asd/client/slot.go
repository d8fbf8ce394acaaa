package client

import (
	"encoding/binary"

	"vstor/asd/proto"
	"vstor/dataplane/buf"
	"vstor/dataplane/layout"
	"vstor/dataplane/link"
	"vstor/dataplane/ring"
)

// slot is one read of a Reader, from ReadRange until nothing of its request is under way any more.
//
//	free ─► waiting ─► sent ─► landing ─► free      landing: its data is being received into the pages
//	                     └───► late ────► free      late: the read has ended, its answer has not come
type slot struct {
	r     *Reader
	index uint32 // in Reader.slots
	gen   uint32 // goes up with each use; with index the id of the request and the token
	state slotState

	op    *ring.Op // nil once the read has ended
	v     *buf.Vec // the caller's
	key   layout.FragKey
	off   uint32
	n     uint32
	start int64 // loop time of ReadRange
	probe bool  // made by the Reader itself

	next, prev *slot // in Reader.live; next in the free list

	frame   link.Frame
	body    [proto.RangeSize]byte
	cancel  link.Frame
	cancels [8]byte
}

type slotState uint8

const (
	slotFree slotState = iota
	slotWaiting
	slotSent
	slotLanding
	slotLate
	slotOver // answered; a frame of it is still in the connection's queue
)

// pingID is no slot's id: they begin with a generation.
const pingID = 1

func (s *slot) id() uint64 { return uint64(s.gen)<<32 | uint64(s.index) }

// FrameSent implements link.Sent for both frames: a slot is free when they are back.
func (s *slot) FrameSent(*link.Frame, bool) {
	if s.state == slotOver {
		s.r.put(s)
	}
}

// find is the slot of a token or of an answer's id, if that is in use.
func (r *Reader) find(id uint64) *slot {
	i := id & 0xffff_ffff
	if i >= uint64(len(r.slots)) {
		return nil
	}
	s := r.slots[i]
	if s.id() != id || s.state == slotFree || s.state == slotOver {
		return nil
	}
	return s
}

// get is a free slot, nil if all are in use. Slots are made as they are needed, and kept.
func (r *Reader) get() *slot {
	s := r.free
	if s == nil {
		if len(r.slots) >= r.opt.Reads {
			return nil
		}
		s = &slot{r: r, index: uint32(len(r.slots))}
		s.frame.Done, s.cancel.Done = s, s
		r.slots = append(r.slots, s)
	} else {
		r.free = s.next
	}
	s.next = nil
	s.gen++
	if s.gen == 0 {
		s.gen = 1
	}
	return s
}

// put frees a slot, or leaves that to the last of its frames.
func (r *Reader) put(s *slot) {
	if s.frame.Queued() || s.cancel.Queued() {
		s.state = slotOver
		return
	}
	s.state, s.probe = slotFree, false
	s.next, r.free = r.free, s
}

// sendCancel tells the ASD that nobody waits for the answer.
func (r *Reader) sendCancel(s *slot) {
	s.cancel.Type = proto.TCancel
	s.cancel.Body = binary.LittleEndian.AppendUint64(s.cancels[:0], s.id())
	r.conn.Send(&s.cancel)
}

// slotList is a list through the slots' own links.
type slotList struct{ head, tail *slot }

func (l *slotList) push(s *slot) {
	s.next, s.prev = nil, l.tail
	if l.tail == nil {
		l.head = s
	} else {
		l.tail.next = s
	}
	l.tail = s
}

func (l *slotList) remove(s *slot) {
	if s.prev == nil {
		l.head = s.next
	} else {
		s.prev.next = s.next
	}
	if s.next == nil {
		l.tail = s.prev
	} else {
		s.next.prev = s.prev
	}
	s.next, s.prev = nil, nil
}

// frameOwner is told of the Reader's own frames.
type frameOwner struct{ r *Reader }

func (f *frameOwner) FrameSent(*link.Frame, bool) {}
