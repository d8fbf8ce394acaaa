package config

import (
	"errors"
	"net"
	"os"
	"syscall"

	"vstor/dataplane/errs"
)

// maxSocketPath is what the kernel's sun_path holds, less its final zero and the ".new" of ListenUnix.
const maxSocketPath = 103

// CheckSocketPath refuses a path that is too long for a unix socket.
func CheckSocketPath(path string) error {
	if len(path) > maxSocketPath {
		return errs.New(errs.Invalid,
			"the socket's path %s has %d bytes, the kernel allows %d: choose a --dir with a shorter path",
			path, len(path), maxSocketPath)
	}
	return nil
}

// ListenUnix listens on a socket that only this user can connect to, in place of one that a dead
// process left. It is bound under another name, restricted and then renamed: nobody can connect in
// between. The caller holds the folder's lock. Closing the listener leaves the file; RemoveSocket it.
func ListenUnix(path string) (*net.UnixListener, error) {
	if err := CheckSocketPath(path); err != nil {
		return nil, err
	}
	if st, err := os.Lstat(path); err == nil && st.Mode()&os.ModeSocket == 0 {
		return nil, errs.New(errs.Exists, "%s is there and is no socket: name another path, or remove it", path)
	}
	tmp := path + ".new"
	os.Remove(tmp)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, errs.Wrap(errs.IO, bareCause(err), "cannot listen on %s", path)
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(tmp, 0o600); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		l.Close()
		os.Remove(tmp)
		return nil, errs.Wrap(errs.IO, bareCause(err), "cannot listen on %s", path)
	}
	return l, nil
}

// bareCause is an error without the path in it, which nobody named and nobody will find.
func bareCause(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// RemoveSocket removes a socket's file after its listener was closed.
func RemoveSocket(path string) { os.Remove(path) }
