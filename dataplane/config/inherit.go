package config

import (
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"vstor/dataplane/errs"
)

// Inherited are the sockets that whoever started this process has opened for it: a systemd socket unit, or a
// client that starts its server itself (`nbdinfo [ vstor serve ... ]`). They come as descriptors from 3 on,
// with three variables:
//
//	LISTEN_PID      the process they are for: any other one must leave them alone
//	LISTEN_FDS      how many there are
//	LISTEN_FDNAMES  their names, parted by colons; "api" and "*-api.socket" speak HTTP, all others NBD
//
// Whoever has an Inherited owns the listeners in it.
type Inherited struct {
	NBD, API []net.Listener
}

// firstInherited is where the descriptors start, and maxInherited how many are taken: no deployment has use for
// more, and a count that was mistyped should not be walked through.
const (
	firstInherited = 3
	maxInherited   = 64
)

// Inherit takes the sockets that were passed to this process; none if there are none. The variables are gone
// afterwards, so that no child takes them for its own, and no child inherits the descriptors. Call it once,
// before anything is opened or started. After an error the process should end.
func Inherit() (Inherited, error) {
	pid, fds, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(name)
	}
	if pid != strconv.Itoa(os.Getpid()) {
		return Inherited{}, nil
	}
	return inherit(firstInherited, fds, names)
}

func inherit(first int, fds, names string) (in Inherited, err error) {
	n, err := strconv.Atoi(fds)
	if err != nil || n < 0 || n > maxInherited {
		return in, errs.New(errs.Invalid, "LISTEN_FDS is %.40q; it must be the number of sockets passed, from 0 to %d",
			fds, maxInherited)
	}
	list := make([]string, n)
	if names != "" {
		if list = strings.Split(names, ":"); len(list) != n {
			return in, errs.New(errs.Invalid, "LISTEN_FDNAMES has %d names (%.80q) for the %d sockets of LISTEN_FDS; "+
				"give each one, or none", len(list), names, n)
		}
	}
	for i, name := range list {
		l, err := inheritOne(first+i, name)
		if err != nil {
			in.Close()
			return Inherited{}, err
		}
		if name == "api" || strings.HasSuffix(name, "-api.socket") {
			in.API = append(in.API, l)
		} else {
			in.NBD = append(in.NBD, l)
		}
	}
	return in, nil
}

// inheritOne makes a listener of a descriptor and closes that: the listener has one of its own, which children
// do not inherit.
func inheritOne(fd int, name string) (net.Listener, error) {
	what := "descriptor " + strconv.Itoa(fd)
	if name != "" {
		what += " (" + name + ")"
	}
	bad := func(format string, args ...any) error {
		return errs.New(errs.Invalid, "LISTEN_FDS: "+what+" "+format, args...)
	}
	kind, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_TYPE)
	switch {
	case err == syscall.EBADF:
		return nil, bad("is closed: fewer sockets were passed than it says")
	case err != nil:
		return nil, bad("is no socket: %v", err)
	case kind == syscall.SOCK_DGRAM:
		return nil, bad("is a datagram socket; a stream socket would be right: ListenStream= in a socket unit")
	case kind != syscall.SOCK_STREAM:
		return nil, bad("is no stream socket: ListenStream= in a socket unit would be right")
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		return nil, bad("has no address: %v", err)
	}
	switch sa.(type) {
	case *syscall.SockaddrUnix, *syscall.SockaddrInet4, *syscall.SockaddrInet6:
	default:
		return nil, bad("is neither a unix nor a TCP socket")
	}
	if on, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN); err != nil || on == 0 {
		return nil, bad("does not listen: it must be the listening socket itself, Accept=no in a socket unit")
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, bad("cannot be listened on: %v", err)
	}
	return l, nil
}

// Any reports whether there is one.
func (in Inherited) Any() bool { return len(in.NBD)+len(in.API) > 0 }

// Close closes all of them. The socket's file stays: it belongs to whoever made it.
func (in Inherited) Close() {
	for _, list := range [][]net.Listener{in.NBD, in.API} {
		for _, l := range list {
			l.Close()
		}
	}
}

// Listens reports whether one of the listeners is the unix socket at path: then nobody must put another in its
// place, nor remove it.
func Listens(list []net.Listener, path string) bool {
	want, err := os.Stat(path)
	if err != nil {
		return false
	}
	for _, l := range list {
		a, ok := l.Addr().(*net.UnixAddr)
		if !ok || a.Name == "" || a.Name[0] == '@' {
			continue
		}
		if st, err := os.Stat(a.Name); err == nil && os.SameFile(st, want) {
			return true
		}
	}
	return false
}
