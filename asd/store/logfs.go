package store

import (
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// logFS stands between Pebble and the files of its log. Where a log cannot be written, closed or created,
// Pebble panics, in a place where a deferred unlock then ends the process: a full disk would kill the
// daemon. So the log's errors are kept here and Pebble does not learn of them; commit and close ask
// whether there was one before they believe anything.
//
// After the first error nothing more is written to a log, so that it ends like one that was torn by power
// loss, and nothing is removed, because a folder whose Sync failed may need what looks obsolete.
type logFS struct {
	vfs.FS
	failed atomic.Pointer[error]
}

func (f *logFS) Unwrap() vfs.FS { return f.FS }

// err is the first error of a log, or nil.
func (f *logFS) err() error {
	if e := f.failed.Load(); e != nil {
		return *e
	}
	return nil
}

func (f *logFS) keep(err error) {
	if err != nil {
		first := err // err itself would move to the heap, with each call
		f.failed.CompareAndSwap(nil, &first)
	}
}

func isLog(name string) bool { return strings.HasSuffix(name, ".log") }

// wrap makes a log file of what the file system gave, and one that goes nowhere of an error.
func (f *logFS) wrap(file vfs.File, err error) (vfs.File, error) {
	if f.keep(err); err != nil {
		file = vfs.NewMemFile(nil)
	}
	return &logFile{File: file, fs: f}, nil
}

func (f *logFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if isLog(name) {
		return f.wrap(f.FS.Create(name, c))
	}
	return f.FS.Create(name, c)
}

func (f *logFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if isLog(to) {
		return f.wrap(f.FS.ReuseForWrite(from, to, c))
	}
	return f.FS.ReuseForWrite(from, to, c)
}

func (f *logFS) OpenDir(name string) (vfs.File, error) {
	d, err := f.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &logFile{File: d, fs: f}, nil
}

func (f *logFS) Remove(name string) error {
	if f.err() != nil {
		return nil
	}
	return f.FS.Remove(name)
}

// logFile is a log, or the folder it lies in.
type logFile struct {
	vfs.File
	fs *logFS
}

func (l *logFile) Write(p []byte) (int, error) {
	if l.fs.err() == nil {
		_, err := l.File.Write(p)
		l.fs.keep(err)
	}
	return len(p), nil
}

func (l *logFile) Sync() error {
	if l.fs.err() == nil {
		l.fs.keep(l.File.Sync())
	}
	return nil
}

func (l *logFile) SyncData() error {
	if l.fs.err() == nil {
		l.fs.keep(l.File.SyncData())
	}
	return nil
}

func (l *logFile) SyncTo(n int64) (bool, error) {
	if l.fs.err() != nil {
		return true, nil
	}
	full, err := l.File.SyncTo(n)
	l.fs.keep(err)
	return full, nil
}

// Preallocate is a hint.
func (l *logFile) Preallocate(off, n int64) error {
	if l.fs.err() == nil {
		_ = l.File.Preallocate(off, n)
	}
	return nil
}

func (l *logFile) Close() error {
	l.fs.keep(l.File.Close())
	return nil
}
