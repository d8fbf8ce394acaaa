package dio

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/ncw/directio"
	"golang.org/x/sys/unix"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ring"
)

// Options say how a Disk is opened or created.
type Options struct {
	// WriteThrough makes Create write every byte once and sync, instead of only reserving the space:
	// the first write to a reserved extent must convert it, which costs an update of the file system's
	// own log each time, and an fdatasync may be skipped only on a file that needs none.
	WriteThrough bool
	// ReadOnly opens for reading, beside other readers.
	ReadOnly bool
}

// Disk is a preallocated regular file or a block device. Any goroutine may call it.
type Disk struct {
	f    *os.File
	fd   int
	path string
	size int64
	bulk *lane
}

// Open opens an existing regular file or block device for direct IO and locks it. Errors: errs.Absent, Busy
// if it is open elsewhere or mounted, Unsupported where there is no direct IO, Invalid if it is neither.
func Open(path string, o Options) (*Disk, error) {
	st, err := os.Stat(path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, errs.Wrap(errs.Absent, err, "dio: there is no %s", path)
		}
		return nil, errs.Wrap(errs.IO, err, "dio: cannot look at %s", path)
	}
	device := st.Mode()&os.ModeDevice != 0 && st.Mode()&os.ModeCharDevice == 0
	if !st.Mode().IsRegular() && !device {
		return nil, errs.New(errs.Invalid, "dio: %s is neither a file nor a block device", path)
	}
	if !device {
		if err := directCapable(path, path); err != nil {
			return nil, err
		}
	}
	flags := os.O_RDWR
	if o.ReadOnly {
		flags = os.O_RDONLY
	}
	if device && !o.ReadOnly {
		// Without O_CREAT this means: not if the kernel itself uses the device, as for a mount.
		flags |= os.O_EXCL
	}
	f, err := directio.OpenFile(path, flags, 0)
	if err != nil {
		return nil, openError(err, path)
	}
	d, err := adopt(f, path, device, o)
	if err != nil {
		f.Close()
		return nil, err
	}
	return d, nil
}

// adopt locks an open file and measures it.
func adopt(f *os.File, path string, device bool, o Options) (*Disk, error) {
	how := unix.LOCK_EX
	if o.ReadOnly {
		how = unix.LOCK_SH
	}
	fd := int(f.Fd())
	if err := unix.Flock(fd, how|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errs.Wrap(errs.Busy, err, "dio: %s is in use by another process", path)
		}
		return nil, errs.Wrap(errs.IO, err, "dio: cannot lock %s", path)
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, errs.Wrap(errs.IO, err, "dio: cannot measure %s", path)
	}
	if device {
		size -= size % BlockSize
	}
	if size%BlockSize != 0 {
		return nil, errs.New(errs.Invalid, "dio: %s holds %d bytes, which is no multiple of %d: "+
			"vstor did not make it", path, size, BlockSize)
	}
	return &Disk{f: f, fd: fd, path: path, size: size, bulk: laneOf(fd)}, nil
}

// Create makes a file of size bytes, reserves all of its space, opens and locks it. If it fails there is
// no file. Errors: errs.Exists, Full if the space lacks, Unsupported where there is no direct IO.
func Create(path string, size int64, o Options) (d *Disk, err error) {
	if size <= 0 || size%BlockSize != 0 {
		return nil, errs.New(errs.Invalid, "dio: a file of %d bytes; a positive multiple of %d would be right",
			size, BlockSize)
	}
	if o.ReadOnly {
		return nil, errs.New(errs.Invalid, "dio: a file cannot be created read-only")
	}
	dir := filepath.Dir(path)
	if err := directCapable(dir, path); err != nil {
		return nil, err
	}
	f, err := directio.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil, errs.Wrap(errs.Exists, err, "dio: %s exists already", path)
	}
	if err != nil {
		if errors.Is(err, syscall.EINVAL) {
			// The file is made before the flag is looked at.
			os.Remove(path)
		}
		return nil, openError(err, path)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(path)
		}
	}()
	if err := reserve(f, path, size, o.WriteThrough); err != nil {
		return nil, err
	}
	if err := syncDir(dir); err != nil {
		return nil, err
	}
	return adopt(f, path, false, o)
}

// reserve takes the space of a new file.
func reserve(f *os.File, path string, size int64, write bool) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		write = true
	case err != nil:
		return spaceError(err, path, size)
	}
	if write {
		if err := writeZeros(f, size); err != nil {
			return spaceError(err, path, size)
		}
	}
	if err := f.Sync(); err != nil {
		return errs.Wrap(errs.IO, err, "dio: cannot sync %s", path)
	}
	return nil
}

func writeZeros(f *os.File, size int64) error {
	const piece = 1 << 20
	zeros, err := AlignedBuf(piece)
	if err != nil {
		return err
	}
	defer FreeBuf(zeros)
	for off := int64(0); off < size; off += piece {
		if _, err := f.WriteAt(zeros[:min(piece, size-off)], off); err != nil {
			return err
		}
	}
	return nil
}

// Path is where it was opened, Fd the descriptor, valid until Close.
func (d *Disk) Path() string { return d.path }
func (d *Disk) Fd() int      { return d.fd }

func (d *Disk) Size() int64 { return d.size }

func (d *Disk) ReadAt(p []byte, off int64) error {
	if err := checkRange(d.size, off, len(p)); err != nil {
		return err
	}
	if _, err := d.f.ReadAt(p, off); err != nil {
		return errs.Wrap(errs.IO, err, "dio: reading %d bytes at %d of %s", len(p), off, d.path)
	}
	return nil
}

func (d *Disk) WriteAt(p []byte, off int64) error {
	if err := checkRange(d.size, off, len(p)); err != nil {
		return err
	}
	if c := d.bulk.enter(context.Background(), len(p)); c != nil {
		defer func() { <-c }()
	}
	if _, err := d.f.WriteAt(p, off); err != nil {
		return errs.Wrap(errs.IO, err, "dio: writing %d bytes at %d of %s", len(p), off, d.path)
	}
	return nil
}

func (d *Disk) Sync() error {
	for {
		err := unix.Fdatasync(d.fd)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return errs.Wrap(errs.IO, err, "dio: syncing %s", d.path)
		}
	}
}

// Close unlocks and closes.
func (d *Disk) Close() error {
	if err := d.f.Close(); err != nil {
		return errs.Wrap(errs.IO, err, "dio: closing %s", d.path)
	}
	return nil
}

func (d *Disk) ReadV(l *ring.Loop, op *ring.Op, v *buf.Vec, off int64) {
	if n := v.Len(); inRange(l, op, d.size, off, n) {
		d.bulk.use(l.Now(), n)
		l.ReadV(op, d.fd, v, off)
	}
}

func (d *Disk) WriteV(l *ring.Loop, op *ring.Op, v *buf.Vec, off int64) {
	if n := v.Len(); inRange(l, op, d.size, off, n) {
		d.bulk.use(l.Now(), n)
		l.WriteV(op, d.fd, v, off)
	}
}

func (d *Disk) Datasync(l *ring.Loop, op *ring.Op) {
	d.bulk.use(l.Now(), 0)
	l.Datasync(op, d.fd)
}
