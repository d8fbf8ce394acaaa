package dio

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"vstor/dataplane/errs"
)

// directCapable refuses file systems that live in memory: new kernels accept O_DIRECT there and ignore it,
// and a drive that forgets everything at power loss is no drive. at exists, path is what to complain about.
func directCapable(at, path string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(at, &st); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return errs.Wrap(errs.Absent, err, "dio: there is no %s", at)
		}
		return errs.Wrap(errs.IO, err, "dio: cannot look at %s", at)
	}
	switch uint32(st.Type) {
	case unix.TMPFS_MAGIC, unix.RAMFS_MAGIC:
		return noDirect(nil, path, fsName(uint32(st.Type)))
	}
	return nil
}

func noDirect(cause error, path, fs string) error {
	const text = "dio: %s is on %s, which has no direct IO; put it on ext4 or xfs"
	if cause == nil {
		return errs.New(errs.Unsupported, text, path, fs)
	}
	return errs.Wrap(errs.Unsupported, cause, text, path, fs)
}

func openError(err error, path string) error {
	switch {
	case errors.Is(err, syscall.EINVAL):
		fs := "a file system"
		var st unix.Statfs_t
		if unix.Statfs(filepath.Dir(path), &st) == nil {
			fs = fsName(uint32(st.Type))
		}
		return noDirect(err, path, fs)
	case errors.Is(err, syscall.EBUSY):
		return errs.Wrap(errs.Busy, err, "dio: %s is in use, as a mount perhaps", path)
	case errors.Is(err, os.ErrPermission):
		return errs.Wrap(errs.Refused, err, "dio: no permission to open %s", path)
	case errors.Is(err, os.ErrNotExist):
		return errs.Wrap(errs.Absent, err, "dio: there is no %s", path)
	}
	return errs.Wrap(errs.IO, err, "dio: cannot open %s", path)
}

// spaceError explains why size bytes could not be reserved.
func spaceError(err error, path string, size int64) error {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		free := ""
		var st unix.Statfs_t
		if unix.Statfs(filepath.Dir(path), &st) == nil {
			free = fmt.Sprintf("; %d are free", int64(st.Bavail)*st.Bsize)
		}
		return errs.Wrap(errs.Full, err, "dio: no room for the %d bytes of %s%s", size, path, free)
	case errors.Is(err, unix.EFBIG):
		return errs.Wrap(errs.Invalid, err, "dio: %d bytes are more than a file can hold where %s lies",
			size, path)
	}
	return errs.Wrap(errs.IO, err, "dio: cannot reserve %d bytes for %s", size, path)
}

func fsName(magic uint32) string {
	switch magic {
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	case unix.RAMFS_MAGIC:
		return "ramfs"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlayfs"
	case unix.NFS_SUPER_MAGIC:
		return "NFS"
	case unix.FUSE_SUPER_MAGIC:
		return "a FUSE file system"
	case unix.ECRYPTFS_SUPER_MAGIC:
		return "ecryptfs"
	}
	return fmt.Sprintf("a file system of type %#x", magic)
}

// syncDir makes the entry of a new file durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return errs.Wrap(errs.IO, err, "dio: cannot open %s", dir)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return errs.Wrap(errs.IO, err, "dio: cannot sync %s", dir)
	}
	return nil
}

// WriteThroughCache reports whether the device that path is, or lies on, says that it has no volatile
// write cache: what it has accepted survives power loss. False if in doubt.
func WriteThroughCache(path string) bool { return writeThrough("/sys", path) }

func writeThrough(sysfs, path string) bool {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return false
	}
	return readWord(blockDir(sysfs, &st), "queue/write_cache") == "write through"
}

// blockDir is the folder below sysfs of the block device that a file is or lies on, of the whole one where that is a
// partition, which has no queue. Empty: the kernel tells nothing of it, as of a file system over several.
func blockDir(sysfs string, st *unix.Stat_t) string {
	dev := st.Dev
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		dev = st.Rdev
	}
	// The entry is a link into the device tree.
	dir, err := filepath.EvalSymlinks(filepath.Join(sysfs, "dev/block", devName(dev)))
	if err != nil {
		return ""
	}
	if _, err := os.Stat(filepath.Join(dir, "queue")); err != nil {
		dir = filepath.Dir(dir)
	}
	return dir
}

// readWord is what a file of sysfs says, or nothing.
func readWord(dir, name string) string {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func devName(dev uint64) string { return fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev)) }
