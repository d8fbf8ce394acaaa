package router

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"vstor/dataplane/edge/proto"
	"vstor/dataplane/errs"
)

// script drives a Table with events and tells what it wants done, a line for each action.
type script struct {
	t     *testing.T
	table *Table
	now   int64
	seats map[string]*Seat
}

func newScript(t *testing.T, r Record) *script {
	return &script{t: t, table: NewTable("v", 20*time.Second, 2*time.Second, r, 0), seats: map[string]*Seat{}}
}

func opener(name string) proto.Opener { return proto.Opener{name[0], 1} }

// seat makes a session; the first letter of its name says whose it is.
func (s *script) seat(name string) *Seat {
	x := &Seat{Opener: opener(name), Edge: "edge " + name[:1], Mode: proto.Exclusive}
	s.seats[name] = x
	return x
}

func (s *script) name(x *Seat) string {
	for n, y := range s.seats {
		if x == y {
			return n
		}
	}
	return "?"
}

var kinds = [...]string{Grant: "grant", Refuse: "refuse", Fence: "fence", Revoke: "revoke", Yield: "yield", End: "end",
	Store: "store"}

// want checks what is to be done since the last look, in order.
func (s *script) want(actions ...string) {
	s.t.Helper()
	var got []string
	for _, a := range s.table.Take() {
		text := kinds[a.Kind] + " " + s.name(a.Seat)
		if a.Kind == Refuse {
			text += fmt.Sprintf(" %v", a.Err)
		}
		got = append(got, text)
	}
	if !slices.Equal(got, actions) {
		s.t.Errorf("at %v: %q; want %q", time.Duration(s.now), got, actions)
	}
}

func (s *script) at(d time.Duration) *Table { s.now = int64(d); return s.table }

// hold makes an exclusive holder of a new seat.
func (s *script) hold(name string) *Seat {
	s.t.Helper()
	x := s.seat(name)
	s.table.Open(x, s.now)
	s.want("store " + name)
	s.table.Stored(x, nil, s.now)
	s.want("grant " + name)
	return x
}

// heldOnce makes an exclusive holder that went away, and whose lease has run out.
func (s *script) heldOnce(name string) {
	s.t.Helper()
	x := s.hold(name)
	s.table.Lost(x, s.now)
	s.want("fence " + name)
	s.table.Left(x, s.now)
	s.at(22 * time.Second).Tick(s.now)
}

func TestOneHolder(t *testing.T) {
	s := newScript(t, Record{})
	a := s.hold("a")
	b := s.seat("b")
	s.table.Open(b, s.now)
	s.want("refuse b busy")
	p := s.seat("p")
	p.Mode = proto.Passive
	s.table.Open(p, s.now)
	s.want("grant p")
	if !s.table.Holds(a) || s.table.Holds(b) || s.table.Holds(p) || s.table.Tenure() != 1 {
		t.Error("the wrong one holds it")
	}
	s.table.Closed(a, s.now)
	s.want("fence a")
	b2 := s.seat("b2")
	s.table.Open(b2, s.now)
	s.want() // a change of a is still under way
	s.table.Left(a, s.now)
	s.want("store b2")
	s.table.Stored(b2, nil, s.now)
	s.want("grant b2")
	if s.table.Tenure() != 2 {
		t.Error(s.table.Tenure())
	}
}

// Who does not renew loses it when its lease has run out, the margin included, and not before.
func TestRunOut(t *testing.T) {
	s := newScript(t, Record{})
	a := s.hold("a")
	if !s.at(15*time.Second).Renew(a, s.now) {
		t.Error("refused")
	}
	s.at(37*time.Second - 1).Tick(s.now)
	s.want()
	s.at(37 * time.Second).Tick(s.now)
	s.want("fence a", "end a")
	if s.table.Renew(a, s.now) {
		t.Error("a lease was renewed after its end")
	}
	s.table.Left(a, s.now)
	if !s.table.Idle() || s.table.Held() {
		t.Error("not free")
	}
	// It comes back, nobody was there between: it may go on.
	again := s.seat("a2")
	again.Former = 1
	s.table.Open(again, s.now)
	s.want("store a2")
	s.table.Stored(again, nil, s.now)
	s.want("grant a2")
	s.table.Heard(again)
	old := s.seat("a3")
	old.Former = 1
	s.table.Open(old, s.now)
	s.want("refuse a3 refused")
}

// The answer that tells of a new tenure is lost, with the connection or with the router: who comes back with the former
// one goes on. Nobody else does, nor does it once the new one was in use, or another's followed.
func TestAnswerIsLost(t *testing.T) {
	s := newScript(t, Record{})
	s.heldOnce("a")
	back := func(name string, former uint64) *Seat {
		x := s.seat(name)
		x.Former = former
		s.table.Open(x, s.now)
		return x
	}
	for i := range 3 {
		name := fmt.Sprint("a", i)
		x := back(name, 1)
		s.want("store " + name)
		s.table.Stored(x, nil, s.now)
		s.want("grant " + name)
		s.table.Lost(x, s.now)
		s.want("fence " + name)
		s.table.Left(x, s.now)
	}
	last := Record{Holder: opener("a"), Tenure: s.table.Tenure(), Former: 1}
	back("a8", 3)
	s.want("refuse a8 refused")

	s = newScript(t, last) // the router starts anew
	back("b", 2)
	s.want("refuse b refused")
	x := back("a", 1)
	s.want("store a")
	s.table.Stored(x, nil, s.now)
	s.want("grant a")
	s.table.Heard(x)
	back("a9", 1)
	s.want("refuse a9 refused")
	s.table.Closed(x, s.now)
	s.want("fence a")
	s.table.Left(x, s.now)
	s.hold("c")
	back("a10", 1)
	s.want("refuse a10 refused")
}

// A holder that went away has its lease: others wait for its end, itself it may come back at once.
func TestAway(t *testing.T) {
	s := newScript(t, Record{})
	a := s.hold("a")
	s.table.Lost(a, s.now)
	s.want("fence a")
	b := s.seat("b")
	s.at(5*time.Second).Open(b, s.now)
	s.want()
	a2 := s.seat("a2")
	a2.Former = 1
	s.table.Open(a2, s.now)
	s.want() // what the old session began is under way
	s.table.Left(a, s.now)
	s.want("grant a2", "refuse b busy")
	s.at(6*time.Second).Lost(a2, s.now)
	s.want("fence a2")
	s.table.Left(a2, s.now)
	b2 := s.seat("b2")
	s.table.Open(b2, s.now)
	s.at(27*time.Second - 1).Tick(s.now)
	s.want()
	s.at(27 * time.Second).Tick(s.now)
	s.want("store b2")
	s.table.Stored(b2, nil, s.now)
	s.want("grant b2")
	a3 := s.seat("a3")
	a3.Former = 1
	s.table.Open(a3, s.now)
	s.want("refuse a3 refused")
}

// A new session of the opener whose old one is still there replaces it.
func TestReplace(t *testing.T) {
	s := newScript(t, Record{})
	a := s.hold("a")
	a2 := s.seat("a2")
	a2.Former = 1
	s.table.Open(a2, s.now)
	s.want("fence a", "end a")
	s.table.Lost(a, s.now)
	s.want()
	s.table.Left(a, s.now)
	s.want("grant a2")
	if s.table.Renew(a, s.now) || !s.table.Holds(a2) || s.table.Tenure() != 1 {
		t.Error("the old session holds it")
	}
}

// Another process of the same name begins a tenure: what the first one keeps, and has not seen acknowledged, is over.
func TestTwoOfOneName(t *testing.T) {
	s := newScript(t, Record{})
	a := s.hold("a")
	a2 := s.seat("a2")
	s.table.Open(a2, s.now)
	s.want("fence a", "end a")
	s.table.Lost(a, s.now)
	s.table.Left(a, s.now)
	s.want("store a2")
	s.table.Stored(a2, nil, s.now)
	s.want("grant a2")
	a3 := s.seat("a3")
	a3.Former = 1
	s.table.Open(a3, s.now)
	s.want("refuse a3 refused")
	if !s.table.Holds(a2) || s.table.Tenure() != 2 {
		t.Error("the second one is gone")
	}
}

// When all have gone in order, the record says so before the router stops; while one may be back it does not.
func TestRest(t *testing.T) {
	s := newScript(t, Record{})
	if s.table.Rest(s.now) != nil {
		t.Error("there is nothing to say")
	}
	a := s.hold("a")
	if s.table.Rest(s.now) != nil {
		t.Error("somebody has it")
	}
	s.table.Closed(a, s.now)
	s.want("fence a")
	if s.table.Rest(s.now) != nil {
		t.Error("its changes are under way")
	}
	s.table.Left(a, s.now)
	if r := s.table.Rest(s.now); r == nil || *r != (Record{Tenure: 1}) {
		t.Error(r)
	}
	b := s.hold("b")
	s.table.Lost(b, s.now)
	s.want("fence b")
	s.table.Left(b, s.now)
	if s.table.Rest(s.now) != nil {
		t.Error("it may be back")
	}
	if r := s.at(22 * time.Second).Rest(int64(22 * time.Second)); r == nil || *r != (Record{Tenure: 2}) {
		t.Error(r)
	}
}

// A record that could not be made, or that nobody waited for, makes no tenure: the holder of before may come back.
func TestNoTenureWithoutGrant(t *testing.T) {
	s := newScript(t, Record{})
	s.heldOnce("a")
	for i, err := range []error{errs.New(errs.Full, "no space"), nil} {
		b := s.seat("b" + string(rune('0'+i)))
		s.table.Open(b, s.now)
		s.want("store b" + string(rune('0'+i)))
		if err == nil {
			s.table.Lost(b, s.now)
		}
		s.table.Stored(b, err, s.now)
		if err != nil {
			s.want("refuse b0 full")
		}
	}
	a2 := s.seat("a2")
	a2.Former = 1
	s.table.Open(a2, s.now)
	s.want("store a2")
	s.table.Stored(a2, nil, s.now)
	s.want("grant a2")
}

func TestTakeover(t *testing.T) {
	for _, end := range []string{"answers", "is stopped", "goes away"} {
		s := newScript(t, Record{})
		a := s.hold("a")
		b := s.seat("b")
		b.Takeover = true
		s.at(time.Second).Open(b, s.now)
		s.want("fence a", "revoke a")
		if !a.Fenced() || s.table.Renew(a, s.now) {
			t.Error("a fenced session goes on")
		}
		s.table.Left(a, s.now)
		s.want() // its lease runs
		switch end {
		case "answers":
			s.table.Revoked(a, s.now)
		case "is stopped":
			s.at(22*time.Second - 1).Tick(s.now)
			s.want()
			s.at(22 * time.Second).Tick(s.now)
		case "goes away":
			s.table.Lost(a, s.now)
			s.want()
			a2 := s.seat("a2")
			a2.Former = 1
			s.table.Open(a2, s.now)
			s.want("refuse a2 refused")
			s.at(22 * time.Second).Tick(s.now)
		}
		s.want("store b")
		s.table.Stored(b, nil, s.now)
		s.want("grant b")
		a3 := s.seat("a3")
		a3.Former = 1
		s.table.Open(a3, s.now)
		s.want("refuse a3 refused")
		s.table.Revoked(a, s.now) // late
		if !s.table.Holds(b) {
			t.Errorf("%s: b lost it", end)
		}
	}
}

// The one that takes over goes away before it has it.
func TestTakeoverGivenUp(t *testing.T) {
	s := newScript(t, Record{})
	a := s.hold("a")
	b := s.seat("b")
	b.Takeover = true
	s.table.Open(b, s.now)
	s.want("fence a", "revoke a")
	s.table.Lost(b, s.now)
	s.table.Left(a, s.now)
	s.table.Revoked(a, s.now)
	s.want()
	c := s.seat("c")
	s.table.Open(c, s.now)
	s.want("store c")
	s.table.Lost(c, s.now)
	s.table.Stored(c, nil, s.now)
	s.want()
	d := s.hold("d")
	if s.table.Tenure() != 3 || !s.table.Holds(d) {
		t.Error(s.table.Tenure())
	}
}

func TestLiveMigration(t *testing.T) {
	s := newScript(t, Record{})
	a := s.hold("a")
	b := s.seat("b")
	b.Mode = proto.Passive
	s.table.Open(b, s.now)
	s.want("grant b")
	s.table.Acquire(b, s.now)
	s.want("yield a")
	s.at(time.Second).Tick(s.now)
	s.want() // asked once
	s.table.Yielded(a, s.now)
	s.want("store b")
	s.table.Stored(b, nil, s.now)
	s.want("grant b")
	if a.Mode != proto.Passive || a.Fenced() || b.Mode != proto.Exclusive {
		t.Error(a, b)
	}
	s.table.Acquire(a, s.now)
	s.want("yield b")
}

// After a restart nobody knows what the holder in the record was told: it alone may come back at once.
func TestRestart(t *testing.T) {
	s := newScript(t, Record{Holder: opener("a"), Tenure: 7})
	b := s.seat("b")
	s.table.Open(b, s.now)
	s.at(22*time.Second - 1).Tick(s.now)
	s.want()
	s.at(22 * time.Second).Tick(s.now)
	s.want("store b")

	s = newScript(t, Record{Holder: opener("a"), Tenure: 7})
	a := s.seat("a")
	a.Former = 7
	s.table.Open(a, s.now)
	s.want("grant a")
	c := s.seat("c")
	c.Former = 6
	s.table.Open(c, s.now)
	s.want("refuse c refused")

	s = newScript(t, Record{Tenure: 7})
	s.hold("b")
}

func TestStoreFails(t *testing.T) {
	s := newScript(t, Record{})
	a := s.seat("a")
	s.table.Open(a, s.now)
	s.want("store a")
	s.table.Stored(a, errs.New(errs.Full, "no space"), s.now)
	s.want("refuse a full")
	if !s.table.Idle() {
		t.Error("not free")
	}
}

func TestLocal(t *testing.T) {
	s := newScript(t, Record{})
	r, err := s.table.OpenLocal(s.now)
	if err != nil || r == nil || r.Tenure != 1 || s.table.Held() {
		t.Fatal(r, err)
	}
	if r, err := s.table.OpenLocal(s.now); err != nil || r != nil {
		t.Fatal(r, err)
	}
	b := s.seat("b")
	b.Takeover = true
	s.table.Open(b, s.now)
	s.want("refuse b busy")
	s.table.CloseLocal(s.now)
	s.table.CloseLocal(s.now)
	s.hold("c")
	if _, err := s.table.OpenLocal(s.now); errs.Of(err) != errs.Busy || !strings.Contains(err.Error(), "open at edge c") {
		t.Error(err)
	}
}

func TestQueueIsBounded(t *testing.T) {
	s := newScript(t, Record{Holder: opener("z"), Tenure: 1})
	for i := range queueMax {
		s.table.Open(s.seat(fmt.Sprintf("b%d", i)), s.now)
	}
	s.want()
	s.table.Open(s.seat("c"), s.now)
	s.want("refuse c busy")
}
