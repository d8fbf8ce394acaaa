package cachesim

// cache is a cache without data. access asks for parts of an object and fills those that are missing, and returns
// those that were there.
type cache interface {
	access(object, parts uint64) (found uint64)
}

// size is what entries weigh.
type size struct {
	capacity int64
	part     int64 // bytes
	entry    int64 // what is noted about one
}

// node is an entry of a reference policy.
type node struct {
	key        uint64
	parts      uint64
	bytes      int64
	freq       int
	in         *list
	prev, next *node
}

// list has its newest node in front.
type list struct {
	root  node
	bytes int64
	n     int
}

func newList() *list {
	l := &list{}
	l.root.prev, l.root.next = &l.root, &l.root
	return l
}

func (l *list) push(n *node) {
	n.in, n.prev, n.next = l, &l.root, l.root.next
	n.prev.next, n.next.prev = n, n
	l.bytes += n.bytes
	l.n++
}

func (n *node) remove() {
	n.prev.next, n.next.prev = n.next, n.prev
	n.in.bytes -= n.bytes
	n.in.n--
	n.in = nil
}

// grow adds parts to a node and says how many bytes that was.
func (n *node) grow(s *size, parts uint64) {
	more := int64(popcount(parts&^n.parts)) * s.part
	n.parts |= parts
	n.bytes += more
	if n.in != nil {
		n.in.bytes += more
	}
}

func (l *list) last() *node {
	if l.n == 0 {
		return nil
	}
	return l.root.prev
}

// lru is the list everybody knows.
type lru struct {
	size
	table map[uint64]*node
	list  *list
}

func newLRU(s size) cache { return &lru{s, map[uint64]*node{}, newList()} }

func (c *lru) access(object, parts uint64) uint64 {
	n := c.table[object]
	if n == nil {
		n = &node{key: object, bytes: c.entry}
		c.table[object] = n
	} else {
		n.remove()
	}
	found := n.parts & parts
	n.grow(&c.size, parts)
	c.list.push(n)
	for c.list.bytes > c.capacity {
		old := c.list.last()
		old.remove()
		delete(c.table, old.key)
	}
	return found
}
