package faults

import (
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"vstor/dataplane/errs"
)

// LinkFault is what a LinkRule does to a piece of what is sent, in either direction.
type LinkFault uint8

const (
	LinkDelay LinkFault = iota // holds it, and what comes behind it
	LinkDrop                   // closes the connection instead
	LinkHang                   // holds everything until the rules are replaced
	LinkShort                  // moves a part and closes
	LinkFlip                   // turns one bit
)

// LinkRule says when. Of several the first that fires counts.
type LinkRule struct {
	Do     LinkFault
	Nth    int // the n-th piece, from 1; 0 = by Chance
	Times  int // fires at most so often; 0 = once for Nth, without limit for Chance
	Chance float64
	Delay  time.Duration

	seen, fired int
}

// Links breaks the connections of the listeners it wraps, by rules that may change at any time. It is the
// twin of dio.Faulty. Any goroutine.
type Links struct {
	mu       sync.Mutex
	rng      *rand.Rand
	rules    []LinkRule
	replaced chan struct{}
}

// NewLinks makes Links without rules.
func NewLinks(seed uint64) *Links {
	return &Links{rng: rand.New(rand.NewPCG(seed, 1)), replaced: make(chan struct{})}
}

// Set replaces the rules and lets go what hangs.
func (l *Links) Set(rules ...LinkRule) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rules = append([]LinkRule(nil), rules...)
	close(l.replaced)
	l.replaced = make(chan struct{})
}

// Listen wraps a listener.
func (l *Links) Listen(inner net.Listener) net.Listener { return &listener{inner, l} }

// Wrap wraps one connection.
func (l *Links) Wrap(nc net.Conn) net.Conn {
	return &conn{Conn: nc, links: l, gone: make(chan struct{})}
}

type listener struct {
	net.Listener
	links *Links
}

func (l *listener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.links.Wrap(nc), nil
}

// next decides what happens to a piece.
func (l *Links) next() (rule LinkRule, dice uint64, replaced <-chan struct{}, fires bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.rules {
		r := &l.rules[i]
		r.seen++
		limit := r.Times
		if limit == 0 && r.Nth > 0 {
			limit = 1
		}
		if limit > 0 && r.fired >= limit || r.Nth > 0 && r.seen < r.Nth || r.Nth == 0 && l.rng.Float64() >= r.Chance {
			continue
		}
		r.fired++
		return *r, l.rng.Uint64(), l.replaced, true
	}
	return LinkRule{}, 0, nil, false
}

// conn is a connection with faults in both directions.
type conn struct {
	net.Conn
	links *Links
	once  sync.Once
	gone  chan struct{}
}

// Close lets go what is held.
func (c *conn) Close() error {
	c.once.Do(func() { close(c.gone) })
	return c.Conn.Close()
}

var errDropped = errs.New(errs.IO, "the link was dropped on purpose")

// hold waits; false if the connection was closed meanwhile.
func (c *conn) hold(r *LinkRule, replaced <-chan struct{}) bool {
	var after <-chan time.Time
	if r.Do == LinkDelay {
		after = time.After(r.Delay)
	}
	select {
	case <-after:
	case <-replaced:
	case <-c.gone:
		return false
	}
	return true
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	r, dice, replaced, fires := c.links.next()
	if !fires || n == 0 {
		return n, err
	}
	switch r.Do {
	case LinkDelay, LinkHang:
		if !c.hold(&r, replaced) {
			return 0, errDropped
		}
	case LinkDrop:
		c.Close()
		return 0, errDropped
	case LinkShort:
		n = int(dice % uint64(n))
		c.Close()
		return n, errDropped
	case LinkFlip:
		p[dice%uint64(n)] ^= 1 << (dice >> 32 % 8)
	}
	return n, err
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	r, dice, replaced, fires := c.links.next()
	if !fires || len(p) == 0 {
		return c.Conn.Write(p)
	}
	switch r.Do {
	case LinkDelay, LinkHang:
		if !c.hold(&r, replaced) {
			return 0, errDropped
		}
	case LinkDrop:
		c.Close()
		return 0, errDropped
	case LinkShort:
		n, _ := c.Conn.Write(p[:dice%uint64(len(p))])
		c.Close()
		return n, errDropped
	case LinkFlip:
		p = append([]byte(nil), p...)
		p[dice%uint64(len(p))] ^= 1 << (dice >> 32 % 8)
	}
	return c.Conn.Write(p)
}
