package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
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
	Bytes  int64 // of the vDisk, or of File, from its start on: what is gone over
	Depth  int   // at least 1
	For    time.Duration
	File   string // what "drive alone" drives
}

// partReady is what RunPart says when it may be told to begin.
const partReady = "ready"

// RunPart opens the deployment, says so, begins the job at a line of orders, answers with its result, a line of JSON,
// and keeps the deployment open until ctx or orders end: what the job left to be done in the background is done
// meanwhile. With a block cache all that the job goes over is read before. The process should be for this alone: the
// deployment makes the runtime's settings its own, and ends threads, on which children that were to die with their
// parent depend.
func RunPart(ctx context.Context, p Part, orders io.Reader, out io.Writer) error {
	switch {
	case p.Depth < 1 || p.For <= 0 || p.Bytes < ids.BlockSize:
		return errs.New(errs.Invalid, "a part needs a depth and a time above 0, and at least %d bytes", ids.BlockSize)
	case !slices.Contains(parts, p.Name):
		return errs.New(errs.Invalid, "there is no part %q; there are %s", p.Name, strings.Join(parts, ", "))
	case p.Name == praccAlone && p.Write:
		return errs.New(errs.Invalid, "PRACC does not write")
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
	op := block.Read
	if p.Write {
		op = block.Write
	}
	if p.Name == driveAlone {
		return func() (result, error) { return in.runDrive(ctx, p.File, op, p.Bytes, p.Depth, p.For) }, nil
	}
	if size := in.vdisk.Disk().Info().Size; p.Bytes > size {
		return nil, errs.New(errs.Invalid, "the vDisk has %d bytes, not %d", size, p.Bytes)
	}
	places, err := in.find(p.Bytes) // which brings the map into memory, for either
	if err != nil {
		return nil, err
	}
	if p.Name == praccAlone {
		if len(places) == 0 {
			return nil, errs.New(errs.Absent, "nothing of the vDisk is in objects yet")
		}
		return func() (result, error) { return in.runFetches(ctx, places, p.Depth, p.For) }, nil
	}
	if p.Config.BlockCache > 0 {
		if err := in.readThrough(ctx, p.Bytes); err != nil {
			return nil, err
		}
	}
	return func() (result, error) { return in.runEdge(ctx, op, p.Bytes, p.Depth, p.For) }, nil
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

// readSize is of the reads that fill a cache, in bytes.
const readSize = 1 << 20

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
	for off := int64(0); off < bytes; off += readSize {
		r := block.Request{Op: block.Read, Off: off, Len: uint32(min(readSize, bytes-off)), Done: t}
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

// edgeIOs are requests of a block each to the Edge; see closedLoop.
type edgeIOs struct {
	closedLoop
	in    *inside
	op    block.Op
	size  int64 // bytes of the vDisk that they go over
	lanes []edgeIO
}

type edgeIO struct {
	of    *edgeIOs
	lane  int
	req   block.Request
	again func()
}

// runEdge does random reads or writes below NBD: the Edge, and all that is below it. Of what is written the content is
// whatever is in the page.
func (in *inside) runEdge(ctx context.Context, op block.Op, size int64, depth int, d time.Duration) (result, error) {
	e := &edgeIOs{in: in, op: op, size: size, lanes: make([]edgeIO, depth)}
	for i := range e.lanes {
		l := &e.lanes[i]
		l.of, l.lane, l.again = e, i, func() { e.submit(i) }
	}
	e.start = e.submit
	return e.run(ctx, in.vdisk.Loop(), depth, d)
}

func (e *edgeIOs) submit(lane int) {
	l, loop := &e.lanes[lane], e.in.vdisk.Loop()
	l.req = block.Request{Op: e.op, Off: rand.Int64N(e.size/ids.BlockSize) * ids.BlockSize, Len: ids.BlockSize, Done: l,
		Data: l.req.Data}
	if e.op == block.Write && !loop.Pool().Alloc(&l.req.Data, 1) {
		if e.over() {
			e.leave()
			return
		}
		time.AfterFunc(time.Millisecond, func() { loop.PostFunc(l.again) }) // as a connection waits: pages come back
		return
	}
	e.in.vdisk.Disk().Submit(&l.req)
}

// Completed gives the page back and goes on.
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
