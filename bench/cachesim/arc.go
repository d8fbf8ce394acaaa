package cachesim

// arc is the Adaptive Replacement Cache of Megiddo and Modha (FAST 2003), with entries that weigh what they hold:
// lists and target are in bytes. t1 has entries seen once lately, t2 those seen again, b1 and b2 the names of what
// left them.
type arc struct {
	size
	table          map[uint64]*node
	t1, t2, b1, b2 *list
	target         int64 // of t1
}

func newARC(s size) cache {
	return &arc{size: s, table: map[uint64]*node{}, t1: newList(), t2: newList(), b1: newList(), b2: newList()}
}

func (c *arc) access(object, parts uint64) uint64 {
	n := c.table[object]
	var found uint64
	to, fromB2 := c.t1, false
	if n == nil {
		n = &node{key: object, bytes: c.entry}
		c.table[object] = n
	} else {
		to = c.t2
		switch n.in {
		case c.b1:
			c.target = min(c.capacity, c.target+n.bytes*max(1, c.b2.bytes/max(c.b1.bytes, 1)))
		case c.b2:
			c.target = max(0, c.target-n.bytes*max(1, c.b1.bytes/max(c.b2.bytes, 1)))
			fromB2 = true
		default:
			found = n.parts & parts
		}
		ghost := n.in == c.b1 || n.in == c.b2
		n.remove()
		if ghost {
			n.parts, n.bytes = 0, c.entry
		}
	}
	n.grow(&c.size, parts)
	to.push(n)
	for c.t1.bytes+c.t2.bytes > c.capacity {
		c.replace(fromB2)
	}
	c.forget()
	return found
}

// replace moves the oldest of t1 or t2 to its ghosts.
func (c *arc) replace(fromB2 bool) {
	from, to := c.t2, c.b2
	if c.t1.n > 0 && (c.t1.bytes > c.target || fromB2 && c.t1.bytes == c.target || c.t2.n == 0) {
		from, to = c.t1, c.b1
	}
	n := from.last()
	n.remove()
	to.push(n)
}

// forget keeps ghosts within their bounds: t1 and b1 name a cache's worth of bytes, all four two.
func (c *arc) forget() {
	drop := func(l *list) {
		n := l.last()
		n.remove()
		delete(c.table, n.key)
	}
	for c.b1.n > 0 && c.t1.bytes+c.b1.bytes > c.capacity {
		drop(c.b1)
	}
	for c.b2.n > 0 && c.t1.bytes+c.t2.bytes+c.b1.bytes+c.b2.bytes > 2*c.capacity {
		drop(c.b2)
	}
}
