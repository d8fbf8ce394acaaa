package client

import (
	"crypto/tls"
	"log/slog"
	"net"
	"time"

	"vstor/asd/proto"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// Options say which ASD is meant and how to talk to it. Zero fields take the defaults in EnsureDefaults.
type Options struct {
	ID         ids.ASDID
	UUID       [16]byte // zeros: whoever answers
	Deployment [16]byte // zeros: any that has the secret
	Secret     []byte   // the deployment's, proto.SecretSize bytes
	Network    string   // tcp or unix
	Addr       string
	TLS        *tls.Config // nil: none
	Name       string      // who asks, for the ASD's log
	Away       *dio.Away   // of the drive that it writes, if that is on this machine; nil: none
	// ShortCircuit: on a unix socket, Readers ask the ASD for its drive, and Direct reads it.
	ShortCircuit bool

	BulkConns   int           // calls at a time
	CallTimeout time.Duration // of a call whose context allows more
	DialTimeout time.Duration // until the socket is connected
	IdleTimeout time.Duration // after which an unused pooled connection is closed

	StatEvery    time.Duration // between two looks at the ASD's health
	AnswerWithin time.Duration // an ASD that takes longer is down
	Patience     time.Duration // for a late answer, and for a handshake, before the connection is given up
	RetryMin     time.Duration // before the first attempt to connect anew; doubles up to
	RetryMax     time.Duration // this
	RetryRefused time.Duration // after a refusal: another ASD, another secret, another version

	Log *slog.Logger
	// OnState is told when the ASD comes up, and when it goes down or the reason why it is down changes. It is
	// called from one goroutine and must not block.
	OnState func(up bool, err error)
}

// retryRefusedMax: where the machine says at once that nobody listens, asking costs nothing, and an ASD that
// was restarted shall not wait.
const retryRefusedMax = 80 * time.Millisecond

// EnsureDefaults fills in zero fields.
func (o *Options) EnsureDefaults() {
	def := func(p *time.Duration, d time.Duration) {
		if *p == 0 {
			*p = d
		}
	}
	if o.Network == "" {
		o.Network = "tcp"
	}
	if o.BulkConns == 0 {
		o.BulkConns = 8
	}
	def(&o.CallTimeout, 30*time.Second)
	def(&o.DialTimeout, time.Second)
	def(&o.IdleTimeout, time.Minute)
	def(&o.StatEvery, time.Second)
	def(&o.AnswerWithin, time.Second)
	def(&o.Patience, 5*time.Second)
	def(&o.RetryMin, 50*time.Millisecond)
	def(&o.RetryMax, 2*time.Second)
	def(&o.RetryRefused, 5*time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.OnState == nil {
		o.OnState = func(bool, error) {}
	}
}

// Validate says what is wrong with o, if anything. Errors: Invalid.
func (o *Options) Validate() error {
	for _, d := range []time.Duration{o.CallTimeout, o.DialTimeout, o.IdleTimeout, o.StatEvery,
		o.AnswerWithin, o.Patience,
		o.RetryMin, o.RetryMax, o.RetryRefused} {
		if d <= 0 {
			return errs.New(errs.Invalid, "asd %d: a time of %v; all must be positive", o.ID, d)
		}
	}
	switch {
	case o.Network != "tcp" && o.Network != "unix":
		return errs.New(errs.Invalid, "asd %d: network %q; tcp or unix would be right", o.ID, o.Network)
	case o.Addr == "":
		return errs.New(errs.Invalid, "asd %d: no address given", o.ID)
	case len(o.Secret) != proto.SecretSize:
		return errs.New(errs.Invalid, "asd %d: a secret of %d bytes; %d would be right", o.ID, len(o.Secret),
			proto.SecretSize)
	case o.BulkConns < 1 || o.BulkConns > 1024:
		return errs.New(errs.Invalid, "asd %d: %d connections for calls; between 1 and 1024 would be right",
			o.ID, o.BulkConns)
	case o.RetryMax < o.RetryMin:
		return errs.New(errs.Invalid, "asd %d: RetryMax %v is below RetryMin %v", o.ID, o.RetryMax, o.RetryMin)
	case len(o.Name) > proto.NameMax:
		return errs.New(errs.Invalid, "asd %d: a name of %d bytes; at most %d would be right", o.ID,
			len(o.Name), proto.NameMax)
	}
	if o.Network == "tcp" {
		if _, _, err := net.SplitHostPort(o.Addr); err != nil {
			return errs.Wrap(errs.Invalid, err, "asd %d: address %q; host:port would be right", o.ID, o.Addr)
		}
	}
	return nil
}
