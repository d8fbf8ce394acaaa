package remote

import (
	"context"
	"log/slog"
	"net"
	"time"

	"vstor/dataplane/edge/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/link"
	"vstor/dataplane/ring"
	"vstor/dataplane/stat"
)

// Objects is PRACC's cache of manifests, on the loop.
type Objects interface {
	Install(*layout.Manifest)
	Forget(ids.NamespaceID, ids.SCONum)
	// Known reports whether the manifest of an object is there.
	Known(ids.NamespaceID, ids.SCONum) bool
}

// Options make a Remote. Zero fields take the defaults in EnsureDefaults.
type Options struct {
	VDisk      string
	Edge       string // this process's name, for the router's log
	Opener     proto.Opener
	Secret     []byte
	Deployment [16]byte // zeros: any that has the secret
	// Dial connects to the router; addr is empty, or where a router said that the vDisk is.
	Dial     func(ctx context.Context, addr string) (net.Conn, error)
	Mode     proto.Mode
	Takeover bool // fence who holds it now

	Loop    *ring.Loop
	Hub     *link.Hub
	Cache   *Cache
	Objects Objects // nil: none

	StallTimeout time.Duration // requests wait so long for a router; 0: for ever
	RenewEvery   time.Duration
	// LookAgain is how soon a group of blocks is looked up again that the driver had to be asked for. They are in its
	// journal, and a read of them costs a look-up no more often than that.
	LookAgain time.Duration
	InFlight  int           // requests that are unanswered; the router may allow fewer
	BackOff   time.Duration // between attempts to connect, at most
	Link      link.Options
	Clock     func() int64 // as of the call; nil: the boot-time clock
	PassClock func() int64 // the same as of some moment of the loop's pass; nil: Clock, or the boot-time clock
	Log       *slog.Logger
}

// EnsureDefaults fills in zero fields.
func (o *Options) EnsureDefaults() {
	if o.RenewEvery == 0 {
		o.RenewEvery = 5 * time.Second
	}
	if o.LookAgain == 0 {
		o.LookAgain = 250 * time.Millisecond
	}
	if o.InFlight == 0 {
		o.InFlight = 256
	}
	if o.BackOff == 0 {
		o.BackOff = time.Second
	}
	if o.PassClock == nil {
		o.PassClock = o.Clock
	}
	if o.PassClock == nil {
		o.PassClock = o.Loop.BootNow
	}
	if o.Clock == nil {
		o.Clock = o.Loop.BootFresh
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
}

// Validate says what is wrong with o, if anything. Errors: Invalid.
func (o *Options) Validate() error {
	switch {
	case o.Opener == (proto.Opener{}):
		return errs.New(errs.Invalid, "edge: an opener must have a name of its own")
	case o.InFlight < 1 || o.RenewEvery <= 0 || o.BackOff <= 0:
		return errs.New(errs.Invalid, "edge: %d requests in flight, renewed every %v, back off %v: all must be positive",
			o.InFlight, o.RenewEvery, o.BackOff)
	}
	return nil
}

// Stats counts what a Remote did. The loop writes, anyone reads.
type Stats struct {
	Located, Zeros, Asked stat.Counter // blocks, by how they were resolved
	Lookups               stat.Counter
	LookupsSpoiled        stat.Counter // whose answer was not kept in part
	Connects              stat.Counter
	Replayed              stat.Counter // changes that were sent again
	LeaseLost             stat.Counter // times that the lease had run out when it was needed
	Invalidations         stat.Counter
	Corrupt               stat.Counter // answers whose data was not what was sent
	Stalled               stat.Counter // requests that failed because they waited too long
	Connected             stat.Gauge   // 1: a session is open
	Fenced                stat.Gauge   // 1: lost to this edge for good
	Waiting               stat.Gauge   // requests that wait to be sent
}
