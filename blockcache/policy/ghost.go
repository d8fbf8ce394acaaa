package policy

import "math/bits"

// ghost remembers the hash of a block that left small unread. Two blocks of one hash are taken for one: that
// promotes a block wrongly once in 2^64 / n, and harms nobody.
type ghost struct {
	hash  uint64 // 0: it was taken, and waits for its turn to leave the line
	chain uint32 // hash chain
	newer uint32 // the line it stands in, or the free list
}

// line is a FIFO of ghosts, oldest first.
type line struct {
	head, tail uint32
	n          int
}

// ghosts are those of all accounts, in lines of their own but one hash table: who asks for a block that left
// somebody else's queue has proved as much.
type ghosts struct {
	nodes   []ghost // from 1
	heads   []uint32
	free    uint32
	unused  uint32
	orphans line // of accounts that are no more: these go first
}

func (g *ghosts) init(n int) (err error) {
	g.unused = 1
	if g.nodes, err = NewTable[ghost](n + 1); err == nil {
		g.heads, err = NewTable[uint32](1 << bits.Len(uint(n)))
	}
	return err
}

func (g *ghosts) close() {
	FreeTable(g.nodes)
	FreeTable(g.heads)
	g.nodes, g.heads = nil, nil
}

func (g *ghosts) head(h uint64) *uint32 { return &g.heads[h&uint64(len(g.heads)-1)] }

// add puts h at the end of a line that is to hold bound at most.
func (g *ghosts) add(l *line, h uint64, bound int) {
	for l.n > 0 && l.n >= bound {
		g.drop(l)
	}
	n := g.node(l)
	if n == 0 {
		return
	}
	at := g.head(h)
	g.nodes[n] = ghost{hash: h, chain: *at}
	*at = n
	if l.tail != 0 {
		g.nodes[l.tail].newer = n
	} else {
		l.head = n
	}
	l.tail = n
	l.n++
}

// node finds a free one, or else makes one free: an orphan's, or the oldest of the line itself.
func (g *ghosts) node(l *line) uint32 {
	if g.free == 0 && int(g.unused) < len(g.nodes) {
		g.unused++
		return g.unused - 1
	}
	if g.free == 0 {
		if g.orphans.n > 0 {
			g.drop(&g.orphans)
		} else if l.n > 0 {
			g.drop(l)
		}
	}
	n := g.free
	if n != 0 {
		g.free = g.nodes[n].newer
	}
	return n
}

// take forgets h and says whether it was known.
func (g *ghosts) take(h uint64) bool {
	for at := g.head(h); *at != 0; at = &g.nodes[*at].chain {
		if n := &g.nodes[*at]; n.hash == h {
			*at = n.chain
			n.hash, n.chain = 0, 0
			return true
		}
	}
	return false
}

// drop frees the oldest of a line.
func (g *ghosts) drop(l *line) {
	i := l.head
	n := &g.nodes[i]
	if n.hash != 0 {
		at := g.head(n.hash)
		for *at != i {
			at = &g.nodes[*at].chain
		}
		*at = n.chain
	}
	l.head = n.newer
	if l.head == 0 {
		l.tail = 0
	}
	l.n--
	*n = ghost{newer: g.free}
	g.free = i
}

// orphan appends a line to the orphans and empties it.
func (g *ghosts) orphan(l *line) {
	if l.n == 0 {
		return
	}
	if g.orphans.n == 0 {
		g.orphans = *l
	} else {
		g.nodes[g.orphans.tail].newer = l.head
		g.orphans.tail = l.tail
		g.orphans.n += l.n
	}
	*l = line{}
}
