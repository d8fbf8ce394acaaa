package journal

import (
	"math/rand/v2"
	"syscall"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ring"
)

// drive is a dio.File in memory whose operations end when and how a test says, in any order. It knows
// which blocks an fdatasync has covered, and makes images of what a crash at this moment may leave.
type drive struct {
	mem    []byte
	stable []byte           // what survives power loss for certain
	dirty  map[int]struct{} // blocks where mem may differ from stable
	flying []*flight
	hold   bool // operations wait for land; otherwise they end in the same pass
	dead   bool // the process was killed: operations never end
	failW  int  // the write after this many fails; 0 = none does
	failS  int  // likewise fdatasync
	badAt  map[int]bool
	onceAt map[int]bool // blocks that can be read once, and then are badAt
	writes int
	syncs  int
	peakS  int // fdatasyncs in flight at once
	onSync func()
}

type flight struct {
	d     *drive
	l     *ring.Loop
	op    *ring.Op
	sync  bool
	fail  bool
	off   int64
	data  [][]byte
	cover map[int][]byte // a sync: blocks as they were when it began
}

func newDrive(size int64) *drive {
	return &drive{mem: make([]byte, size), stable: make([]byte, size), dirty: map[int]struct{}{}, badAt: map[int]bool{},
		onceAt: map[int]bool{}}
}

func (d *drive) ReadAt(p []byte, off int64) error {
	for b := off / BlockSize; b < (off+int64(len(p)))/BlockSize; b++ {
		if d.badAt[int(b)] || d.badAt[-1] {
			return errs.New(errs.IO, "drive: block %d is unreadable", b)
		}
	}
	copy(p, d.mem[off:off+int64(len(p))])
	for b := off / BlockSize; b < (off+int64(len(p)))/BlockSize; b++ {
		d.badAt[int(b)] = d.badAt[int(b)] || d.onceAt[int(b)]
	}
	return nil
}

func (d *drive) WriteAt(p []byte, off int64) error {
	copy(d.mem[off:], p)
	for b := off / BlockSize; b < (off+int64(len(p))+BlockSize-1)/BlockSize; b++ {
		d.dirty[int(b)] = struct{}{}
	}
	return nil
}

func (d *drive) Sync() error {
	for b := range d.dirty {
		copy(d.block(d.stable, b), d.block(d.mem, b))
	}
	clear(d.dirty)
	return nil
}

func (d *drive) block(m []byte, b int) []byte { return m[b*BlockSize : (b+1)*BlockSize] }
func (d *drive) Size() int64                  { return int64(len(d.mem)) }
func (d *drive) Close() error                 { return nil }

func (d *drive) ReadV(l *ring.Loop, op *ring.Op, _ *buf.Vec, _ int64) {
	l.Defer(op, -int32(syscall.ENOSYS))
}

func (d *drive) WriteV(l *ring.Loop, op *ring.Op, v *buf.Vec, off int64) {
	f := &flight{d: d, l: l, op: op, off: off}
	for _, s := range v.Segs {
		f.data = append(f.data, l.Pool().SegBytes(s))
	}
	d.writes++
	f.fail = d.failW != 0 && d.writes >= d.failW
	d.fly(f)
}

func (d *drive) Datasync(l *ring.Loop, op *ring.Op) {
	f := &flight{d: d, l: l, op: op, sync: true, cover: map[int][]byte{}}
	for b := range d.dirty {
		f.cover[b] = append([]byte(nil), d.block(d.mem, b)...)
	}
	d.syncs++
	if d.onSync != nil {
		d.onSync()
	}
	f.fail = d.failS != 0 && d.syncs >= d.failS
	d.fly(f)
	n := 0
	for _, o := range d.flying {
		if o.sync {
			n++
		}
	}
	d.peakS = max(d.peakS, n)
}

func (d *drive) fly(f *flight) {
	if d.dead {
		return
	}
	d.flying = append(d.flying, f)
	if !d.hold {
		d.land(f)
	}
}

// land ends an operation. Loop only.
func (d *drive) land(f *flight) {
	for i, o := range d.flying {
		if o == f {
			d.flying = append(d.flying[:i], d.flying[i+1:]...)
			break
		}
	}
	switch {
	case f.fail:
		f.l.Defer(f.op, -int32(syscall.EIO))
	case f.sync:
		for b, old := range f.cover {
			copy(d.block(d.stable, b), old)
			if string(old) == string(d.block(d.mem, b)) {
				delete(d.dirty, b)
			}
		}
		f.l.Defer(f.op, 0)
	default:
		f.l.Defer(f.op, int32(f.put(d, nil)))
	}
}

// put writes what is in flight into m, whole or, with r, as a crash leaves it: each sector or not.
func (f *flight) put(d *drive, r *rand.Rand) int {
	off, n := f.off, 0
	whole := r == nil || r.IntN(3) == 0
	for _, p := range f.data {
		for len(p) > 0 {
			if whole || r.IntN(4) > 0 {
				copy(d.mem[off:], p[:512])
				d.dirty[int(off/BlockSize)] = struct{}{}
			}
			p, off, n = p[512:], off+512, n+512
		}
	}
	return n
}

// kill is the image that kill -9 leaves: all that ended, and of what was in flight any part.
func (d *drive) kill(r *rand.Rand) *drive {
	c := newDrive(d.Size())
	copy(c.mem, d.mem)
	copy(c.stable, d.stable)
	for b := range d.dirty {
		c.dirty[b] = struct{}{}
	}
	for _, f := range d.flying {
		if !f.sync {
			f.put(c, r)
		}
	}
	return c
}

// powerLoss is the image that power loss leaves: of what no fdatasync covered any sector may be old.
func (d *drive) powerLoss(r *rand.Rand) *drive {
	c := d.kill(r)
	for b := range int(d.Size() / BlockSize) {
		if _, dirty := c.dirty[b]; !dirty {
			continue
		}
		mode := r.IntN(4)
		for at := 0; at < BlockSize; at += 512 {
			if mode == 0 || (mode == 1 && r.IntN(2) == 0) {
				i := b*BlockSize + at
				copy(c.mem[i:i+512], c.stable[i:i+512])
			}
		}
	}
	copy(c.stable, c.mem)
	clear(c.dirty)
	return c
}
