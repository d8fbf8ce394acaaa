package server

// line is where connections stand that wait for memory of one kind, first come, first served: while
// somebody waits nobody else gets any. Whoever returns memory, or leaves the line, wakes the first; who has
// got some leaves, so the next one looks too.
type line struct{ head, tail *conn }

// admits reports whether c may take what the line is for, if there is enough.
func (l *line) admits(c *conn) bool { return l.head == nil || l.head == c }

// join puts c at the end, unless it stands there.
func (l *line) join(c *conn) {
	if c.line == l {
		return
	}
	c.leaveLine()
	c.line, c.linePrev, c.lineNext = l, l.tail, nil
	if l.tail == nil {
		l.head = c
	} else {
		l.tail.lineNext = c
	}
	l.tail = c
	c.k.watchStalls()
}

// leaveLine takes c out of the line it stands in, if any, and lets the next one look.
func (c *conn) leaveLine() {
	l := c.line
	if l == nil {
		return
	}
	if c.linePrev == nil {
		l.head = c.lineNext
	} else {
		c.linePrev.lineNext = c.lineNext
	}
	if c.lineNext == nil {
		l.tail = c.linePrev
	} else {
		c.lineNext.linePrev = c.linePrev
	}
	c.line, c.linePrev, c.lineNext = nil, nil, nil
	l.wake()
}

// wake lets the first try again. What it does happens later in the pass, never inside this call.
func (l *line) wake() {
	if l.head != nil {
		l.head.link.Resume()
	}
}
