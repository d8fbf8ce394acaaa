package nbd

import (
	"math/bits"
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/ring"
)

// share is what the connections of one loop have in common: its memory, and the line of those that
// wait for it. Loop only, but for counts.
//
// Read payload, which the pages of a BLOCK_STATUS count as, and pages of payload being received are given
// out by dynamic thresholds: with its next request a connection may hold at most half (for payload being
// received: a quarter) of what is free.
// One greedy or sleeping client then gets a third of all, the next a third of the rest, and whatever is
// given out leaves as much again: a newcomer with a small request finds room. A fixed limit per
// connection that did this would be far too small for the client that is alone.
//
// Waiting for pages is strictly first come, first served: while anyone waits for them, nobody else gets
// any. Nothing tells when pages come back to the pool (journal and caches hold them too), so while
// somebody waits a timer looks, once a millisecond.
type share struct {
	loop   *ring.Loop
	pool   *buf.Pool
	opts   *Options
	counts counters

	conns *conn // all connections of the loop

	waitHead, waitTail *conn
	pagesWanted        bool // somebody in the line waits for pages of the pool
	wakeHook           ring.Hook
	timer              ring.Timer
	fast               bool  // the timer is armed with pageTick
	lastScan           int64 // loop time

	readMax, readHeld   int64
	rxMax, rxHeld       int64 // bytes of pages
	stashMax, stashHeld int64
	stashes             [][]byte // free
	pieceMax            int64    // bytes of a write that are received and submitted at once

	free        *request
	nfree       int
	freeStatus  *status
	nfreeStatus int

	scratch buf.Vec
}

const (
	pieceLimitMax = 1 << 20
	pieceLimitMin = 64 << 10
	stashMin      = 16 << 10 // bytes; stashes are powers of two
	stashesKept   = 16       // free ones
	stashKeptMax  = 256 << 10

	pageTick = time.Millisecond       // while somebody waits for pages
	scanTick = 100 * time.Millisecond // while somebody waits
)

func newShare(l *ring.Loop, opts *Options) *share {
	bytes := int64(l.Pool().Pages()) * buf.PageSize
	s := &share{
		loop: l, pool: l.Pool(), opts: opts,
		readMax: opts.LoopReadBytes, rxMax: opts.LoopReceiveBytes, stashMax: opts.LoopStashBytes,
		// A sixteenth of the pool, a power of two: a piece that the pool can never hold would wait
		// for ever.
		pieceMax: min(max(int64(1)<<(bits.Len64(uint64(bytes/16))-1), pieceLimitMin), pieceLimitMax),
	}
	if s.readMax == 0 {
		s.readMax = max(bytes/2, block.MaxRequest)
	}
	if s.rxMax == 0 {
		s.rxMax = bytes / 2
	}
	s.wakeHook = ring.Hook{Run: s.wake, Stage: ring.StageDevice}
	s.timer.Fire = s.tick
	return s
}

func (s *share) add(c *conn) {
	c.next = s.conns
	if c.next != nil {
		c.next.prev = c
	}
	s.conns = c
}

func (s *share) remove(c *conn) {
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		s.conns = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	}
	c.prev, c.next = nil, nil
}

// takeRead counts n bytes of read payload for c, or stalls it.
func (c *conn) takeRead(n int64) bool {
	s := c.share
	if c.readBytes > 0 && c.readBytes+n > s.opts.MaxReadBytes {
		c.stall = stallOwn
		return false
	}
	if s.readHeld > 0 && 2*(c.readBytes+n) > s.readMax-s.readHeld {
		s.wait(c, false)
		return false
	}
	c.readBytes += n
	s.readHeld += n
	return true
}

func (s *share) giveRead(n int64) {
	s.readHeld -= n
	s.wakeSoon()
}

// takePages appends n pages to v for payload c is about to receive, or stalls c. The pages count as
// being received until givePages.
func (s *share) takePages(c *conn, v *buf.Vec, n int) bool {
	size := int64(n) * buf.PageSize
	if s.rxHeld > 0 && 4*size > s.rxMax-s.rxHeld {
		s.wait(c, false)
		return false
	}
	if s.pagesWanted || !s.pool.Alloc(v, n) {
		s.wait(c, true)
		return false
	}
	s.rxHeld += size
	return true
}

// givePages: n bytes of pages are received and the device's now, or were released.
func (s *share) givePages(n int) {
	s.rxHeld -= int64(n)
	s.wakeSoon()
}

// wait puts c at the end of the line.
func (s *share) wait(c *conn, pages bool) {
	c.stall = stallLoop
	s.pagesWanted = s.pagesWanted || pages
	c.waitPrev, c.waitNext = s.waitTail, nil
	if s.waitTail == nil {
		s.waitHead = c
	} else {
		s.waitTail.waitNext = c
	}
	s.waitTail = c
	if !s.timer.Armed() || (pages && !s.fast) {
		s.fast = true
		s.loop.After(&s.timer, pageTick)
	}
}

// leave takes c out of the line, if it stands there.
func (s *share) leave(c *conn) {
	if s.waitHead != c && c.waitPrev == nil {
		return
	}
	if c.waitPrev == nil {
		s.waitHead = c.waitNext
	} else {
		c.waitPrev.waitNext = c.waitNext
	}
	if c.waitNext == nil {
		s.waitTail = c.waitPrev
	} else {
		c.waitNext.waitPrev = c.waitPrev
	}
	c.waitPrev, c.waitNext = nil, nil
	if s.waitHead == nil {
		s.pagesWanted = false
	}
}

// wakeSoon looks through the line at the end of the pass.
func (s *share) wakeSoon() {
	if s.waitHead != nil {
		s.loop.AtPassEnd(&s.wakeHook)
	}
}

// wake lets everyone in the line try again, in order. Who fails keeps its place relative to the others,
// and once one has failed for pages those behind it fail for pages too.
func (s *share) wake() {
	head := s.waitHead
	s.waitHead, s.waitTail, s.pagesWanted = nil, nil, false
	for c := head; c != nil; {
		next := c.waitNext
		c.waitPrev, c.waitNext = nil, nil
		if next != nil {
			next.waitPrev = nil
		}
		c.resume()
		c.settle()
		c = next
	}
}

// tick is the timer while somebody waits.
func (s *share) tick() {
	if now := s.loop.Now(); now-s.lastScan >= int64(scanTick) {
		s.lastScan = now
		s.scan(now)
	}
	s.wake()
	if s.waitHead == nil {
		return
	}
	if s.fast = s.pagesWanted; s.fast {
		s.loop.After(&s.timer, pageTick)
	} else {
		s.loop.After(&s.timer, scanTick)
	}
}

// scan closes connections that others wait for and whose peers have gone silent: in the middle of a
// payload, or with replies they do not take.
func (s *share) scan(now int64) {
	for c := s.conns; c != nil; {
		next := c.next
		waits := c.tx.busy || (c.rx.busy && c.rx.piece != nil)
		if waits && now-c.lastMove > int64(s.opts.StallTimeout) {
			s.counts.stalled.Inc()
			c.abort()
		}
		c = next
	}
}

// getStash is a buffer of n bytes, or nil if the loop's stashes are full.
func (s *share) getStash(n int) []byte {
	size := max(stashMin, 1<<bits.Len(uint(n-1)))
	if s.stashHeld+int64(size) > s.stashMax {
		return nil
	}
	var b []byte
	for i := range s.stashes {
		if last := len(s.stashes) - 1; cap(s.stashes[i]) == size {
			b, s.stashes[i] = s.stashes[i], s.stashes[last]
			s.stashes = s.stashes[:last]
			break
		}
	}
	if b == nil {
		b = make([]byte, size)
	}
	s.stashHeld += int64(size)
	return b[:n]
}

func (s *share) putStash(b []byte) {
	s.stashHeld -= int64(cap(b))
	if len(s.stashes) < stashesKept && cap(b) <= stashKeptMax {
		s.stashes = append(s.stashes, b[:0])
	}
}
