package router

import (
	"fmt"
	"math"
	"time"

	"vstor/dataplane/edge/proto"
	"vstor/dataplane/errs"
)

// Table decides who has a vDisk: a step function without loop, clock or wire. Each event appends to the actions that
// Take gives out; whoever carries them out reports back by further events.
//
// One opener holds the vDisk, or nobody:
//
//	        Open, nobody holds it                 Lost: it may be back, its lease runs on
//	free ───────────────────────► held, seated ◄──────────────────────────────► held, away
//	 ▲                              │  │                                           │
//	 │   Closed, Yielded            │  │ somebody takes over: fenced at once       │ somebody waits
//	 ├──────────────────────────────┘  ▼                                           │
//	 │   it has no session; the lease ends by the answer to Revoke, or by time     │
//	 └─────────────────────────────────┴───────────────────────────────────────────┘
//
// The next holder's Open is granted when the vDisk is free, nothing that a fenced session began is under way any more,
// and who holds it now is durable: a router that starts again must know whose lease may still run. So the holder in
// the record is one that may have been told locations; what no grant followed costs a wait and no more.
//
// Each change of the holder is a new tenure, and the record has its number. An edge that comes back names the tenure it
// was in. If that was not the last, somebody else may have written since, and what it did not see acknowledged must not
// be sent again, so it is refused for good. A process that comes for the first time begins a tenure, whatever it calls
// itself: if another has the same name by mistake, that one is refused when it comes back.
//
// The answer that tells a process of its new tenure may be lost with the connection, or with the router. Then it comes
// back with the former one, and has done nothing in the new one, in which nobody else was: it may go on. So the former
// one counts as well, until something is heard in the new one; afterwards it is an old request that was long on its
// way.
//
// A record is written before its grant. When the router dies in between, the next one cannot tell whether there was a
// grant, so of two openers the one of before is refused, though the other may have gone away with nothing. A router
// that stops knows: Rest keeps the last tenure that was granted, and the numbers that came to nothing are forgotten.
//
// All times are nanoseconds of the boot-time clock.
type Table struct {
	lease, margin int64
	name          string // of the vDisk, for sentences

	holder  proto.Opener // zeros: free
	where   string       // the holder's name, for sentences
	until   int64        // when its lease has run out
	seat    *Seat        // its session; nil: away
	revoked *Seat        // its last session was fenced by a takeover and was not heard of since
	tenure  uint64       // the last one that was granted
	former  uint64       // the one that its holder had named, if it may not know of the last; else 0
	drawn   uint64       // the last number that a record was made with
	kept    uint64       // the number in the record; 0: not known
	named   bool         // the record may name a holder
	locals  int          // openers in this process

	restless int     // sessions that ended or were fenced while changes of theirs were under way
	queue    []*Seat // wait to be exclusive, oldest first
	storing  *Seat   // the record that makes it the holder is being written
	asked    *Seat   // of whom a yield was asked

	out, spare []Action
}

// Record is what survives a restart.
type Record struct {
	Holder proto.Opener // zeros: nobody
	Tenure uint64
	Former uint64 // the tenure that the holder had named; 0: none
}

// Seat is a session as the Table sees it.
type Seat struct {
	Opener   proto.Opener
	Edge     string // its name
	Mode     proto.Mode
	Takeover bool
	Former   uint64 // tenure it was in when it connected; 0: none, or it has yielded since
	acquires bool   // it was granted passive and wants to be exclusive
	fenced   bool
	gone     bool
}

// Fenced reports that nothing of the session may take effect or be answered any more.
func (s *Seat) Fenced() bool { return s.fenced }

// ActionKind says what is to be done.
type ActionKind uint8

const (
	// Grant: answer the Open or Acquire of Seat. Its Mode is what it got.
	Grant ActionKind = iota
	// Refuse: answer it with Kind and Text.
	Refuse
	// Fence: nothing of Seat takes effect any more. Report Left at once.
	Fence
	// Revoke: tell Seat, which was fenced, and report Revoked when it answers.
	Revoke
	// Yield: ask Seat to give up, and report Yielded when it did.
	Yield
	// End: close the connection of Seat, which was fenced.
	End
	// Store: make Record durable, and report Stored.
	Store
)

// Action is one thing to do.
type Action struct {
	Kind   ActionKind
	Seat   *Seat
	Err    errs.Kind
	Text   string
	Record Record
}

// queueMax bounds the openers that wait.
const queueMax = 16

// forever is the lease of an opener in this process.
const forever = math.MaxInt64

// Local is the opener that stands for this process's own connections.
var Local = proto.Opener{0xff, 'l', 'o', 'c', 'a', 'l'}

// NewTable makes the Table of a vDisk when the router starts. Whoever the record names may have a lease that the
// former process gave: it may come back at once, others wait for one whole lease.
func NewTable(name string, lease, margin time.Duration, r Record, now int64) *Table {
	t := &Table{name: name, lease: int64(lease), margin: int64(margin), tenure: r.Tenure, drawn: r.Tenure,
		former: r.Former, kept: r.Tenure, named: r.Holder != (proto.Opener{})}
	if r.Holder != (proto.Opener{}) && r.Holder != Local {
		t.holder, t.where, t.until = r.Holder, "an edge of before the router's restart", now+t.lease+t.margin
	}
	return t
}

// Take gives out the actions since it was last called; they are valid until the call after the next. Events that come
// while they are carried out are for the next call.
func (t *Table) Take() []Action {
	out := t.out
	t.out, t.spare = t.spare[:0], out
	return out
}

func (t *Table) do(k ActionKind, s *Seat) { t.out = append(t.out, Action{Kind: k, Seat: s}) }

func (t *Table) refuse(s *Seat, k errs.Kind, format string, args ...any) {
	t.out = append(t.out, Action{Kind: Refuse, Seat: s, Err: k, Text: fmt.Sprintf(format, args...)})
}

// Holds reports whether s is the holder's session.
func (t *Table) Holds(s *Seat) bool { return t.seat == s && s != nil }

// Tenure is the number of the last holding; Held tells whether it goes on, so that locations may be in use outside.
func (t *Table) Tenure() uint64 { return t.tenure }
func (t *Table) Held() bool     { return t.holder != (proto.Opener{}) && t.holder != Local }

// Idle reports that nobody has the vDisk open or waits for it.
func (t *Table) Idle() bool {
	return t.holder == (proto.Opener{}) && len(t.queue) == 0 && t.storing == nil && t.restless == 0
}

// Until is when Tick should come; forever if time changes nothing.
func (t *Table) Until() int64 {
	if !t.Held() {
		return forever
	}
	return t.until
}

// Open is the first request of a session.
func (t *Table) Open(s *Seat, now int64) {
	if s.Mode == proto.Passive {
		t.do(Grant, s)
		return
	}
	t.enqueue(s, now)
}

// Acquire is the wish of a passive session to be exclusive.
func (t *Table) Acquire(s *Seat, now int64) {
	if t.Holds(s) {
		t.do(Grant, s)
		return
	}
	s.acquires = true
	t.enqueue(s, now)
}

func (t *Table) enqueue(s *Seat, now int64) {
	switch {
	case s.Former != 0 && s.Former != t.tenure && s.Former != t.former:
		s.fenced = true
		t.refuse(s, errs.Refused, "vDisk %s was taken over by another edge: open it anew", t.name)
		return
	case t.revoked != nil && s.Opener == t.holder: // back on another connection, while somebody takes over
		k := errs.Refused
		if s.Former == 0 {
			k = errs.Busy
		}
		s.fenced = true
		t.refuse(s, k, "vDisk %s is being taken over by another edge: open it anew", t.name)
		return
	case len(t.queue) >= queueMax:
		t.refuse(s, errs.Busy, "vDisk %s has %d edges that wait for it already", t.name, len(t.queue))
		return
	}
	t.queue = append(t.queue, s)
	if s.Takeover || s.Opener == t.holder {
		copy(t.queue[1:], t.queue)
		t.queue[0] = s
	}
	t.advance(now)
}

// Tick lets time pass.
func (t *Table) Tick(now int64) { t.advance(now) }

// Renew counts the lease anew from now, when the answer leaves, so that it ends after the edge's own, which counts from
// when it sent the request. False: the session holds nothing.
func (t *Table) Renew(s *Seat, now int64) bool {
	t.advance(now)
	if !t.Holds(s) {
		return false
	}
	t.until = now + t.lease + t.margin
	return true
}

// Heard: something came of the session that it says only once it was told that it holds the vDisk.
func (t *Table) Heard(s *Seat) {
	if t.seat == s {
		t.former = 0
	}
}

// Lost: the connection ended. Left follows once nothing of it is under way.
func (t *Table) Lost(s *Seat, now int64) {
	s.gone = true
	for i, q := range t.queue {
		if q == s {
			t.queue = append(t.queue[:i], t.queue[i+1:]...)
			break
		}
	}
	if t.seat == s {
		t.unseat()
	}
	t.advance(now)
}

// unseat takes the holder's session away. Its changes that are under way are waited for.
func (t *Table) unseat() {
	s := t.seat
	t.seat = nil
	if t.asked == s {
		t.asked = nil
	}
	if !s.fenced {
		s.fenced = true
		t.restless++
		t.do(Fence, s)
	}
}

// Left: nothing that the fenced session began is under way any more.
func (t *Table) Left(_ *Seat, now int64) {
	t.restless--
	t.advance(now)
}

// Closed: the session gave everything up, and its edge uses nothing of it any more.
func (t *Table) Closed(s *Seat, now int64) {
	if t.Holds(s) {
		t.unseat()
		t.free()
	}
	t.advance(now)
}

// Yielded is Closed for a session that goes on as a passive one. What it began was answered before.
func (t *Table) Yielded(s *Seat, now int64) {
	if t.Holds(s) {
		t.seat, t.asked = nil, nil
		// Nothing of it is unacknowledged, so its next Acquire repeats nothing and may follow any tenure.
		s.Mode, s.Former = proto.Passive, 0
		t.free()
	}
	t.advance(now)
}

// Revoked: the edge of a fenced session answers nothing from its caches any more.
func (t *Table) Revoked(s *Seat, now int64) {
	if t.revoked == s {
		t.free()
	}
	t.advance(now)
}

func (t *Table) free() {
	t.holder, t.where, t.revoked, t.until = proto.Opener{}, "", nil, 0
}

// Stored: the record that makes s the holder is durable, or cannot be made so.
func (t *Table) Stored(s *Seat, err error, now int64) {
	t.storing, t.kept = nil, t.drawn
	switch {
	case err != nil:
		t.kept = 0
		if !s.gone {
			t.refuse(s, errs.Of(err), "vDisk %s cannot be opened: who holds it cannot be kept: %v", t.name, err)
		}
	case !s.gone:
		t.tenure, t.former = t.drawn, s.Former
		t.grant(s, now)
	}
	t.advance(now)
}

func (t *Table) grant(s *Seat, now int64) {
	t.holder, t.where, t.seat, t.revoked = s.Opener, s.Edge, s, nil
	t.until = now + t.lease + t.margin
	s.Mode, s.acquires = proto.Exclusive, false
	t.do(Grant, s)
}

// advance does what time and events allow: ends a lease that has run out, and lets the first in line go on.
func (t *Table) advance(now int64) {
	if t.Held() && now >= t.until {
		if s := t.seat; s != nil {
			t.unseat()
			t.do(End, s)
		}
		t.free()
	}
	for t.storing == nil && len(t.queue) > 0 && t.makeWay(t.queue[0]) {
		if t.restless > 0 {
			return
		}
		s := t.queue[0]
		t.queue = append(t.queue[:0], t.queue[1:]...)
		if t.holder == s.Opener && s.Former == t.tenure && t.kept == t.tenure { // its own record is there
			t.former = 0
			t.grant(s, now)
			continue
		}
		t.storing, t.named = s, true
		t.drawn++
		t.out = append(t.out, Action{Kind: Store, Seat: s, Record: Record{s.Opener, t.drawn, s.Former}})
	}
}

// makeWay gets the holder out of the way of s, and reports whether it is.
func (t *Table) makeWay(s *Seat) bool {
	switch {
	case t.holder == (proto.Opener{}):
		return true
	case t.holder == Local:
		t.queue = append(t.queue[:0], t.queue[1:]...)
		t.refuse(s, errs.Busy, "vDisk %s is in use by %d connections of the router's own process", t.name, t.locals)
		return len(t.queue) > 0 && t.makeWay(t.queue[0])
	case t.holder == s.Opener:
		if old := t.seat; old != nil { // a new session of the same opener: the old one is over
			t.unseat()
			t.do(End, old)
		}
		return true
	case t.seat == nil:
		return false // its lease runs
	case s.Takeover:
		old := t.seat
		t.unseat()
		t.revoked = old
		t.do(Revoke, old)
		return false
	case s.acquires:
		if t.asked != t.seat {
			t.asked = t.seat
			t.do(Yield, t.seat)
		}
		return false
	}
	t.queue = append(t.queue[:0], t.queue[1:]...)
	t.refuse(s, errs.Busy, "vDisk %s is open at %s: close it there, or take over", t.name, t.where)
	return len(t.queue) > 0 && t.makeWay(t.queue[0])
}

// Rest is the record to be kept when the router stops and all have gone in order, so that nobody waits for a lease
// after its next start; nil: the record is right, or somebody may be back.
func (t *Table) Rest(now int64) *Record {
	t.advance(now)
	if !t.Idle() || !t.named {
		return nil
	}
	return &Record{Tenure: t.tenure, Former: t.former}
}

// OpenLocal opens the vDisk for a connection of this process. Where it is the first, record is to be made durable
// before the connection is told. After CloseLocal of the last one others may have it.
func (t *Table) OpenLocal(now int64) (record *Record, err error) {
	t.advance(now)
	switch {
	case t.holder == Local:
		t.locals++
		return nil, nil
	case t.holder != (proto.Opener{}):
		return nil, errs.New(errs.Busy, "vDisk %s is open at %s: close it there first", t.name, t.where)
	case !t.Idle():
		return nil, errs.New(errs.Busy, "vDisk %s is being opened at an edge", t.name)
	}
	t.holder, t.locals, t.until = Local, 1, forever
	t.drawn++
	t.tenure, t.former, t.kept, t.named = t.drawn, 0, t.drawn, false
	return &Record{Tenure: t.tenure}, nil
}

// CloseLocal is the end of such a connection.
func (t *Table) CloseLocal(now int64) {
	if t.locals--; t.locals == 0 {
		t.free()
	}
	t.advance(now)
}
