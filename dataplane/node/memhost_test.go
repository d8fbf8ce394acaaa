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
	frozen *death

	mu     sync.Mutex
	files  map[string]*gate
	hidden map[string]bool // files whose drive was pulled
}

func newMemHost() *memHost {
	return &memHost{fs: vfs.NewCrashableMem(), boot: 1, frozen: newDeath(), files: map[string]*gate{},
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
// rests on nothing newer. What then still runs of the process is deaf and dumb, and fails once it was copied.
func (h *memHost) crash(rng *rand.Rand, power bool) *memHost {
	h.frozen.Store(true)
	defer h.frozen.end()
	n := &memHost{boot: h.boot, frozen: newDeath(), files: map[string]*gate{}, hidden: map[string]bool{}}
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

// death is the end of a machine: true from the moment when nothing reaches its drives any more. Who asks a drive
// after that hears nothing until the machine was copied, and an error then, so that its memory can be given back.
// With an error at once the copy would show what no killed process does: a put whose last fragment fails by its
// death alone is good with the others, and is committed, as the databases live a little longer than the drives.
type death struct {
	atomic.Bool
	over chan struct{} // closed once the machine was copied
	once sync.Once
}

func newDeath() *death { return &death{over: make(chan struct{})} }

func (d *death) end() { d.once.Do(func() { close(d.over) }) }

// gate is a drive that stops when its machine does.
type gate struct {
	*dio.Mem
	frozen *death
	mu     sync.RWMutex
	slow   chan struct{} // if not nil, writes wait until it is closed; guarded by mu
	hung   atomic.Int64  // operations begun after its machine's death
}

// hang hears nothing until the machine was copied.
func (g *gate) hang() {
	g.hung.Add(1)
	<-g.frozen.over
}

// handle is an open gate: closing it leaves the drive there.
type handle struct{ g *gate }

func (f handle) Size() int64  { return f.g.Mem.Size() }
func (f handle) Close() error { return nil }

func (f handle) blocking(do func() error) error {
	f.g.mu.RLock()
	if f.g.frozen.Load() {
		f.g.mu.RUnlock()
		f.g.hang()
		return errs.New(errs.IO, "the machine is dead")
	}
	defer f.g.mu.RUnlock()
	return do()
}

func (f handle) ReadAt(p []byte, off int64) error {
	return f.blocking(func() error { return f.g.Mem.ReadAt(p, off) })
}

func (f handle) WriteAt(p []byte, off int64) error {
	f.g.mu.RLock()
	slow := f.g.slow
	f.g.mu.RUnlock()
	if slow != nil {
		<-slow
	}
	return f.blocking(func() error { return f.g.Mem.WriteAt(p, off) })
}

func (f handle) Sync() error { return f.blocking(f.g.Mem.Sync) }

func (f handle) starting(l *ring.Loop, op *ring.Op, do func()) {
	f.g.mu.RLock()
	defer f.g.mu.RUnlock()
	if !f.g.frozen.Load() {
		do()
		return
	}
	token := l.Hold(op)
	go func() {
		f.g.hang()
		l.PostFunc(func() {
			if l.Unhold(op, token) {
				l.Defer(op, -int32(unix.EIO))
			}
		})
	}()
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
