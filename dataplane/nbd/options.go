package nbd

import (
	"log/slog"
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/errs"
	"vstor/dataplane/tlsconn"
)

// Options of a Server. The zero value of a field means its default.
type Options struct {
	// Exports says what is served. Required.
	Exports Exports
	// Log hears of what an operator should know; default slog.Default.
	Log *slog.Logger

	// TLS shakes hands with clients that ask for TLS; nil: there is none.
	TLS *tlsconn.Server
	// TLSRequired: clients that come over anything but a unix socket get nothing before TLS.
	TLSRequired bool

	// MaxConnections bounds connections in handshake and transmission together; one above it is
	// closed at once. Default 1024.
	MaxConnections int
	// HandshakeTimeout bounds a handshake as a whole. Default 10 s.
	HandshakeTimeout time.Duration

	// MaxInflight bounds the requests of a connection between their header and the end of their
	// reply; above it the socket is not read. Default and at most 256.
	MaxInflight int
	// MaxWriteBytes bounds a connection's write payload in flight, in bytes. Default 64 MiB.
	MaxWriteBytes int64
	// MaxReadBytes bounds a connection's read payload in flight or waiting to be sent, in bytes.
	// Default 64 MiB.
	MaxReadBytes int64
	// LoopReadBytes bounds the same over all connections of a loop. Default: half of the loop's
	// pool, and at least block.MaxRequest.
	LoopReadBytes int64
	// LoopReceiveBytes bounds the pages of a loop that payloads still being received hold. Default:
	// half of the loop's pool.
	LoopReceiveBytes int64
	// LoopStashBytes bounds what connections that stopped reading keep of what they had received,
	// over all connections of a loop. Default 64 MiB.
	LoopStashBytes int64

	// StallTimeout: while connections of a loop wait for memory, one that holds memory and whose peer
	// neither sent nor took a byte for so long is closed. Default 10 s.
	StallTimeout time.Duration
	// LingerTimeout: a connection that receives no more (good-bye, shutdown) is cut off once its peer
	// took no byte of its replies for so long. Default 10 s.
	LingerTimeout time.Duration
}

const maxInflight = 256

// connMemory is what a connection may hold on the Go heap, in bytes: its state and the arrays of three
// scatter lists of batchSegs segments and what its BLOCK_STATUS take, or the goroutine and the buffers of its
// handshake.
const connMemory = 16<<10 + statusMemory

// tlsMemory is what TLS adds to a connection on which nothing moves, in bytes; see tlsconn. What moves has
// buffers of its own, of up to 272 KiB a connection, that all share.
const tlsMemory = 36 << 10

// requestMemory is what a free request may keep, in bytes: itself and an array of segsKept segments.
const requestMemory = 384 + segsKept*12

// Memory is the most that a server with these options holds outside the pools of its loops, in bytes, with or
// without TLS.
func (o Options) Memory(loops int, tls bool) int64 {
	o = o.WithDefaults()
	perLoop := o.LoopStashBytes + stashesKept*stashKeptMax + freeRequestsMax*requestMemory +
		statusesKept*statusMemory/longMax
	perConn := int64(connMemory)
	if tls {
		perConn += tlsMemory
	}
	return int64(o.MaxConnections)*perConn + int64(loops)*perLoop
}

// Validate names the first setting that makes no sense.
func (o *Options) Validate() error {
	switch {
	case o.Exports == nil:
		return errs.New(errs.Invalid, "nbd: Options.Exports is missing")
	case o.TLSRequired && o.TLS == nil:
		return errs.New(errs.Invalid, "nbd: TLS is required of clients, but there are no certificates or keys for it")
	case o.MaxConnections < 0:
		return errs.New(errs.Invalid, "nbd: max connections is %d; it must be at least 1", o.MaxConnections)
	case o.MaxInflight < 0 || o.MaxInflight > maxInflight:
		return errs.New(errs.Invalid, "nbd: max inflight is %d; it must be 1 to %d", o.MaxInflight, maxInflight)
	case o.HandshakeTimeout < 0 || o.StallTimeout < 0 || o.LingerTimeout < 0:
		return errs.New(errs.Invalid, "nbd: a timeout is negative; it must be above 0")
	case o.MaxWriteBytes < 0 || o.LoopReceiveBytes < 0 || o.LoopStashBytes < 0 || o.MaxReadBytes < 0:
		return errs.New(errs.Invalid, "nbd: a limit of bytes is negative; it must be above 0")
	case o.LoopReadBytes != 0 && o.LoopReadBytes < block.MaxRequest:
		return errs.New(errs.Invalid, "nbd: a loop's read bytes are %d; one request may ask for %d",
			o.LoopReadBytes, block.MaxRequest)
	}
	return nil
}

// WithDefaults is o with every zero field replaced by its default, but for those that depend on a
// loop's pool.
func (o Options) WithDefaults() Options {
	def := func(p *int64, v int64) {
		if *p == 0 {
			*p = v
		}
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.MaxConnections == 0 {
		o.MaxConnections = 1024
	}
	if o.MaxInflight == 0 {
		o.MaxInflight = maxInflight
	}
	def(&o.MaxWriteBytes, 64<<20)
	def(&o.MaxReadBytes, 64<<20)
	def(&o.LoopStashBytes, 64<<20)
	def((*int64)(&o.HandshakeTimeout), int64(10*time.Second))
	def((*int64)(&o.StallTimeout), int64(10*time.Second))
	def((*int64)(&o.LingerTimeout), int64(10*time.Second))
	return o
}
