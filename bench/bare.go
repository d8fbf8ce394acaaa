package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"syscall"

	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/config"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/nbd"
	"vstor/dataplane/ring"
)

// BareServer is an NBD server that stores nothing: vstor's own NBD and loop on a file, and between them only what
// nobody can do without who stores erasure coded behind a log. Reads are those of the file, one each; writes go to a
// driveLog there, so that what is read is not what was written. Storage can be faster than that by fewer bytes, a
// cache, or another drive for the log: what it has less is what it costs.
type BareServer struct {
	Socket string // of NBD; made
	File   string // written over
	CPU    int    // that the loop keeps to; below 0: the kernel decides
	Log    *slog.Logger
}

const (
	bareMemory  = 512 << 20
	bareReserve = 1 << 20

	bareRecvBufs = 16
)

// RunBareServer serves until ctx ends. The process should be for this alone.
func RunBareServer(ctx context.Context, b BareServer, out io.Writer) (err error) {
	fd, err := openDirect(b.File)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	pool, err := buf.NewPool(bareMemory, bareReserve)
	if err != nil {
		return err
	}
	defer pool.Close()
	// Loop and runtime are set as those of a deployment, or the two could not be compared.
	runtime.GOMAXPROCS(runtime.NumCPU() + 1)
	opts := ring.Options{Name: "bare", Pool: pool, Spin: runtime.NumCPU() > 1, RecvBufs: bareRecvBufs}
	if b.CPU >= 0 {
		opts.CPUs = []int{b.CPU}
	}
	loop, err := ring.New(opts)
	if err == nil {
		err = loop.Start()
	}
	if err != nil {
		return err
	}
	defer loop.Stop()
	defer ring.Join(loop).Stop()
	d := &bareDisk{loop: loop, fd: fd}
	if err := d.open(b.File); err != nil {
		return err
	}
	defer d.log.close()
	srv, err := nbd.New(nbd.Options{Exports: bareExport{d}, Log: b.Log})
	if err != nil {
		return err
	}
	ln, err := config.ListenUnix(b.Socket)
	if err != nil {
		return err
	}
	defer config.RemoveSocket(b.Socket)
	fmt.Fprintln(out, partReady)
	return serveBare(ctx, srv, ln)
}

// serveBare returns once the last connection is gone.
func serveBare(ctx context.Context, srv *nbd.Server, ln net.Listener) error {
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	var err error
	select {
	case err = <-served:
	case <-ctx.Done():
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout/2)
	defer cancel()
	return errors.Join(err, srv.Shutdown(limit))
}

// bareDisk is the device, on its loop.
type bareDisk struct {
	loop *ring.Loop
	fd   int
	size int64
	log  driveLog
	free []*bareIO
}

// bareIO is a request under way, or free.
type bareIO struct {
	d     *bareDisk
	req   *block.Request
	op    ring.Op
	entry logEntry
}

func (d *bareDisk) open(file string) (err error) {
	st, err := os.Stat(file)
	if err != nil {
		return errs.Wrap(errs.IO, err, "cannot learn the size of a file")
	}
	d.size = st.Size() / ids.BlockSize * ids.BlockSize
	d.loop.Call(func() { err = d.log.open(d.loop, d.fd, d.size) })
	return err
}

func (d *bareDisk) Info() block.Info { return block.Info{Size: d.size} }

// Submit refuses what no job asks for: parts of blocks, changes without data, and flags. Pages for reads are there: NBD
// asks for no more at a time than half of the pool.
func (d *bareDisk) Submit(r *block.Request) {
	x := d.take()
	x.req = r
	whole := r.Off%ids.BlockSize == 0 && r.Len%ids.BlockSize == 0
	switch {
	case r.Op == block.Flush:
		d.loop.Datasync(&x.op, d.fd)
	case r.Op == block.Read && whole && d.loop.Pool().Alloc(&r.Data, int(r.Len/ids.BlockSize)):
		d.loop.ReadV(&x.op, d.fd, &r.Data, r.Off)
	case r.Op == block.Write && whole && r.Flags == 0 && r.Len <= maxBlock:
		x.entry.data, x.entry.size = &r.Data, int(r.Len)
		d.log.add(&x.entry)
	default:
		d.loop.Defer(&x.op, refused)
	}
}

// refused is the end of a request that no job asks for.
const refused = -int32(syscall.EOPNOTSUPP)

func (d *bareDisk) take() *bareIO {
	if n := len(d.free); n > 0 {
		x := d.free[n-1]
		d.free = d.free[:n-1]
		return x
	}
	x := &bareIO{d: d}
	x.op.Done, x.entry.ended = x, x.ended
	return x
}

// RingDone is the end of what is not in the log.
func (x *bareIO) RingDone(_ *ring.Op, res int32) {
	want := 0
	if x.req.Op == block.Read {
		want = int(x.req.Len)
	}
	err := ioFailure(res, want)
	if res == refused {
		err = errs.New(errs.Unsupported, "no job of the bench asks for that")
	}
	x.ended(err)
}

// ended answers. Data of a write is the device's to give back.
func (x *bareIO) ended(err error) {
	r := x.req
	x.req = nil
	x.d.free = append(x.d.free, x)
	if r.Err = errs.OK; err != nil {
		r.Err = errs.Of(err)
	}
	if r.Op != block.Read || err != nil {
		x.d.loop.Pool().ReleaseVec(&r.Data)
	}
	r.Done.Completed(r)
}

// bareExport is all that there is, under the name that jobs ask for.
type bareExport struct{ d *bareDisk }

func (e bareExport) List(nbd.Peer) []nbd.ExportInfo            { return []nbd.ExportInfo{e.Info()} }
func (e bareExport) Open(string, nbd.Peer) (nbd.Export, error) { return e, nil }
func (e bareExport) Info() nbd.ExportInfo                      { return nbd.ExportInfo{Name: volume, Size: e.d.size} }
func (e bareExport) Loop() *ring.Loop                          { return e.d.loop }
func (e bareExport) Device() block.Device                      { return e.d }
func (e bareExport) Close()                                    {}
