package dio

import (
	"fmt"
	"os"

	"github.com/ncw/directio"
	"golang.org/x/sys/unix"

	"vstor/dataplane/errs"
)

// What a process may hand to another of its host, and what that makes of it.
//
// A descriptor that was merely duplicated would not do: it shares its flags, so that one holder can take O_DIRECT
// from all others, its mode, so that whoever gets it could write, and its lock, which would then keep the next
// owner of the drive out for as long as somebody holds a copy. What is handed over is the file opened once more.

// Shared tells one open file from another of the same host.
type Shared struct {
	Size          int64
	Device, Inode uint64 // of a block device: 0 and its number
}

// Share opens the file once more, for reading past the page cache and nothing else, not locked. The descriptor is
// the caller's. It is this very file, whatever its path names by now.
func (d *Disk) Share() (fd int, s Shared, err error) {
	f, err := directio.OpenFile(fmt.Sprintf("/proc/self/fd/%d", d.fd), os.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, s, errs.Wrap(errs.IO, err, "dio: cannot open %s once more", d.path)
	}
	defer f.Close()
	if s, err = identify(int(f.Fd())); err != nil {
		return -1, s, err
	}
	s.Size = d.size
	// An *os.File closes what it holds when nobody knows it any more.
	if fd, err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return -1, s, errs.Wrap(errs.IO, err, "dio: cannot keep %s open once more", d.path)
	}
	return fd, s, nil
}

// identify looks at a descriptor; Size is not set.
func identify(fd int) (s Shared, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return s, errs.Wrap(errs.IO, err, "dio: cannot look at a descriptor")
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return Shared{Device: st.Dev, Inode: st.Ino}, nil
	case unix.S_IFBLK:
		return Shared{Inode: st.Rdev}, nil
	}
	return s, errs.New(errs.Invalid, "dio: a descriptor of mode %#o is neither a file nor a block device", st.Mode)
}

// Adopt makes a Disk of what Share gave in another process; it owns fd from here on, also after an error. path is
// for messages. Errors: Invalid if it is not what was announced, can be written to, or goes through the page cache.
func Adopt(fd int, path string, want Shared) (*Disk, error) {
	f := os.NewFile(uintptr(fd), path)
	if f == nil {
		return nil, errs.New(errs.Invalid, "dio: descriptor %d is none", fd)
	}
	size, err := inspect(fd, f, want)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Disk{f: f, fd: fd, path: path, size: size, bulk: laneOf(fd)}, nil
}

func inspect(fd int, f *os.File, want Shared) (size int64, err error) {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return 0, errs.Wrap(errs.Invalid, err, "dio: cannot look at the descriptor of %s", f.Name())
	}
	is, err := identify(fd)
	if err != nil {
		return 0, err
	}
	is.Size = want.Size
	switch {
	case flags&unix.O_ACCMODE != unix.O_RDONLY:
		return 0, errs.New(errs.Invalid, "dio: the descriptor of %s can be written to", f.Name())
	case flags&unix.O_DIRECT == 0:
		return 0, errs.New(errs.Invalid, "dio: the descriptor of %s goes through the page cache", f.Name())
	case is != want:
		return 0, errs.New(errs.Invalid, "dio: the descriptor of %s is file %d of %d; announced was %d of %d", f.Name(),
			is.Inode, is.Device, want.Inode, want.Device)
	}
	if size, err = f.Seek(0, 2); err != nil {
		return 0, errs.Wrap(errs.IO, err, "dio: cannot measure %s", f.Name())
	}
	if size -= size % BlockSize; size != want.Size {
		return 0, errs.New(errs.Invalid, "dio: the descriptor of %s has %d bytes; announced were %d", f.Name(), size,
			want.Size)
	}
	return size, nil
}
