package remote

import "vstor/dataplane/errs"

// stall fails what has waited for a router longer than it may; where one is there, what has waited so long for another
// edge to give the vDisk up: that one may hang in the midst of a change. What the router was told it bounds itself,
// what it is told again too: a new connection would only have to wait until the changes of this one come to rest.
func (r *Remote) stall(now int64) {
	if r.opt.StallTimeout == 0 {
		return
	}
	old := now - int64(r.opt.StallTimeout)
	if r.state >= replaying && now-r.heard < int64(2*r.opt.RenewEvery) {
		if !r.mayChange() {
			r.stallChanges(now, errs.IO)
			r.failOwning(errs.IO, old)
			r.sendNext()
		}
		return
	}
	if c := r.out.head; c != nil && c.since <= old && r.conn != nil {
		r.conn.Abort(errs.New(errs.Unreachable, "requests have waited for the router for %v", r.opt.StallTimeout))
		return // they come back, and the next look finds them
	}
	for _, l := range []*callList{&r.replay, &r.waiting} {
		r.stallOut(l, errs.IO, func(c *call) bool { return c.since <= old })
	}
	r.failOwning(errs.IO, old)
	r.sendNext()
}

// stallChanges fails the changes in line that have waited as long as they may, with k. What was asked for a moment
// later than those that the router fails begins to wait there, and so waits up to twice as long as it should: the
// router counts from when it was told.
func (r *Remote) stallChanges(now int64, k errs.Kind) {
	if old := now - int64(r.opt.StallTimeout); r.opt.StallTimeout > 0 {
		r.stallOut(&r.waiting, k, func(c *call) bool { return c.changes() && c.since <= old })
	}
}

func (r *Remote) stallOut(l *callList, k errs.Kind, which func(*call) bool) {
	stalled := l.takeOut(which)
	for stalled.head != nil {
		r.Stats.Stalled.Inc()
		r.failed(stalled.pop(), k)
	}
}
