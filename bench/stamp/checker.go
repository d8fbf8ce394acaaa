package stamp

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"vstor/bench/nbdc"
	"vstor/dataplane/errs"
)

// Mix says how often each kind of request comes, in parts of their sum.
type Mix struct {
	Write, FUA, Read, Flush, Trim, Zeroes int
}

// Options of a Checker. The zero value of each field but Dial and Blocks means its default.
type Options struct {
	// Dial connects to the volume. Called once per connection of a Run, and by Verify.
	Dial func() (*nbdc.Conn, error)
	// Blocks is how many 4 KiB blocks of the volume are used, from its start. They must read as zeros
	// before the first Run.
	Blocks int
	// SectorBlocks is how many of them, from the start, are written in sectors; default 1/16.
	SectorBlocks int

	Connections int // default 4
	Depth       int // requests in flight per connection, default 8
	MaxRun      int // blocks in the largest request, default 32
	Seed        uint64
	Volume      uint64 // what the stamps name the volume

	Mix Mix // default 60 writes, 4 FUA, 20 reads, 2 flushes, 6 trims, 8 zeroes

	// OneAtATime keeps overlapping writes from being in flight together.
	OneAtATime bool
	// PowerLoss lets a restart lose what was acknowledged but neither flushed nor written with FUA.
	PowerLoss bool
}

func (o *Options) defaults() error {
	if o.Dial == nil || o.Blocks < 2 {
		return errs.New(errs.Invalid, "stamp: Options need Dial and at least 2 Blocks")
	}
	if o.SectorBlocks == 0 {
		o.SectorBlocks = max(o.Blocks/16, 1)
	}
	if o.SectorBlocks >= o.Blocks {
		return errs.New(errs.Invalid, "stamp: %d of %d blocks in sectors leave none", o.SectorBlocks, o.Blocks)
	}
	set := func(v *int, def int) {
		if *v == 0 {
			*v = def
		}
	}
	set(&o.Connections, 4)
	set(&o.Depth, 8)
	set(&o.MaxRun, 32)
	o.MaxRun = min(o.MaxRun, o.Blocks-o.SectorBlocks)
	if o.Mix == (Mix{}) {
		o.Mix = Mix{Write: 60, FUA: 4, Read: 20, Flush: 2, Trim: 6, Zeroes: 8}
	}
	return nil
}

// Checker writes and verifies one volume. Run and Verify take turns; neither is called while another is
// under way.
type Checker struct {
	opt    Options
	oracle *oracle
	runs   uint64
}

// New makes a Checker for a volume whose used blocks read as zeros.
func New(opt Options) (*Checker, error) {
	if err := opt.defaults(); err != nil {
		return nil, err
	}
	o := newOracle(opt.Blocks, opt.SectorBlocks, opt.Volume, opt.Seed)
	o.powerLoss, o.overlap = opt.PowerLoss, !opt.OneAtATime
	return &Checker{opt: opt, oracle: o}, nil
}

// Stats counts what a Run did.
type Stats struct {
	Acked   uint64 // requests acknowledged
	Written uint64 // bytes of them that were written, zeroed or trimmed
	Refused uint64 // requests that got an error
	Lost    uint64 // requests under way when their connection was lost
	Last    string // the last error a request got, for people
}

type counters struct {
	acked, written, refused, lost atomic.Uint64
	mu                            sync.Mutex
	last                          string
	wrong                         []string
}

// Run issues requests until ctx ends or all connections are lost, which is what a crash of the server
// looks like and no error. It fails if a read returned something wrong, or no connection can be made.
func (c *Checker) Run(ctx context.Context) (Stats, error) {
	c.runs++
	conns, err := c.dialAll()
	if err != nil {
		return Stats{}, err
	}
	var n counters
	var wg sync.WaitGroup
	for i, conn := range conns {
		for j := range c.opt.Depth {
			w := &worker{Checker: c, conn: conn, n: &n,
				rng: rand.New(rand.NewPCG(c.opt.Seed<<8|c.runs, uint64(i*c.opt.Depth+j))),
				buf: make([]byte, c.opt.MaxRun*BlockSize)}
			wg.Go(func() { w.loop(ctx) })
		}
	}
	wg.Wait()
	for _, conn := range conns {
		conn.Close()
	}
	s := Stats{Acked: n.acked.Load(), Written: n.written.Load(), Refused: n.refused.Load(), Lost: n.lost.Load(),
		Last: n.last}
	return s, complain(n.wrong)
}

func (c *Checker) dialAll() ([]*nbdc.Conn, error) {
	var conns []*nbdc.Conn
	for range c.opt.Connections {
		conn, err := c.opt.Dial()
		if err == nil && conn.Size < int64(c.opt.Blocks)*BlockSize {
			conn.Close()
			err = errs.New(errs.Invalid, "stamp: the volume has %d bytes, %d blocks need more", conn.Size, c.opt.Blocks)
		}
		if err != nil {
			for _, conn := range conns {
				conn.Abort()
			}
			return nil, err
		}
		conns = append(conns, conn)
	}
	return conns, nil
}

// maxShown is how many wrong blocks an error names.
const maxShown = 10

func complain(wrong []string) error {
	if len(wrong) == 0 {
		return nil
	}
	text := ""
	for i, w := range wrong {
		if i == maxShown {
			text += fmt.Sprintf("\nand %d more", len(wrong)-maxShown)
			break
		}
		text += "\n" + w
	}
	return errs.New(errs.Corrupt, "stamp: %d blocks are wrong:%s", len(wrong), text)
}

// Verify reads the whole volume after a restart, checks every block against what it may hold, and goes
// on from what it found. An error of kind Corrupt names the blocks that are wrong.
func (c *Checker) Verify() error {
	conn, err := c.opt.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	if c.opt.PowerLoss {
		// What was recovered must stay even if the next crash comes at once.
		if err := conn.Flush(); err != nil {
			return err
		}
	}
	var wrong []string
	buf := make([]byte, 256*BlockSize)
	for block := 0; block < c.opt.Blocks; {
		n := min(256, c.opt.Blocks-block)
		if err := conn.Read(buf[:n*BlockSize], int64(block)*BlockSize); err != nil {
			return errs.Wrap(errs.Of(err), err, "stamp: blocks %d to %d cannot be read", block, block+n-1)
		}
		for i := range n {
			if w := c.oracle.verify(block+i, buf[i*BlockSize:(i+1)*BlockSize]); w != "" {
				wrong = append(wrong, w)
			}
		}
		block += n
	}
	return complain(wrong)
}

// lostConnection says whether err ended the connection, so that nobody knows what became of the request.
func lostConnection(err error) bool {
	var e nbdc.Errno
	return !errors.As(err, &e)
}
