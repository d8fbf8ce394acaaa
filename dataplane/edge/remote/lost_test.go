package remote

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"vstor/dataplane/block"
	"vstor/dataplane/edge/proto"
	"vstor/dataplane/errs"
)

// said keeps what is logged.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// The router's machine loses power, and with it a change that had been acknowledged and not flushed. No FLUSH says
// that it is safe, nothing is read that would be older than what was read before, and what was under way is not done on
// top of it; the log says why. Who opens the vDisk anew finds it as it is.
func TestLostAcknowledgedChange(t *testing.T) {
	w := newWorld(t)
	log := new(said)
	e, err := w.open('a', func(o *Options) { o.Log = slog.New(slog.NewTextHandler(log, nil)) })
	must(t, err)
	e.do(block.Write, 0, 1, 1)
	e.do(block.Flush, 0, 0, 0)
	e.do(block.Write, 0, 1, 2)
	puts := 0
	var under, flush *request
	w.restart(7, func() {
		w.v.mu.Lock()
		defer w.v.mu.Unlock()
		for i := range w.v.data[:4096] {
			w.v.data[i] = 1
		}
		w.v.seq--
		puts = w.v.puts
		under, flush = e.start(block.Write, 1, 1, 3), e.start(block.Flush, 0, 0, 0)
	})
	for _, q := range []*request{under, flush, e.start(block.Flush, 0, 0, 0), e.start(block.Read, 0, 1, 0),
		e.start(block.Write, 1, 1, 3), e.start(block.Flush, 0, 0, 0)} {
		if k := q.wait(); k != errs.IO {
			t.Errorf("operation %d ends with %v over a change that is lost", q.Op, k)
		}
	}
	w.v.loop.Call(func() { puts = w.v.puts - puts })
	if i := e.r.Info(); puts != 0 || i.Fenced == nil {
		t.Errorf("%d changes were made; fenced: %v", puts, i.Fenced)
	}
	for _, want := range []string{"level=ERROR",
		"lost changes that were acknowledged, and not flushed: change 2 was the last, and now it is 1"} {
		if text := log.String(); !strings.Contains(text, want) {
			t.Error(text)
		}
	}
	e.r.Shut()
	again := w.mustOpen('a')
	again.reads(0, 1, 1)
	again.do(block.Write, 0, 1, 4)
	again.do(block.Flush, 0, 0, 0)
}

// A router that is killed has all that it acknowledged when it is back, whatever was under way, took no effect or came
// to nothing: its edges go on.
func TestRestartLosesNothing(t *testing.T) {
	w := newWorld(t)
	w.restart(7, func() {}) // nobody has written yet
	a := w.mustOpen('a')
	w.restart(7, func() {})
	a.do(block.Write, 0, 8, 1)
	b, err := w.open('b', func(o *Options) { o.Mode = proto.Passive })
	must(t, err)
	for n := range 5 {
		fill := byte(2 + n)
		a.do(block.Write, 0, 8, fill)
		a.do(block.Flush, 0, 0, 0)
		w.v.loop.Call(func() { w.v.fail = errs.Full })
		if k := a.start(block.Write, 3, 1, 99).wait(); k != errs.Full {
			t.Error(k)
		}
		w.v.loop.Call(func() { w.v.fail = errs.OK; w.v.hold = true })
		a.do(block.Read, 0, 1, 0)
		took, not := a.start(block.Write, 10, 1, fill), a.start(block.Write, 11, 1, fill)
		w.eventually("nothing arrives", func() (ok bool) {
			w.v.loop.Call(func() { ok = len(w.v.held) >= 2 })
			return ok
		})
		w.down.Store(true)
		w.cut() // nothing is acknowledged from here on
		w.v.loop.Call(func() {
			last := w.v.held[1]
			w.v.held, w.v.hold = w.v.held[:1], false
			w.v.release()
			w.v.pool.ReleaseVec(&last.Data)
			last.Err = errs.Closed
			last.Done.MutationDone(last)
		})
		w.restart(7, func() {})
		for _, q := range []*request{took, not} {
			if k := q.wait(); k != errs.OK {
				t.Errorf("life %d: %v", n, k)
			}
		}
		a.reads(10, 2, fill)
		a.do(block.Flush, 0, 0, 0)
		b.reads(10, 2, fill)
		b.do(block.Flush, 0, 0, 0)
	}
	b.do(block.Write, 0, 1, 50)
	w.restart(7, func() {})
	a.reads(0, 1, 50)
	b.reads(0, 1, 50)
	for _, e := range []*host{a, b} {
		if f := e.r.Info().Fenced; f != nil {
			t.Error(f)
		}
	}
}

// A vDisk is removed while its edge is away, and another gets its name: that is none of the clients'.
func TestAnotherOfItsName(t *testing.T) {
	w := newWorld(t)
	w.mustOpen('a').do(block.Write, 0, 8, 1)
	e, err := w.open('b', func(o *Options) { o.Mode = proto.Passive })
	must(t, err)
	e.reads(0, 8, 1)
	w.restart(8, func() { w.v.seq += 100 })
	w.eventually("it goes on with another vDisk", func() bool { return e.r.Info().Fenced != nil })
	if k := e.start(block.Read, 0, 1, 0).wait(); k != errs.IO {
		t.Error(k)
	}
	if f := e.r.Info().Fenced; !strings.Contains(f.Error(), "removed") {
		t.Error(f)
	}
}
