package client

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
)

// stampOf is what fragment i holds: its number in every word.
func stampOf(i int, dst []byte) {
	for at := 0; at < len(dst); at += 8 {
		binary.LittleEndian.PutUint64(dst[at:], uint64(i)<<32|uint64(at))
	}
}

// stamper puts stamped fragments, one after the other, from one buffer.
type stamper struct {
	w *shortWorld
	b []byte
}

func newStamper(w *shortWorld, n int) *stamper {
	b, err := buf.AlignedBytes(layout.FragHeaderSize + n)
	must(w.t, err)
	w.t.Cleanup(func() { buf.FreeAligned(b) })
	return &stamper{w: w, b: b[:layout.FragHeaderSize+n]}
}

func (s *stamper) put(i int) error {
	p := &layout.FragPut{Key: key(i), Epoch: 1, Buf: s.b}
	body := s.b[layout.FragHeaderSize:]
	stampOf(i, body)
	for at := 0; at < len(body); at += layout.RegionSize {
		p.Sums = append(p.Sums, xxhash.Sum64(body[at:min(at+layout.RegionSize, len(body))]))
	}
	return s.w.store.Put(bg, p)
}

const (
	modelFragment = 32 << 10
	modelLease    = 60 * time.Millisecond
)

// model is a tiny drive on which fragments come and go as fast as they can, and readers that dawdle between finding a
// fragment and reading it.
type model struct {
	t    *testing.T
	w    *shortWorld
	g    *rig
	r    *Reader
	stop chan struct{}

	mu     sync.Mutex
	live   []int // guarded by mu
	next   int   // guarded by mu
	stored int   // guarded by mu

	asked []int // that were not known where, lately: they are now, or were

	good, lost, reused, unknown int // reads that may be believed; others; of these, those that brought other bytes
}

func (m *model) some(rng *rand.Rand) (int, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.live) == 0 {
		return 0, false
	}
	return m.live[rng.IntN(len(m.live))], true
}

// churn puts until the drive is full, and deletes some to go on.
func (m *model) churn(seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	st := newStamper(m.w, modelFragment)
	for {
		select {
		case <-m.stop:
			return
		default:
		}
		m.mu.Lock()
		i := m.next
		m.next++
		full := len(m.live) > 100
		m.mu.Unlock()
		err := st.put(i)
		switch {
		case err == nil:
			m.mu.Lock()
			m.live = append(m.live, i)
			m.stored++
			m.mu.Unlock()
		case errs.Of(err) != errs.Full:
			m.t.Error(err)
			return
		}
		if err == nil && !full {
			continue
		}
		m.mu.Lock()
		var gone []layout.FragKey
		for n := 1 + rng.IntN(20); n > 0 && len(m.live) > 0; n-- {
			at := rng.IntN(len(m.live))
			gone = append(gone, key(m.live[at]))
			m.live[at] = m.live[len(m.live)-1]
			m.live = m.live[:len(m.live)-1]
		}
		m.mu.Unlock()
		if err := m.w.store.Delete(bg, gone); err != nil {
			m.t.Error(err)
			return
		}
	}
}

// round reads some fragments at once, each after a while.
func (m *model) round(rng *rand.Rand) {
	type try struct {
		q *directRead
		i int
	}
	var tries []try
	m.g.loop.Call(func() {
		for range 64 {
			i, ok := m.some(rng)
			if n := len(m.asked); n > 0 && rng.IntN(4) > 0 {
				i, ok = m.asked[rng.IntN(n)], true
			}
			if !ok {
				return
			}
			q := &directRead{wait: time.Duration(rng.Int64N(int64(2 * modelLease)))}
			if rng.IntN(4) > 0 {
				q.wait = 0
			}
			if k := q.locate(m.g, m.r, i, 0, modelFragment); k == errs.OK {
				tries = append(tries, try{q, i})
			} else {
				m.unknown++
				m.asked = append(m.asked[max(0, len(m.asked)-31):], i)
			}
		}
	})
	want := make([]byte, modelFragment)
	for _, y := range tries {
		<-y.q.done
		stampOf(y.i, want)
		right := y.q.res >= 0 && bytes.Equal(y.q.bytes, want)
		switch {
		case y.q.good && !right:
			m.t.Fatalf("fragment %d: other bytes, under a lease (%d)", y.i, y.q.res)
		case y.q.good:
			m.good++
		default:
			m.lost++
			if !right {
				m.reused++
			}
		}
	}
}

// Deleted space is used again as soon as it may be, while readers hold extents of it for longer than they may: what
// they are told to believe is right, always.
func TestNobodyReadsReusedSpace(t *testing.T) {
	m := runModel(t, 0, func(m *model) bool { return m.good > 0 && m.lost > 0 && m.reused > 0 })
	if n := m.r.Stats().Short.Late.Load(); n < uint64(m.lost) {
		t.Errorf("%d late reads counted, %d seen", n, m.lost)
	}
}

// The same where space is used again only because all have said that they have forgotten it.
func TestNobodyReadsWhatAllHaveForgotten(t *testing.T) {
	const capacity = (8 << 20) / (modelFragment + 4096)
	runModel(t, time.Hour, func(m *model) bool { return m.good > 0 && m.puts() > 5*capacity })
}

func (m *model) puts() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stored
}

// runModel lets deleted space rest for that long, or a lease, and goes on at least until it has seen what the test is
// for, within reason.
func runModel(t *testing.T, rest time.Duration, seen func(*model) bool) *model {
	w := newShortWorld(t, shortSettings{size: 8 << 20, reserve: 1, lease: modelLease, rest: rest})
	m := &model{t: t, w: w, g: newRig(t), stop: make(chan struct{})}
	m.r = m.g.reader(w.a, lenient)
	m.g.ready(m.r)
	var work sync.WaitGroup
	for i := range 2 {
		work.Go(func() { m.churn(uint64(i)) })
	}
	end := sync.OnceFunc(func() { close(m.stop); work.Wait() })
	defer end()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	span := 3 * time.Second
	if testing.Short() {
		span = time.Second
	}
	for begin := time.Now(); time.Since(begin) < span || !seen(m); {
		m.round(rng)
		if time.Since(begin) > time.Minute {
			t.Fatalf("in a minute %d good reads, %d lost, %d of reused space, %d puts", m.good, m.lost, m.reused, m.puts())
		}
	}
	end()
	t.Logf("%d reads to be believed; %d not, of which %d brought bytes of others; %d not known where; %d fragments put",
		m.good, m.lost, m.reused, m.unknown, m.stored)
	return m
}
