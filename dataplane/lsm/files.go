package lsm

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// errFile marks what the file system itself refused, as opposed to what Pebble made of its bytes.
var errFile = new(fileError)

type fileError struct{ err error }

func (e *fileError) Error() string        { return e.err.Error() }
func (e *fileError) Unwrap() error        { return e.err }
func (e *fileError) Is(target error) bool { return target == error(errFile) }

// marked keeps "does not exist" as it is: of a table that the manifest names, that is damage.
func marked(err error) error {
	if err == nil || errors.Is(err, os.ErrNotExist) {
		return err
	}
	return &fileError{err}
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

const (
	logSuffix      = ".log"
	manifestPrefix = "MANIFEST-"
	markerPrefix   = "marker.manifest." // its file's name ends with the name of the manifest in force
)

// LogErr is the first error of a write to a log, or nil. Where a log cannot be written, closed or made,
// Pebble panics, in a place where a deferred unlock then ends the process. So Pebble does not learn of it:
// whoever commits asks here before believing that anything is durable. After the first error nothing more
// is written to a log, so that it ends like one torn by power loss, and nothing is removed, because a
// folder whose Sync failed may need what looks obsolete.
func (g *Guard) LogErr() error {
	if e := g.logErr.Load(); e != nil {
		return *e
	}
	return nil
}

func (g *Guard) keep(err error) {
	if err != nil && g.logErr.CompareAndSwap(nil, &err) {
		g.opts.Log("%s: its log cannot be written any more: %v", g.opts.Name, err)
	}
}

// retryFull runs do again for as long as it finds the file system full and there is ballast to give up.
func (g *Guard) retryFull(do func() error) error {
	err := do()
	for isFull(err) && g.ballast.drop(g) {
		err = do()
	}
	return err
}

func (g *Guard) wrapLog(f vfs.File, err error) (vfs.File, error) {
	if g.keep(err); err != nil {
		f = vfs.NewMemFile(nil)
	}
	return &logFile{File: f, g: g}, nil
}

// fullPause slows down what Pebble would try again at once.
const fullPause = 200 * time.Millisecond

// Create watches logs and manifests.
func (g *Guard) Create(name string, c vfs.DiskWriteCategory) (f vfs.File, err error) {
	err = g.retryFull(func() (err error) { f, err = g.FS.Create(name, c); return err })
	base := g.PathBase(name)
	switch {
	case strings.HasSuffix(base, logSuffix):
		return g.wrapLog(f, err)
	case err != nil:
		if isFull(err) {
			time.Sleep(fullPause)
		}
		return nil, marked(err)
	case strings.HasPrefix(base, manifestPrefix):
		return &manifestFile{File: f, g: g, num: manifestNum(base)}, nil
	case strings.HasPrefix(base, markerPrefix):
		g.manifest.Lock()
		g.manifest.moved = manifestNum(base)
		g.manifest.Unlock()
		return f, nil
	}
	return &tableFile{File: f, g: g}, nil
}

// ReuseForWrite makes a log of an old one.
func (g *Guard) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (f vfs.File, err error) {
	err = g.retryFull(func() (err error) { f, err = g.FS.ReuseForWrite(from, to, c); return err })
	if strings.HasSuffix(to, logSuffix) {
		return g.wrapLog(f, err)
	}
	return f, marked(err)
}

// Open notes the logs that are read, and marks what the file system refuses.
func (g *Guard) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if strings.HasSuffix(name, logSuffix) {
		g.logs.Lock()
		if g.logs.read != nil {
			g.logs.read[g.PathBase(name)] = true
		}
		g.logs.Unlock()
	}
	f, err := g.FS.Open(name, opts...)
	return f, marked(err)
}

// OpenDir watches the syncs of the folder: a log that is not in it is no log.
func (g *Guard) OpenDir(name string) (vfs.File, error) {
	d, err := g.FS.OpenDir(name)
	if err != nil {
		return nil, marked(err)
	}
	return &folder{logFile{File: d, g: g}}, nil
}

// Remove removes nothing once the log has failed.
func (g *Guard) Remove(name string) error {
	if g.LogErr() != nil {
		return nil
	}
	return g.FS.Remove(name)
}

// logFile is a log; the folder it lies in is one, too.
type logFile struct {
	vfs.File
	g *Guard
}

func (l *logFile) Write(p []byte) (int, error) {
	if l.g.LogErr() == nil {
		_, err := l.g.writeAll(l.File, p)
		l.g.keep(err)
	}
	return len(p), nil
}

// writeAll writes p, over full file systems for as long as there is ballast.
func (g *Guard) writeAll(f vfs.File, p []byte) (int, error) {
	done := 0
	err := g.retryFull(func() error {
		n, err := f.Write(p[done:])
		done += n
		return err
	})
	return done, err
}

func (l *logFile) sync(do func() error) error {
	if l.g.LogErr() == nil {
		l.g.keep(l.g.retryFull(do))
	}
	return nil
}

func (l *logFile) Sync() error     { return l.sync(l.File.Sync) }
func (l *logFile) SyncData() error { return l.sync(l.File.SyncData) }

func (l *logFile) SyncTo(n int64) (full bool, err error) {
	if l.g.LogErr() != nil {
		return true, nil
	}
	full, err = l.File.SyncTo(n)
	l.g.keep(err)
	return full, nil
}

// Preallocate is a hint.
func (l *logFile) Preallocate(off, n int64) error {
	if l.g.LogErr() == nil {
		_ = l.File.Preallocate(off, n)
	}
	return nil
}

func (l *logFile) Close() error {
	l.g.keep(l.File.Close())
	return nil
}

// folder notes which manifest is the one in force.
type folder struct{ logFile }

// Sync makes a marker durable that was there when it began.
func (d *folder) Sync() error {
	x := &d.g.manifest
	x.Lock()
	moved := x.moved
	x.Unlock()
	err := d.logFile.Sync()
	if d.g.LogErr() != nil {
		return err
	}
	x.Lock()
	defer x.Unlock()
	if x.next.Num == moved && x.now.Num < moved {
		x.now = x.next
	}
	return err
}

// manifestFile notes how much of the manifest is durable. A new one counts from when the marker names it: until
// then a crash brings the old one back, with nothing lost.
type manifestFile struct {
	vfs.File
	g            *Guard
	num, written uint64
}

func (m *manifestFile) Write(p []byte) (int, error) {
	n, err := m.g.writeAll(m.File, p)
	m.written += uint64(n)
	return n, err
}

func (m *manifestFile) Sync() error {
	n := m.written
	if err := m.g.retryFull(m.File.Sync); err != nil {
		return err
	}
	x := &m.g.manifest
	x.Lock()
	if x.now.Num == m.num {
		x.now.Len = n
	} else {
		x.next = Mark{Num: m.num, Len: n}
	}
	x.Unlock()
	return nil
}

func manifestNum(name string) uint64 {
	num, _ := strconv.ParseUint(name[strings.LastIndex(name, manifestPrefix)+len(manifestPrefix):], 10, 64)
	return num
}

// Manifest is the number of the manifest and how many bytes of it are known to be durable; zeros before
// this process has written any.
func (g *Guard) Manifest() Mark {
	x := &g.manifest
	x.Lock()
	defer x.Unlock()
	return x.now
}

// tableFile is a table being written: without room for it Pebble tries again at once.
type tableFile struct {
	vfs.File
	g *Guard
}

func (t *tableFile) Write(p []byte) (int, error) {
	n, err := t.g.writeAll(t.File, p)
	if isFull(err) {
		time.Sleep(fullPause)
	}
	return n, err
}
