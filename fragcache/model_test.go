package fragcache

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
)

var modelSeed = flag.Uint64("model.seed", 0, "run the model test with this seed alone")

// model does random things to a cache. What it gives out must be what the key stands for; between steps all that
// check looks at must hold.
type model struct {
	t    *testing.T
	rng  *rand.Rand
	mem  *dio.Mem
	f    *dio.Faulty
	c    *Cache
	r    *Reader
	pins []uint64
	n    int // keys so far
	lens map[layout.FragKey]int
	keys []layout.FragKey

	hits, flips int
}

func (m *model) reopen(mem *dio.Mem) {
	m.mem, m.f = mem, dio.NewFaulty(mem, m.rng.Uint64())
	o := testOptions(m.f)
	o.EntriesMax = 400
	m.c = open(m.t, o)
	m.r = m.c.NewReader()
	m.pins = nil
}

func (m *model) key() layout.FragKey {
	if len(m.keys) == 0 {
		return fragKey(1, 0)
	}
	if m.rng.IntN(2) == 0 { // a young one
		return m.keys[len(m.keys)-1-m.rng.IntN(min(len(m.keys), 20))]
	}
	return m.keys[m.rng.IntN(len(m.keys))]
}

func (m *model) fill() {
	for range 1 + m.rng.IntN(8) {
		m.n++
		key := fragKey(1+m.rng.IntN(4), m.n)
		n := 4096 * (1 + m.rng.IntN(1+m.rng.IntN(testFrag/4096)))
		m.lens[key] = n
		m.keys = append(m.keys, key)
		offer(m.c, key, content(key, n))
	}
}

func (m *model) read() {
	for range 10 {
		key := m.key()
		n := m.lens[key]
		if n == 0 {
			continue
		}
		if m.rng.IntN(2) == 0 {
			if has(m.t, m.c, key, n) {
				m.hits++
			}
			continue
		}
		off := m.rng.IntN(n/4096) * 4096
		b, kind := locate(m.t, m.r, key, off, 4096)
		if kind != errs.OK {
			continue
		}
		if string(b) == string(content(key, n)[off:off+4096]) {
			m.hits++
			m.r.Served(key, 4096, 1000, errs.OK)
		} else if m.flips > 0 {
			m.r.Served(key, 4096, 1000, errs.Corrupt)
			if _, kind := locate(m.t, m.r, key, off, 4096); kind == errs.OK {
				m.t.Fatalf("%v is given out again after it was found rotten", key)
			}
		} else {
			m.t.Fatalf("%v reads as something else, and nothing was flipped", key)
		}
	}
}

func (m *model) pin() {
	if _, pin, kind := m.r.Locate(m.key(), 0, 4096, nil); kind == errs.OK {
		m.pins = append(m.pins, pin)
	}
	if len(m.pins) > 3 {
		m.unpin()
	}
}

func (m *model) unpin() {
	for _, p := range m.pins {
		m.r.Unpin(p)
	}
	m.pins = nil
}

func (m *model) flip() {
	m.flips++
	flip(m.t, m.mem, m.rng.Int64N(m.mem.Size()))
}

func (m *model) step() {
	ns := fragKey(1+m.rng.IntN(4), 0).Namespace
	switch m.rng.IntN(24) {
	case 0, 1, 2, 3, 4, 5, 6, 7:
		m.fill()
	case 8, 9, 10, 11, 12:
		m.read()
	case 13:
		m.c.SetQuota(ns, m.rng.Int64N(4<<20))
	case 14:
		m.c.SetQuota(ns, int64(m.rng.IntN(2))-1)
	case 15:
		m.c.SetDefaultQuota(m.rng.Int64N(8 << 20))
	case 16:
		m.c.SetEnabled(ns, m.rng.IntN(3) > 0)
	case 17:
		m.pin()
	case 18:
		m.unpin()
	case 19:
		m.flip()
	case 20:
		m.f.Set(dio.Rule{Do: dio.FailIO, Nth: 1 + m.rng.IntN(5)}, dio.Rule{On: dio.Writes, Do: dio.TornWrite, Chance: 0.1,
			Times: 1})
	case 21:
		m.c.resting.Store(false)
		m.c.Forget([]layout.FragKey{m.key(), m.key()})
	case 22:
		if m.rng.IntN(4) == 0 {
			m.c.Drop(ns)
		}
	case 23:
		m.restart()
	}
}

func (m *model) restart() {
	m.unpin()
	switch m.rng.IntN(3) {
	case 0: // clean
		m.c.Close()
		m.reopen(m.mem.Clone())
	case 1: // killed
		mem := m.mem.Clone()
		m.c.Close()
		m.reopen(mem)
	case 2: // without power: what comes back is anybody's guess, like flipped bits
		mem := m.mem.CrashClone(m.rng, dio.CrashOptions{Lose: 1 + m.rng.IntN(20)})
		m.c.Close()
		m.flips++
		m.reopen(mem)
	}
}

func TestModel(t *testing.T) {
	seeds, steps := 24, 400
	if testing.Short() {
		seeds, steps = 4, 200
	}
	for i := range seeds {
		seed := uint64(i + 1)
		if *modelSeed != 0 {
			seed = *modelSeed
		}
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := &model{t: t, rng: rand.New(rand.NewPCG(seed, 5)), lens: map[layout.FragKey]int{}}
			m.reopen(dio.NewMem(4 << 20))
			for range steps {
				m.step()
				if m.rng.IntN(10) == 0 {
					m.unpin()
					settle(t, m.c)
					check(t, m.c)
				}
				if t.Failed() {
					break
				}
			}
			m.unpin()
			m.c.Close()
			if m.hits == 0 {
				t.Error("nothing was ever read: the test shows nothing")
			}
		})
	}
}
