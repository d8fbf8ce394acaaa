package node

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"vstor/dataplane/buf"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/ring"
)

// memHost is a machine in memory: its process can be killed and its power cut at any moment.
type memHost struct {
	fs     *vfs.MemFS
	boot   byte
	frozen *atomic.Bool

	mu     sync.Mutex
	files  map[string]*gate
	hidden map[string]bool // files whose drive was pulled
}

func newMemHost() *memHost {
	return &memHost{fs: vfs.NewCrashableMem(), boot: 1, frozen: new(atomic.Bool), files: map[string]*gate{},
		hidden: map[string]bool{}}
}

func (h *memHost) FS() vfs.FS             { return h.fs }
func (h *memHost) SyncNeeded(string) bool { return true }
func (h *memHost) BootID() [16]byte       { return [16]byte{h.boot} }

func (h *memHost) Create(path string, size int64, _ bool) (dio.File, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	g := &gate{Mem: dio.NewMem(size), frozen: h.frozen}
	h.files[path] = g
	return handle{g}, nil
}

func (h *memHost) Open(path string) (dio.File, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	g := h.files[path]
	if g == nil || h.hidden[path] {
		return nil, errs.New(errs.Absent, "%s does not exist", path)
	}
	return handle{g}, nil
}

// crash is the machine after this instant's death of the process (power: of the machine). Drives stop
// first: no acknowledgement that rests on a later write can be given, and what the databases still do
// rests on nothing newer.
func (h *memHost) crash(rng *rand.Rand, power bool) *memHost {
	h.frozen.Store(true)
	n := &memHost{boot: h.boot, frozen: new(atomic.Bool), files: map[string]*gate{}, hidden: map[string]bool{}}
	h.mu.Lock()
	for path, g := range h.files {
		g.mu.Lock()
		m := g.Mem.Clone()
		if power {
			m = g.Mem.CrashClone(rng, dio.CrashOptions{})
		}
		g.mu.Unlock()
		n.files[path] = &gate{Mem: m, frozen: n.frozen}
	}
	h.mu.Unlock()
	cfg := vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng}
	if power {
		n.boot++
		cfg.UnsyncedDataPercent = 50 * rng.IntN(3)
	}
	n.fs = h.fs.CrashClone(cfg)
	return n
}

// gate is a drive that stops when its machine does.
type gate struct {
	*dio.Mem
	frozen *atomic.Bool
	mu     sync.RWMutex
}

// handle is an open gate: closing it leaves the drive there.
type handle struct{ g *gate }

func (f handle) Size() int64  { return f.g.Mem.Size() }
func (f handle) Close() error { return nil }

func (f handle) blocking(do func() error) error {
	f.g.mu.RLock()
	defer f.g.mu.RUnlock()
	if f.g.frozen.Load() {
		return errs.New(errs.IO, "the machine is dead")
	}
	return do()
}

func (f handle) ReadAt(p []byte, off int64) error {
	return f.blocking(func() error { return f.g.Mem.ReadAt(p, off) })
}

func (f handle) WriteAt(p []byte, off int64) error {
	return f.blocking(func() error { return f.g.Mem.WriteAt(p, off) })
}

func (f handle) Sync() error { return f.blocking(f.g.Mem.Sync) }

func (f handle) starting(l *ring.Loop, op *ring.Op, do func()) {
	f.g.mu.RLock()
	defer f.g.mu.RUnlock()
	if f.g.frozen.Load() {
		l.Defer(op, -int32(unix.EIO))
		return
	}
	do()
}

func (f handle) ReadV(l *ring.Loop, op *ring.Op, v *buf.Vec, off int64) {
	f.starting(l, op, func() { f.g.Mem.ReadV(l, op, v, off) })
}

func (f handle) WriteV(l *ring.Loop, op *ring.Op, v *buf.Vec, off int64) {
	f.starting(l, op, func() { f.g.Mem.WriteV(l, op, v, off) })
}

func (f handle) Datasync(l *ring.Loop, op *ring.Op) {
	f.starting(l, op, func() { f.g.Mem.Datasync(l, op) })
}
