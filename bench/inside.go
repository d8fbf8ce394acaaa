package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/config"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/node"
)

// Part is a part of a deployment's path, to be driven alone: see RunPart.
type Part struct {
	Config config.Config // of a deployment that nobody runs, with the bench's vDisk
	Log    *slog.Logger
	Name   string // of a target: one of those called alone
	Write  bool
	// Sequential IOs go over it again and again in order; others are anywhere in it.
	Sequential bool
	Bytes      int64 // of the vDisk, or of File, from its start on: what is gone over
	Block      int   // of an IO, in bytes
	Depth      int   // at least 1
	For        time.Duration
	File       string // what the drive is driven on where it is alone
}

// maxBlock is the longest IO of a part.
const maxBlock = 4 << 20

// check says what is wrong with a part. Errors: Invalid.
func (p *Part) check() error {
	switch {
	case p.Depth < 1 || p.For <= 0 || p.Bytes < ids.BlockSize:
		return errs.New(errs.Invalid, "a part needs a depth and a time above 0, and at least %d bytes", ids.BlockSize)
	case p.Block < ids.BlockSize || p.Block > maxBlock || p.Block%ids.BlockSize != 0 || int64(p.Block) > p.Bytes:
		return errs.New(errs.Invalid, "an IO of %d bytes: it must be a multiple of %d, at most %d and no longer than what "+
			"is gone over", p.Block, ids.BlockSize, maxBlock)
	case !slices.Contains(parts, p.Name):
		return errs.New(errs.Invalid, "there is no part %q; there are %s", p.Name, strings.Join(parts, ", "))
	case p.Write && slices.Contains(readers, p.Name):
		return errs.New(errs.Invalid, "%s does not write", p.Name)
	case !p.Write && p.Name == logAlone:
		return errs.New(errs.Invalid, "%s does nothing but write", p.Name)
	case p.Block != ids.BlockSize && slices.Contains(readers, p.Name):
		return errs.New(errs.Invalid, "%s reads blocks of %d bytes", p.Name, ids.BlockSize)
	}
	return nil
}

// readers are parts that do not write, and read blocks one by one.
var readers = []string{praccAlone, ramAlone, ssdAlone, fragsAlone}

// partReady is what RunPart says when it may be told to begin.
const partReady = "ready"

// RunPart opens the deployment, says so, begins the job at a line of orders, answers with its result, a line of JSON,
// and keeps the deployment open until ctx or orders end: what the job left to be done in the background is done
// meanwhile. With a block cache all that the job goes over is read before. The process should be for this alone: the
// deployment makes the runtime's settings its own, and ends threads, on which children that were to die with their
// parent depend.
func RunPart(ctx context.Context, p Part, orders io.Reader, out io.Writer) error {
	if err := p.check(); err != nil {
		return err
	}
	in, err := openInside(p.Config, p.Log)
	if err != nil {
		return err
	}
	return errors.Join(in.serve(ctx, &p, orders, out), in.close())
}

// serve is RunPart on what is open.
func (in *inside) serve(ctx context.Context, p *Part, orders io.Reader, out io.Writer) error {
	job, err := in.job(ctx, p)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, partReady)
	begin, end := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(end)
		if _, err := orders.Read(make([]byte, 1)); err == nil {
			close(begin)
			io.Copy(io.Discard, orders)
		}
	}()
	select {
	case <-begin:
	case <-end:
		return nil
	case <-ctx.Done():
		return nil
	}
	r, err := job()
	if err != nil {
		return err
	}
	if err := json.NewEncoder(out).Encode(r); err != nil {
		return errs.Wrap(errs.IO, err, "cannot tell the result")
	}
	select {
	case <-end:
	case <-ctx.Done():
	}
	return nil
}

// job does what there is to do before, and returns the rest.
func (in *inside) job(ctx context.Context, p *Part) (func() (result, error), error) {
	switch p.Name {
	case driveAlone:
		return func() (result, error) { return in.runDrive(ctx, p) }, nil
	case logAlone:
		return func() (result, error) { return in.runLog(ctx, p) }, nil
	}
	if size := in.vdisk.Disk().Info().Size; p.Bytes > size {
		return nil, errs.New(errs.Invalid, "the vDisk has %d bytes, not %d", size, p.Bytes)
	}
	places, err := in.find(p.Bytes) // which brings the map into memory, for all
	if err != nil {
		return nil, err
	}
	if p.Name == fragsAlone {
		if places, err = in.fillFragments(ctx, p.Bytes); err != nil {
			return nil, err
		}
	}
	if p.Config.BlockCache > 0 {
		if err := in.fillBlocks(ctx, p); err != nil {
			return nil, err
		}
	}
	edge := func() (result, error) { return in.runEdge(ctx, p) }
	fetch := func() (result, error) { return in.runFetches(ctx, places, p) }
	switch {
	case p.Name == edgeAlone:
		return edge, nil
	case p.Name == ssdAlone:
		return func() (result, error) { return in.counting(ctx, p.Name, edge) }, nil
	case len(places) == 0:
		return nil, errs.New(errs.Absent, "nothing of the vDisk is in objects yet")
	case p.Name == ramAlone:
		return func() (result, error) { return in.runGets(ctx, places, p.For) }, nil
	case p.Name == fragsAlone:
		return func() (result, error) { return in.counting(ctx, p.Name, fetch) }, nil
	}
	return fetch, nil
}

// inside is a deployment opened in this process, and its vDisk.
type inside struct {
	node  *node.Node
	vdisk *node.Bare
}

func openInside(cfg config.Config, log *slog.Logger) (*inside, error) {
	n, err := node.Start(node.Options{Config: cfg, NoNBD: true, Log: log, Fatal: func(err error) {
		log.Error("the deployment cannot go on", "error", err)
		os.Exit(1)
	}})
	if err != nil {
		return nil, err
	}
	v, err := n.OpenBare(volume)
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return &inside{n, v}, nil
}

func (in *inside) close() error {
	in.vdisk.Close()
	return in.node.Close()
}

// fillSize is of the reads and writes that fill a cache, in bytes.
const fillSize = 1 << 20

// told is an IO's end for a goroutine that waits for it.
type told struct {
	pool *buf.Pool
	kind chan errs.Kind
}

// Completed gives back what was read.
func (t told) Completed(r *block.Request) {
	t.pool.ReleaseVec(&r.Data)
	t.kind <- r.Err
}

// MapLoaded is the end of a wait for a page of the map.
func (t told) MapLoaded(k errs.Kind) { t.kind <- k }

func (in *inside) teller() told { return told{in.vdisk.Loop().Pool(), make(chan errs.Kind, 1)} }

// readThrough reads the first bytes of the vDisk, in order.
func (in *inside) readThrough(ctx context.Context, bytes int64) error {
	t, disk := in.teller(), in.vdisk.Disk()
	for off := int64(0); off < bytes; off += fillSize {
		r := block.Request{Op: block.Read, Off: off, Len: uint32(min(fillSize, bytes-off)), Done: t}
		in.vdisk.Loop().Call(func() { disk.Submit(&r) })
		if k := <-t.kind; k != errs.OK {
			return errs.New(k, "the vDisk cannot be read at %d", off)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// edgeIOs are requests to the Edge; see closedLoop.
type edgeIOs struct {
	closedLoop
	in      *inside
	op      block.Op
	at      offsets
	lanes   []edgeIO
	waiting []int // lanes that wait for pages, the first first
	asleep  bool  // until it is time to look for pages again
}

type edgeIO struct {
	of   *edgeIOs
	lane int
	req  block.Request
}

// pagesAgain is when to look for pages after there were none. Lanes have them in turn: were they for whoever happens to
// look first, an IO could wait for seconds.
const pagesAgain = 100 * time.Microsecond

// runEdge does reads or writes below NBD: the Edge, and all that is below it. Of what is written the content is
// whatever is in the pages.
func (in *inside) runEdge(ctx context.Context, p *Part) (result, error) {
	e := &edgeIOs{in: in, op: block.Read, at: p.offsets(), lanes: make([]edgeIO, p.Depth)}
	if p.Write {
		e.op = block.Write
	}
	for i := range e.lanes {
		l := &e.lanes[i]
		l.of, l.lane = e, i
	}
	e.start = e.submit
	return e.run(ctx, in.vdisk.Loop(), p)
}

func (e *edgeIOs) submit(lane int) {
	l := &e.lanes[lane]
	l.req = block.Request{Op: e.op, Off: e.at.next(), Len: uint32(e.at.block), Done: l, Data: l.req.Data}
	e.waiting = append(e.waiting, lane)
	e.send()
}

// send submits what waits, writes once there are pages for them, as a connection waits for them.
func (e *edgeIOs) send() {
	loop := e.in.vdisk.Loop()
	for len(e.waiting) > 0 {
		l := &e.lanes[e.waiting[0]]
		switch {
		case e.over():
			e.leave()
		case e.op != block.Write || loop.Pool().Alloc(&l.req.Data, e.at.block/ids.BlockSize):
			e.in.vdisk.Disk().Submit(&l.req)
		default:
			if !e.asleep {
				e.asleep = true
				time.AfterFunc(pagesAgain, func() { loop.PostFunc(e.wake) })
			}
			return
		}
		e.waiting = slices.Delete(e.waiting, 0, 1)
	}
}

func (e *edgeIOs) wake() {
	e.asleep = false
	e.send()
}

// Completed gives the pages back and goes on.
func (l *edgeIO) Completed(r *block.Request) {
	l.of.in.vdisk.Loop().Pool().ReleaseVec(&r.Data)
	l.of.ended(l.lane, failure(r.Err))
}

// failure is an error of an IO that ended so; nil if it went well.
func failure(k errs.Kind) error {
	if k == errs.OK {
		return nil
	}
	return errs.New(k, "an IO of the bench failed")
}
