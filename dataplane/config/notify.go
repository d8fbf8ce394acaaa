package config

import (
	"net"
	"os"
	"strings"

	"vstor/dataplane/errs"
)

// Notifier tells the service manager how far this process is (sd_notify: a datagram to the socket that
// NOTIFY_SOCKET names). Without that variable it does nothing. The zero Notifier does nothing either.
type Notifier struct{ path string }

// NewNotifier takes NOTIFY_SOCKET away, so that no child speaks for this process.
func NewNotifier() Notifier {
	n := Notifier{os.Getenv("NOTIFY_SOCKET")}
	os.Unsetenv("NOTIFY_SOCKET")
	return n
}

// Tell sends lines like READY=1. An error is worth a warning and no more: who does not listen must not stop us.
func (n Notifier) Tell(lines ...string) error {
	if n.path == "" {
		return nil
	}
	if n.path[0] != '/' && n.path[0] != '@' {
		return errs.New(errs.Invalid, "NOTIFY_SOCKET is %.100q; it must be a path, or a name that begins with @", n.path)
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.path, Net: "unixgram"})
	if err == nil {
		_, err = c.Write([]byte(strings.Join(lines, "\n")))
		c.Close()
	}
	if err != nil {
		return errs.Wrap(errs.IO, err, "cannot tell the service manager")
	}
	return nil
}
