package server

import (
	"crypto/tls"
	"log/slog"
	"time"

	"vstor/asd/handshake"
	"vstor/asd/proto"
	"vstor/asd/store"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
	"vstor/dataplane/link"
	"vstor/dataplane/ring"
)

// Options of a Server. The zero value of a field means its default.
type Options struct {
	// Store is what is served. It stays the caller's, who closes it after Shutdown. Required.
	Store *store.Store
	// Secret is the deployment's, proto.SecretSize bytes. Required.
	Secret []byte
	// Name is for logs and the loop; default "asd-" and the ASD's number.
	Name string
	// Log hears of what an operator should know; default slog.Default.
	Log *slog.Logger
	// TLS is used on all listeners but unix sockets; nil is none. For mutual TLS it says so.
	TLS *tls.Config

	// IO is what carries the loop's operations; default io_uring where there is one.
	IO ring.IO
	// PoolBytes are the pages of reads and lists from the request until the reply has left, in bytes.
	// Default 32 MiB.
	PoolBytes int64
	// MaxFragment is the longest payload of a put, in bytes; default 4 MiB, at most store.MaxPayload.
	MaxFragment int
	// PutBuffers of MaxFragment bytes are for puts, from the first byte received until they are durable. Several
	// shorter puts share one. Twice as many puts are written at once. Default 8.
	PutBuffers int
	// Workers is the number of goroutines for all other requests that may wait for the drive or the index;
	// one of them serves deletes and fences alone. Default 4, at least 2.
	Workers int

	// MaxConnections and MaxHandshakes bound connections after and during the handshake. Defaults 256
	// and 32.
	MaxConnections int
	MaxHandshakes  int
	// MaxRequests is how many requests of a connection may be unanswered; default 256. MaxBytes is how
	// many bytes they may ask for or carry; default half of PoolBytes. One request goes beyond it.
	MaxRequests int
	MaxBytes    int64

	// HandshakeTimeout bounds a handshake as a whole; default 5 s.
	HandshakeTimeout time.Duration
	// StallTimeout: while connections wait for memory, one that holds some and whose peer neither sends nor
	// takes a byte for so long is closed. Default 5 s.
	StallTimeout time.Duration
	// IdleTimeout: a connection on which nothing happened for so long is closed. Default 15 min.
	IdleTimeout time.Duration

	// Share opens the drive once more for a peer on this host, who then reads it by itself under leases of
	// Lease; nil is not. The store must let deleted space rest for at least as long. Default of Lease 20 s.
	Share handshake.Sharer
	Lease time.Duration

	// AllowFaults lets peers set faults, by way of SetFaults, which runs on a worker. The text is the
	// peer's, empty to take all back; the kind and sentence of its error go to the peer.
	AllowFaults bool
	SetFaults   func(text string) error
}

// DefaultLease is for how long a peer that reads the drive itself may use what it was told.
const DefaultLease = 20 * time.Second

const (
	// requestsMax bounds the requests of all connections from their header until the reply has left.
	requestsMax = 4096
	// getBuffers of proto.ReadMax bytes are for verified reads.
	getBuffers = 4
	// requestMemory and keptMemory are what a request may hold on the Go heap, in bytes: itself and what it
	// needs, and the lists of the longest that a free one keeps. opMemory is that of a read of the drive.
	requestMemory = 1024
	keptMemory    = 4096
	opMemory      = 256

	recvBufs    = 32
	recvBufSize = 64 << 10
	// runUnit is in what unit a fresh pool gives contiguous pages, in bytes.
	runUnit = 64 * buf.PageSize
	poolMin = 2 * proto.ReadMax
)

// EnsureDefaults replaces every zero field by its default.
func (o *Options) EnsureDefaults() {
	num := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	span := func(p *time.Duration, v time.Duration) {
		if *p == 0 {
			*p = v
		}
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Name == "" && o.Store != nil {
		o.Name = "asd-" + o.Store.ID().String()
	}
	if o.PoolBytes == 0 {
		o.PoolBytes = 32 << 20
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = o.PoolBytes / 2
	}
	num(&o.MaxFragment, 4<<20)
	num(&o.PutBuffers, 8)
	num(&o.Workers, 4)
	num(&o.MaxConnections, 256)
	num(&o.MaxHandshakes, 32)
	num(&o.MaxRequests, 256)
	span(&o.HandshakeTimeout, 5*time.Second)
	span(&o.StallTimeout, 5*time.Second)
	span(&o.IdleTimeout, 15*time.Minute)
	span(&o.Lease, DefaultLease)
}

// Validate names the first setting that makes no sense. REQUIRES: EnsureDefaults.
func (o *Options) Validate() error {
	switch {
	case o.Store == nil:
		return errs.New(errs.Invalid, "asd server: Options.Store is missing")
	case len(o.Secret) != proto.SecretSize:
		return errs.New(errs.Invalid, "asd server: the secret has %d bytes; it must have %d", len(o.Secret),
			proto.SecretSize)
	case o.PoolBytes < poolMin:
		return errs.New(errs.Invalid, "asd server: a pool of %d bytes; it must have at least %d", o.PoolBytes, poolMin)
	case o.MaxFragment < buf.PageSize || o.MaxFragment > store.MaxPayload || o.MaxFragment%buf.PageSize != 0:
		return errs.New(errs.Invalid, "asd server: fragments of %d bytes; it must be whole pages, at most %d",
			o.MaxFragment, store.MaxPayload)
	case o.PutBuffers < 1 || o.PutBuffers > 1024:
		return errs.New(errs.Invalid, "asd server: %d put buffers; it must be 1 to 1024", o.PutBuffers)
	case o.Workers < 2 || o.Workers > 256:
		return errs.New(errs.Invalid, "asd server: %d workers; it must be 2 to 256", o.Workers)
	case o.MaxConnections < 1 || o.MaxHandshakes < 1 || o.MaxRequests < 1 || o.MaxBytes < 1:
		return errs.New(errs.Invalid, "asd server: a limit of connections, handshakes, requests or bytes is below 1")
	case o.MaxConnections > 32768:
		return errs.New(errs.Invalid, "asd server: %d connections; at most 32768 would be right", o.MaxConnections)
	case o.HandshakeTimeout < 0 || o.StallTimeout < 0 || o.IdleTimeout < 0:
		return errs.New(errs.Invalid, "asd server: a timeout is negative; it must be above 0")
	case o.Share != nil && (o.Lease <= 0 || o.Store.Quarantine() < o.Lease):
		return errs.New(errs.Invalid, "asd server: leases of %v on a store where deleted space rests for %v; it must rest "+
			"for at least as long", o.Lease, o.Store.Quarantine())
	case o.AllowFaults && o.SetFaults == nil:
		return errs.New(errs.Invalid, "asd server: faults are allowed, but SetFaults is missing")
	}
	return nil
}

// putRun and getRun are the pages of a put buffer, headroom included, and of a buffer for a verified read.
func (o *Options) putRun() int64 { return roundUp(int64(o.MaxFragment)+layout.FragHeaderSize, runUnit) }
func (o *Options) getRun() int64 { return proto.ReadMax }

func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }

// poolSize is the sum of the pool's users: reads and lists, puts, verified reads, and a page of headers per
// connection.
func (o *Options) poolSize() int64 {
	return o.PoolBytes + int64(o.PutBuffers)*o.putRun() + getBuffers*o.getRun() +
		int64(o.MaxConnections)*buf.PageSize + runUnit // the pool's own zeros
}

func (o *Options) ringOptions(pool *buf.Pool) ring.Options {
	return ring.Options{Name: o.Name, IO: o.IO, Pool: pool, RecvBufs: recvBufs, RecvBufSize: recvBufSize}
}

// hubOptions: every connection may stall with a full receive buffer.
func (o *Options) hubOptions() link.HubOptions {
	return link.HubOptions{StashBytes: int64(o.MaxConnections) * recvBufSize}
}

// Memory is the most that a server with these options maps and holds, in bytes. The store and what TLS
// takes are apart.
func (o Options) Memory() int64 {
	o.EnsureDefaults()
	hub := o.hubOptions()
	return o.poolSize() + o.ringOptions(nil).Memory() + hub.Memory(o.MaxConnections) +
		int64(min(requestsMax, o.MaxConnections*o.MaxRequests))*requestMemory + freeRequestsMax*keptMemory +
		o.PoolBytes/buf.PageSize*opMemory
}
