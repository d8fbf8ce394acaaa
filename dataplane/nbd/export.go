package nbd

import (
	"net"

	"vstor/dataplane/block"
	"vstor/dataplane/errs"
	"vstor/dataplane/ring"
	"vstor/dataplane/tlsconn"
)

// Peer is a client as far as it is known: access may be judged by it.
type Peer struct {
	Addr net.Addr
	TLS  bool             // it came over TLS; else ID is empty
	ID   tlsconn.Identity // what it proved to be
}

// Exports is what the server serves. Its methods are called from handshake goroutines, many at once,
// and may block (within Options.HandshakeTimeout, after which the client is gone).
type Exports interface {
	// List is what the LIST option shows this peer.
	List(Peer) []ExportInfo
	// Open makes the export ready for one connection of this peer. The empty name asks for the default
	// export; errs.Absent says that there is none, errs.Refused that this peer may not have it. The
	// sentence of any error reaches the client.
	Open(name string, p Peer) (Export, error)
}

// Export is an opened export, owned by one connection.
type Export interface {
	// Info is constant while the export is open.
	Info() ExportInfo
	// Loop is the loop the Device lives on; all connections of a vDisk are served there.
	Loop() *ring.Loop
	// Device is used on Loop alone.
	Device() block.Device
	// Close is called once, from a goroutine of its own, after the last request of the connection
	// was completed and its pages were released.
	Close()
}

// ExportInfo describes an export to a client.
type ExportInfo struct {
	Name        string
	Description string // a sentence for a person; may be empty
	Size        int64  // bytes
	ReadOnly    bool
	Rotational  bool
}

// errnoOf is the error value a client sees for a failed request, and why. Unknown kinds are EIO: the
// client then knows that its data is in doubt, which is the safe thing to believe. fast: it was a fast
// zero, the only request that ENOTSUP is for.
func errnoOf(k errs.Kind, fast bool) (Errno, reason) {
	switch k {
	case errs.OK:
		return OK, whyNot
	case errs.Unsupported:
		if fast {
			return ENOTSUP, whySlowZero
		}
		return EINVAL, whyInvalid
	case errs.Invalid:
		return EINVAL, whyInvalid
	case errs.Full:
		return ENOSPC, whyFull
	case errs.Refused:
		return EPERM, whyRefused
	case errs.Closed:
		return ESHUTDOWN, whyClosed
	}
	return EIO, whyDevice
}

// replyOf is the option reply for an export that could not be opened.
func replyOf(k errs.Kind) OptionReply {
	switch k {
	case errs.Refused, errs.Busy, errs.Full:
		return RepErrPolicy
	case errs.Closed, errs.Canceled:
		return RepErrShutdown
	case errs.Unsupported, errs.Version:
		return RepErrPlatform
	}
	return RepErrUnknown
}
