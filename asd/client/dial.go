package client

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"vstor/asd/handshake"
	"vstor/asd/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/ring"
	"vstor/dataplane/tlsconn"
)

// tlsConfig is the caller's with the name that the certificate must have, where that follows from the address.
func tlsConfig(o *Options) *tls.Config {
	if o.TLS == nil {
		return nil
	}
	t := o.TLS.Clone()
	if host, _, err := net.SplitHostPort(o.Addr); t.ServerName == "" && err == nil {
		t.ServerName = host
	}
	return t
}

// line is a connection whose handshake is done.
type line struct {
	nc   net.Conn // what is spoken on: TLS, or the socket itself
	raw  net.Conn // the socket: its Close never waits
	peer *handshake.Peer
}

// dial connects and shakes hands, with capabilities. The end of ctx ends it at once. Errors: as handshake.Ask, and
// Canceled.
func (a *ASD) dial(ctx context.Context, handshake time.Duration, caps uint64) (l line, err error) {
	d := net.Dialer{Timeout: a.opts.DialTimeout, Control: ring.Unpaced}
	l.raw, err = d.DialContext(ctx, a.opts.Network, a.opts.Addr)
	if err != nil {
		return l, gaveUp(ctx, errs.Wrap(errs.Unreachable, err, "connecting"))
	}
	l.nc = l.raw
	stop := context.AfterFunc(ctx, func() { l.raw.Close() })
	err = a.shake(ctx, &l, handshake, caps)
	if !stop() || err != nil {
		l.raw.Close()
		if err == nil {
			l.peer.Drive.Close()
			err = ctx.Err()
		}
		return l, gaveUp(ctx, err)
	}
	return l, nil
}

func (a *ASD) shake(ctx context.Context, l *line, timeout time.Duration, caps uint64) (err error) {
	if _, local := l.nc.(*net.UnixConn); !local || a.opts.TLS != nil {
		caps &^= proto.CapShortCircuit
	}
	if a.opts.TLS != nil {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		t := tls.Client(tlsconn.Layer(l.raw), a.opts.TLS)
		if err := t.HandshakeContext(ctx); err != nil {
			return errs.Wrap(errs.Unreachable, err, "TLS handshake")
		}
		l.nc = t
	}
	l.peer, err = handshake.Ask(l.nc, handshake.AskOptions{Secret: a.opts.Secret, Deployment: a.opts.Deployment,
		UUID: a.opts.UUID,
		ID:   a.opts.ID, Name: a.opts.Name, Caps: caps, Timeout: timeout})
	return err
}

// gaveUp is Canceled if the caller canceled, else err.
func gaveUp(ctx context.Context, err error) error {
	if ctx.Err() == context.Canceled {
		return errs.Wrap(errs.Canceled, ctx.Err(), "connecting was given up")
	}
	return err
}
