package router

import (
	"testing"
	"time"

	"vstor/dataplane/edge/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// back opens the vDisk for somebody who was in a tenure before.
func (s *script) back(name string, former uint64) *Seat {
	x := s.seat(name)
	x.Former = former
	s.table.Open(x, s.now)
	return x
}

// leave is the end of a holder's connection, with nothing of it under way, and of its lease.
func (s *script) leave(x *Seat) {
	s.t.Helper()
	s.table.Lost(x, s.now)
	s.want("fence " + s.name(x))
	s.table.Left(x, s.now)
	s.at(time.Duration(s.now) + 22*time.Second).Tick(s.now)
}

// restart stops the router in order and starts the next one with what it kept.
func (s *script) restart() *script {
	s.t.Helper()
	r := s.table.Rest(s.now)
	if r == nil || r.Holder != (proto.Opener{}) {
		s.t.Fatalf("all have gone, and the record is %+v", r)
	}
	return newScript(s.t, *r)
}

// An edge came back after it had lost its connection, yielded, and wants the vDisk again on the same session: the
// tenure that it was in when it connected is nothing to that.
func TestAcquireAfterComingBack(t *testing.T) {
	s := newScript(t, Record{})
	a := s.hold("a")
	s.table.Lost(a, s.now)
	s.want("fence a")
	s.table.Left(a, s.now)
	a = s.back("a2", 1)
	s.want("grant a2")
	b := s.seat("b")
	b.Mode = proto.Passive
	s.table.Open(b, s.now)
	s.table.Acquire(b, s.now)
	s.want("grant b", "yield a2")
	s.table.Yielded(a, s.now)
	s.want("store b")
	s.table.Stored(b, nil, s.now)
	s.want("grant b")
	s.table.Acquire(a, s.now)
	s.want("yield b")
	s.table.Yielded(b, s.now)
	list := s.table.Take()
	if len(list) != 1 || list[0].Kind != Store || list[0].Record != (Record{opener("a"), 3, 0}) || a.Fenced() {
		t.Fatalf("%+v", list)
	}
	s.table.Stored(a, nil, s.now)
	s.want("grant a2")
	s.leave(a)
	s.back("a3", 1) // it knows of nothing that was acknowledged in the first tenure only
	s.want("refuse a3 refused")
}

// A router stops in order and starts again. Who may come back before may come back afterwards.
func TestRestKeepsWhoMayComeBack(t *testing.T) {
	for _, tc := range []struct {
		name  string
		run   func(*script) // after tenure 1 of a, which is gone
		comes uint64        // the tenures in which a may be
		stays uint64        // ... and may not
	}{
		{"nothing else", func(*script) {}, 1, 2},
		{"the answer is lost", func(s *script) {
			x := s.back("a2", 1)
			s.want("store a2")
			s.table.Stored(x, nil, s.now)
			s.want("grant a2")
			s.leave(x)
		}, 1, 3},
		{"it leaves before its grant", func(s *script) {
			x := s.back("a2", 1)
			s.want("store a2")
			s.table.Lost(x, s.now)
			s.table.Stored(x, nil, s.now)
		}, 1, 2},
		{"another leaves before its grant", func(s *script) {
			x := s.seat("b")
			s.table.Open(x, s.now)
			s.want("store b")
			s.table.Lost(x, s.now)
			s.table.Stored(x, nil, s.now)
		}, 1, 2},
		{"another's record cannot be kept", func(s *script) {
			x := s.seat("b")
			s.table.Open(x, s.now)
			s.want("store b")
			s.table.Stored(x, errs.New(errs.Full, "no space"), s.now)
			s.want("refuse b full")
		}, 1, 2},
		{"the answer is lost, another leaves before its grant", func(s *script) {
			x := s.back("a2", 1)
			s.want("store a2")
			s.table.Stored(x, nil, s.now)
			s.want("grant a2")
			s.leave(x)
			b := s.seat("b")
			s.table.Open(b, s.now)
			s.want("store b")
			s.table.Lost(b, s.now)
			s.table.Stored(b, nil, s.now)
		}, 1, 3},
		{"it is heard", func(s *script) {
			x := s.back("a2", 1)
			s.want("store a2")
			s.table.Stored(x, nil, s.now)
			s.want("grant a2")
			s.table.Heard(x)
			s.leave(x)
		}, 2, 1},
		{"another had it", func(s *script) { s.leave(s.hold("b")) }, 2, 1},
	} {
		for _, comes := range []bool{true, false} {
			s := newScript(t, Record{})
			s.heldOnce("a")
			tc.run(s)
			s = s.restart()
			tenure := tc.stays
			if comes {
				tenure = tc.comes
			}
			s.back("a9", tenure)
			list := s.table.Take()
			if len(list) != 1 || (list[0].Kind == Store) != comes {
				t.Errorf("%s: tenure %d comes back, and that is to be done: %+v", tc.name, tenure, list)
			}
		}
	}
}

// A router that dies before a grant cannot tell that there was none: only who is named in the record comes back.
func TestCrashBeforeAGrant(t *testing.T) {
	s := newScript(t, Record{})
	s.heldOnce("a")
	s.table.Open(s.seat("b"), s.now)
	list := s.table.Take()
	if len(list) != 1 || list[0].Record != (Record{opener("b"), 2, 0}) {
		t.Fatalf("%+v", list)
	}
	s = newScript(t, list[0].Record)
	s.back("a2", 1)
	s.want("refuse a2 refused")
}

// Whatever a process says in a tenure shows that it was told of it: from then on the one before is over.
func TestHeard(t *testing.T) {
	block := make([]byte, ids.BlockSize)
	write := proto.Write{Count: 1, Sums: appendSums(nil, block)}
	for _, tc := range []struct {
		name string
		say  []byte
		want errs.Kind
	}{
		{"nothing", nil, errs.OK},
		{"a read", frame(proto.TRead, 2, (&proto.Range{Count: 1}).Append(nil), nil), errs.Refused},
		{"a write", frame(proto.TWrite, 2, write.Append(nil), block), errs.Refused},
	} {
		r := newRig(t)
		open := func(former uint64) (errs.Kind, func([]byte)) {
			nc := r.dial()
			t.Cleanup(func() { nc.Close() })
			ask := func(b []byte) {
				nc.Write(b)
				if h, err := reply(nc); err != nil || h.Kind() != errs.OK {
					t.Fatalf("%s: %v %v", tc.name, h.Kind(), err)
				}
			}
			nc.Write(frame(proto.TOpen, 1, (&proto.Open{Mode: proto.Exclusive, Former: former}).Append(nil), nil))
			h, err := reply(nc)
			must(t, err)
			return h.Kind(), ask
		}
		_, ask := open(0)
		ask(frame(proto.TClose, 2, nil, nil))
		k, ask := open(1)
		if k != errs.OK {
			t.Fatalf("%s: %v", tc.name, k)
		}
		if tc.say != nil {
			ask(tc.say)
		}
		if k, _ := open(1); k != tc.want {
			t.Errorf("after %s the tenure before is answered %v, want %v", tc.name, k, tc.want)
		}
	}
}

// Who waits for the answer to its Open hears that somebody is there, and nothing else.
func TestStatsBeforeOpened(t *testing.T) {
	r := newRig(t)
	second := r.dial()
	defer second.Close()
	stats := frame(proto.TStats, 7, (&proto.Stats{Reads: 99}).Append(nil), nil)
	second.Write(stats)
	if h, err := reply(second); err != nil || h.Kind() != errs.Refused {
		t.Errorf("before Open: %v %v", h.Kind(), err)
	}
	r.loop.Call(func() { // another opener's lease runs
		r.door.table.holder, r.door.table.until = proto.Opener{9}, r.door.now()+int64(time.Hour)
	})
	second.Write(frame(proto.TOpen, 1, (&proto.Open{Mode: proto.Exclusive}).Append(nil), nil))
	second.Write(stats)
	if h, err := reply(second); err != nil || h.Kind() != errs.OK || h.ID != 7 {
		t.Errorf("while it waits: %v %v", h.Kind(), err)
	}
	second.Write(frame(proto.TRead, 8, (&proto.Range{Count: 1}).Append(nil), nil))
	if h, err := reply(second); err != nil || h.Kind() != errs.Refused || h.ID != 8 {
		t.Errorf("a read while it waits: %v %v", h.Kind(), err)
	}
	if n := r.door.Stats.EdgeReads.Load(); n != 0 {
		t.Errorf("what it said is shown as the holder's: %d", n)
	}
}
