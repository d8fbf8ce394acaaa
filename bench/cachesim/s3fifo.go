package cachesim

// s3fifo is S3-FIFO of Yang and others (SOSP 2023) as published: 10 % small, two more reads to leave it for main,
// as many ghosts as entries of main.
type s3fifo struct {
	size
	table              map[uint64]*node
	small, main, ghost *list
}

func newS3FIFO(s size) cache {
	return &s3fifo{size: s, table: map[uint64]*node{}, small: newList(), main: newList(), ghost: newList()}
}

func (c *s3fifo) access(object, parts uint64) uint64 {
	n := c.table[object]
	if n != nil && n.in != c.ghost {
		found := n.parts & parts
		n.freq = min(n.freq+1, 3)
		n.grow(&c.size, parts)
		c.shrink(n)
		return found
	}
	to := c.small
	if n != nil {
		to = c.main
		n.remove()
		n.parts, n.bytes, n.freq = 0, c.entry, 0
	} else {
		n = &node{key: object, bytes: c.entry}
		c.table[object] = n
	}
	n.grow(&c.size, parts)
	to.push(n)
	c.shrink(n)
	return 0
}

// shrink evicts until all fits; keep stays.
func (c *s3fifo) shrink(keep *node) {
	for c.small.bytes+c.main.bytes > c.capacity && c.small.n+c.main.n > 1 {
		if (c.small.bytes > c.capacity/10 || c.main.n == 0) && c.small.n > 0 {
			c.evictSmall(keep)
		} else {
			c.evictMain(keep)
		}
	}
	for c.ghost.n > max(c.main.n, 16) {
		n := c.ghost.last()
		n.remove()
		delete(c.table, n.key)
	}
}

func (c *s3fifo) evictSmall(keep *node) {
	n := c.small.last()
	n.remove()
	if n.freq > 1 || n == keep {
		n.freq = 0
		c.main.push(n)
		return
	}
	c.ghost.push(n)
}

func (c *s3fifo) evictMain(keep *node) {
	n := c.main.last()
	n.remove()
	if n.freq > 0 || n == keep {
		n.freq = max(n.freq-1, 0)
		c.main.push(n)
		return
	}
	delete(c.table, n.key)
}
