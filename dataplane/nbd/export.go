package nbd

import (
	"vstor/dataplane/block"
	"vstor/dataplane/errs"
	"vstor/dataplane/ring"
)

// Exports is what the server serves. Its methods are called from handshake goroutines, many at once,
// and may block (within Options.HandshakeTimeout, after which the client is gone).
type Exports interface {
	// List is what the LIST option shows.
	List() []ExportInfo
	// Open makes the export ready for one connection. The empty name asks for the default export;
	// errs.Absent says that there is none. The sentence of any error reaches the client.
	Open(name string) (Export, error)
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

// errnoOf is the error value a client sees for a failed request. Unknown kinds are EIO: the client
// then knows that its data is in doubt, which is the safe thing to believe.
func errnoOf(k errs.Kind) Errno {
	switch k {
	case errs.OK:
		return OK
	case errs.Invalid, errs.Unsupported: // ENOTSUP is for fast zeroes alone
		return EINVAL
	case errs.Full:
		return ENOSPC
	case errs.Refused:
		return EPERM
	case errs.Closed:
		return ESHUTDOWN
	}
	return EIO
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
