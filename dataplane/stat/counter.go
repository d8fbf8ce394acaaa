package stat

import "sync/atomic"

// Counter only grows. The zero Counter is ready. One goroutine or loop writes, all may Load.
type Counter struct{ v atomic.Uint64 }

// Add grows the counter. Its one writer only.
func (c *Counter) Add(n uint64) { c.v.Store(c.v.Load() + n) }

// Inc is Add(1).
func (c *Counter) Inc() { c.v.Store(c.v.Load() + 1) }

// Load reads the counter, from anywhere.
func (c *Counter) Load() uint64 { return c.v.Load() }

// Gauge goes up and down. The zero Gauge is ready. One goroutine or loop writes, all may Load.
type Gauge struct{ v atomic.Int64 }

// Set sets the gauge. Its one writer only.
func (g *Gauge) Set(n int64) { g.v.Store(n) }

// Add changes the gauge by n, which may be negative. Its one writer only.
func (g *Gauge) Add(n int64) { g.v.Store(g.v.Load() + n) }

// Load reads the gauge, from anywhere.
func (g *Gauge) Load() int64 { return g.v.Load() }

// Shared is a counter that many goroutines write: for what happens rarely (a repair, an error), where
// a set per writer is not worth its memory.
type Shared struct{ v atomic.Uint64 }

// Add grows the counter, from anywhere.
func (c *Shared) Add(n uint64) { c.v.Add(n) }

// Load reads the counter, from anywhere.
func (c *Shared) Load() uint64 { return c.v.Load() }
