package remote

import (
	"context"
	"crypto/rand"
	"net"
	"time"

	"vstor/dataplane/edge/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/link"
	"vstor/dataplane/wire"
)

// arrival is what a dialing goroutine posts to the loop: a connection, or why there is none.
type arrival struct {
	r     *Remote
	conn  *link.Conn
	ready proto.Ready
	err   error
	last  error // under Remote.loop: why connecting failed last
}

// dial connects in a goroutine.
func (r *Remote) dial() {
	if r.dialing || r.conn != nil || r.closing || r.stopped || r.fenced != nil {
		return
	}
	r.dialing = true
	go r.connect(r.again, r.addr)
}

const backOffMin = 5 * time.Millisecond

// connect runs in a goroutine of its own: it alone touches r.arrive until it has posted.
func (r *Remote) connect(wait time.Duration, addr string) {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.ctx.Done():
	}
	a := &r.arrive
	a.conn, a.err = nil, r.ctx.Err()
	if a.err == nil {
		a.conn, a.err = r.line(addr)
	}
	if !r.loop.Post(a) && a.conn != nil {
		a.conn.Discard()
	}
}

// line is a connection whose handshake is done.
func (r *Remote) line(addr string) (*link.Conn, error) {
	nc, err := r.opt.Dial(r.ctx, addr)
	if err != nil {
		return nil, errs.Wrap(errs.Unreachable, err, "connecting to the router")
	}
	stop := context.AfterFunc(r.ctx, func() { nc.Close() })
	err = r.ask(nc)
	if !stop() && err == nil {
		err = r.ctx.Err()
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	fd, err := link.Take(nc)
	if err != nil {
		return nil, err
	}
	return link.New(r.opt.Hub, fd, r, r.opt.Link), nil
}

// ask is the edge's side of the handshake. Errors: Unreachable (no answer in time, or the connection broke), Refused
// (another secret or deployment), Absent (no such vDisk), Version, Busy, Closed, Corrupt (it speaks something else).
func (r *Remote) ask(nc net.Conn) error {
	k := &link.Shake{Conn: nc, Refuse: proto.TRefuse, Name: proto.TypeName, Also: errs.Absent}
	if err := k.Begin(r.opt.Secret, 0); err != nil {
		return err
	}
	hello := proto.Hello{Lowest: proto.VersionMin, Highest: proto.Version, Deployment: r.opt.Deployment,
		Opener: r.opt.Opener, VDisk: r.opt.VDisk, Edge: r.opt.Edge}
	rand.Read(hello.Nonce[:])
	said := hello.Append(nil)
	if err := k.Write(proto.THello, errs.OK, said); err != nil {
		return err
	}
	heard, err := k.Read(proto.TWelcome)
	if err != nil {
		return err
	}
	var w proto.Welcome
	if err := w.Decode(heard); err != nil {
		return err
	}
	if w.Version < proto.VersionMin || w.Version > proto.Version {
		return errs.New(errs.Version, "the router chose version %d of the Edge protocol; this build speaks %d to %d",
			w.Version, proto.VersionMin, proto.Version)
	}
	if !wire.SameProof(w.Proof, proto.ProveRouter(r.opt.Secret, said, heard)) {
		return k.Turn(errs.Refused, "the router does not prove that it knows this deployment's secret: it belongs to "+
			"another deployment, or one of the two has a wrong secret file")
	}
	proof := proto.ProveEdge(r.opt.Secret, said, heard)
	if err := k.Write(proto.TAuth, errs.OK, proof[:]); err != nil {
		return err
	}
	last, err := k.Read(proto.TReady)
	if err != nil {
		return err
	}
	if err := r.arrive.ready.Decode(last); err != nil {
		return err
	}
	var zero [16]byte
	if d := r.arrive.ready.Deployment; r.opt.Deployment != zero && d != r.opt.Deployment {
		return errs.New(errs.Refused, "the router belongs to deployment %x, not to %x", d, r.opt.Deployment)
	}
	return k.End()
}

// RunOnLoop implements ring.Message: dialing has ended.
func (a *arrival) RunOnLoop() {
	r, conn, err := a.r, a.conn, a.err
	a.conn = nil // now: a dial from here on has a for itself
	r.dialing = false
	if err != nil {
		a.last = err
	}
	switch {
	case r.over() != errs.OK:
		if conn != nil {
			conn.Discard()
		}
		r.failAll(r.over())
		r.finish()
	case conn != nil:
		r.conn, r.again = conn, max(min(2*r.again, r.opt.BackOff), backOffMin)
		r.limit = max(min(r.opt.InFlight, int(a.ready.Requests)-controls), 1)
		r.room = int64(min(a.ready.Bytes, 1<<62))
		r.Stats.Connects.Inc()
		conn.Start()
		r.started()
	case r.decided && errs.Of(err) == errs.Absent:
		r.fence(err)
	case !r.decided && final(errs.Of(err)):
		r.settle(err)
	default:
		r.again = max(min(2*r.again, r.opt.BackOff), backOffMin)
		r.dial()
	}
}

// controls are the requests that do not wait in line.
const controls = 6

// final: to ask again brings the same.
func final(k errs.Kind) bool {
	return k == errs.Absent || k == errs.Refused || k == errs.Version || k == errs.Invalid
}

// Trouble is why connecting failed last, or nil. Any goroutine but the loop.
func (r *Remote) Trouble() (err error) {
	r.loop.Call(func() { err = r.arrive.last })
	return err
}
