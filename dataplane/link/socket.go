package link

import (
	"net"
	"syscall"

	"vstor/dataplane/ring"
	"vstor/dataplane/tlsconn"
)

// Take makes of nc, whose handshake is done, a descriptor for New: the socket itself, or for everything that
// is none, such as a TLS connection, one end of a pair that tlsconn.Pump fills. nc is not the caller's any more,
// also after an error.
func Take(nc net.Conn) (fd int, err error) {
	if _, ok := nc.(syscall.Conn); !ok {
		return tlsconn.Pump(nc)
	}
	fd, err = ring.Socket(nc)
	nc.Close() // after Socket this closes one of two descriptors of the socket
	return fd, err
}
