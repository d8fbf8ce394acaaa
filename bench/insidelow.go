package bench

import (
	"context"
	"math/rand/v2"
	"os"
	"syscall"

	"vstor/dataplane/block"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/ring"
)

// fetches are reads of a block each by PRACC, which is told where they lie; see closedLoop.
type fetches struct {
	closedLoop
	in     *inside
	places []layout.Location
	lanes  []fetchOne
}

type fetchOne struct {
	of   *fetches
	lane int
	f    block.Fetch
	sum  [1]uint32
}

// runFetches has PRACC read random ones of these blocks.
func (in *inside) runFetches(ctx context.Context, places []layout.Location, p *Part) (r result, err error) {
	f := &fetches{in: in, places: places, lanes: make([]fetchOne, p.Depth)}
	loop := in.vdisk.Loop()
	loop.Call(func() { err = f.holdPages(loop.Pool(), p.Depth, p.Block) })
	defer loop.Call(func() { f.dropPages(loop.Pool()) })
	if err != nil {
		return result{}, err
	}
	for i := range f.lanes {
		l := &f.lanes[i]
		l.of, l.lane = f, i
	}
	f.start = f.fetch
	return f.run(ctx, loop, p)
}

// findStep is how many blocks the map is asked for at a time.
const findStep = 256

// find is where blocks lie, of the first bytes of the vDisk: those that are in objects. It is good as long as nothing
// is cleaned: who wants it has the vDisk written through in order before, and nobody writes now.
func (in *inside) find(bytes int64) (places []layout.Location, err error) {
	t, blocks := in.teller(), bytes/ids.BlockSize
	for addr := int64(0); addr < blocks; {
		run, known := make([]layout.Location, min(findStep, blocks-addr)), false
		in.vdisk.Loop().Call(func() { known = in.vdisk.Volume().Locate(ids.BlockAddr(addr), run, t) })
		if !known {
			if k := <-t.kind; k != errs.OK {
				return nil, errs.New(k, "the map of block %d cannot be read", addr)
			}
			continue
		}
		for _, l := range run {
			if l.SCO != 0 {
				places = append(places, l)
			}
		}
		addr += int64(len(run))
	}
	return places, nil
}

func (p *fetches) fetch(lane int) {
	l, at := &p.lanes[lane], p.places[rand.IntN(len(p.places))]
	l.sum[0] = at.Sum
	l.f = block.Fetch{Kind: block.Stored, NS: p.in.vdisk.Volume().Namespace(at), SCO: at.SCO, Off: uint32(at.Off),
		Count: 1, Sums: l.sum[:], Dst: &p.pages[lane], Done: l}
	p.in.vdisk.PRACC().Fetch(&l.f)
}

// FetchDone goes on; PRACC has verified the block.
func (l *fetchOne) FetchDone(f *block.Fetch) { l.of.ended(l.lane, failure(f.Err)) }

// driveIOs are IOs on a file, past the page cache: the loop and the drive alone; see closedLoop.
type driveIOs struct {
	closedLoop
	loop  *ring.Loop
	fd    int
	write bool
	at    offsets
	lanes []driveIO
}

type driveIO struct {
	of   *driveIOs
	lane int
	op   ring.Op
}

// runDrive does reads or writes of a file on the loop.
func (in *inside) runDrive(ctx context.Context, p *Part) (result, error) {
	fd, err := openDirect(p.File)
	if err != nil {
		return result{}, err
	}
	defer syscall.Close(fd)
	w := &driveIOs{loop: in.vdisk.Loop(), fd: fd, write: p.Write, at: p.offsets(), lanes: make([]driveIO, p.Depth)}
	w.loop.Call(func() { err = w.holdPages(w.loop.Pool(), p.Depth, p.Block) })
	defer w.loop.Call(func() { w.dropPages(w.loop.Pool()) })
	if err != nil {
		return result{}, err
	}
	for i := range w.lanes {
		l := &w.lanes[i]
		l.of, l.lane, l.op.Done = w, i, l
	}
	w.start = w.begin
	return w.run(ctx, w.loop, p)
}

// openDirect opens a file to be driven past the page cache.
func openDirect(path string) (fd int, err error) {
	fd, err = syscall.Open(path, syscall.O_RDWR|syscall.O_DIRECT|syscall.O_CLOEXEC, 0)
	if err != nil {
		return 0, errs.Wrap(errs.IO, &os.PathError{Op: "open", Path: path, Err: err}, "cannot drive a file alone")
	}
	return fd, nil
}

func (w *driveIOs) begin(lane int) {
	l := &w.lanes[lane]
	if w.write {
		w.loop.WriteV(&l.op, w.fd, &w.pages[lane], w.at.next())
		return
	}
	w.loop.ReadV(&l.op, w.fd, &w.pages[lane], w.at.next())
}

// RingDone goes on.
func (l *driveIO) RingDone(_ *ring.Op, res int32) {
	l.of.ended(l.lane, ioFailure(res, l.of.at.block))
}

// ioFailure is the error of an IO on the raw file that ended so; nil if it did what it was asked for.
func ioFailure(res int32, want int) error {
	if int(res) == want {
		return nil
	}
	return errs.Wrap(errs.IO, syscall.Errno(max(-res, 0)), "an IO of %d bytes on the raw file ended with %d", want, res)
}
