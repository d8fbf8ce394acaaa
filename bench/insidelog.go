package bench

import (
	"context"
	"syscall"
)

// logIOs are writes to a driveLog; see closedLoop.
type logIOs struct {
	closedLoop
	log   driveLog
	lanes []logEntry
}

// runLog does them, on the raw file.
func (in *inside) runLog(ctx context.Context, p *Part) (result, error) {
	fd, err := openDirect(p.File)
	if err != nil {
		return result{}, err
	}
	defer syscall.Close(fd)
	w, loop := &logIOs{lanes: make([]logEntry, p.Depth)}, in.vdisk.Loop()
	loop.Call(func() {
		if err = w.holdPages(loop.Pool(), p.Depth, p.Block); err == nil {
			err = w.log.open(loop, fd, p.Bytes)
		}
	})
	defer loop.Call(func() { w.dropPages(loop.Pool()) })
	if err != nil {
		return result{}, err
	}
	for i := range w.lanes {
		w.lanes[i] = logEntry{data: &w.pages[i], size: p.Block, ended: func(err error) { w.ended(i, err) }}
	}
	w.start = func(lane int) { w.log.add(&w.lanes[lane]) }
	r, err := w.run(ctx, loop, p)
	w.log.close()
	return r, err
}
