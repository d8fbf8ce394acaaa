package blockcache

import "vstor/dataplane/ids"

// ReadAhead finds sequential streams in the reads of a vDisk, several at a time, and says what to read ahead. It is a
// step function: no clock, no IO. The zero ReadAhead is ready.
//
// A stream is a run of reads each of which begins where one before it ended, or close by: clients with several
// requests under way send them a little out of order. After aheadAfter reads it gets a window of 128 KiB that
// doubles each time the reader has come half way into what was read ahead, up to 2 MiB. Reads that jump inside the
// window mean that the guess is wrong: it is halved, and below 128 KiB the stream is dropped. A stream that ends costs
// at most one window, and its place is taken by the next.
type ReadAhead struct {
	streams [streamsMax]stream
	step    uint64
}

type stream struct {
	next   ids.BlockAddr // where the next read is expected
	ahead  ids.BlockAddr // what lies below was read ahead, or read
	window int           // blocks; 0 while it is too short to tell
	reads  int
	used   uint64 // step of its last read; 0 = free
}

const (
	streamsMax = 8
	aheadAfter = 3
	windowMin  = 128 << 10 >> ids.BlockShift
	windowMax  = 2 << 20 >> ids.BlockShift
	aheadSlack = 32  // blocks by which reads may come out of order
	aheadIdle  = 256 // reads of others after which a stream has probably ended
)

// Step takes a read of count blocks from addr on and returns which blocks to read ahead, count 0 for none. The caller
// cuts the range to the vDisk's size, and may do less.
func (r *ReadAhead) Step(addr ids.BlockAddr, count int) (from ids.BlockAddr, n int) {
	r.step++
	end := addr + ids.BlockAddr(count)
	s, jumped := r.find(addr)
	switch {
	case s == nil:
		s = r.oldest()
		*s = stream{next: end, ahead: end, reads: 1, used: r.step}
		return 0, 0
	case jumped:
		s.used = r.step
		if s.window /= 2; s.window < windowMin {
			*s = stream{next: end, ahead: end, reads: 1, used: r.step}
			return 0, 0
		}
		s.next = max(s.next, end)
		return 0, 0
	}
	s.used = r.step
	s.reads++
	s.next = max(s.next, end)
	s.ahead = max(s.ahead, s.next)
	if s.reads < aheadAfter {
		return 0, 0
	}
	return s.grow()
}

// grow reads ahead if the reader has come half way into the window.
func (s *stream) grow() (ids.BlockAddr, int) {
	left := int(s.ahead - s.next)
	switch {
	case s.window == 0:
		s.window = windowMin
	case left > s.window/2:
		return 0, 0
	default:
		s.window = min(2*s.window, windowMax)
	}
	from, n := s.ahead, s.window-left
	s.ahead += ids.BlockAddr(n)
	return from, n
}

// find finds the stream that a read belongs to; jumped says that it is not near where it was expected, but in what was
// read ahead.
func (r *ReadAhead) find(addr ids.BlockAddr) (s *stream, jumped bool) {
	for i := range r.streams {
		t := &r.streams[i]
		switch {
		case t.used == 0:
		case addr+aheadSlack >= t.next && addr <= t.next+aheadSlack:
			return t, false
		case addr > t.next && addr < t.ahead:
			s, jumped = t, true
		}
	}
	return s, jumped
}

// oldest is a free place, or the stream read longest ago of those that have no window: random reads do not push out
// streams. A stream that nobody read for a while stands back like one without.
func (r *ReadAhead) oldest() *stream {
	age := func(s *stream) uint64 {
		if s.window > 0 && r.step-s.used < aheadIdle {
			return s.used + r.step
		}
		return s.used
	}
	s := &r.streams[0]
	for i := range r.streams {
		if age(&r.streams[i]) < age(s) {
			s = &r.streams[i]
		}
	}
	return s
}
