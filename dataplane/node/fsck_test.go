package node

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"vstor/dataplane/meta"
	"vstor/dataplane/proxy"
)

func (m *model) fsck(o FsckOptions) *FsckReport {
	m.t.Helper()
	o.Config, o.Host, o.Manifests = m.config(), m.host, true
	r, err := Fsck(context.Background(), o)
	if err != nil {
		m.fatalf("fsck: %v\n%s", err, strings.Join(r.Findings, "\n"))
	}
	return r
}

// mustBeWhole demands that a check finds nothing, and changes nothing.
func (m *model) mustBeWhole(when string) *FsckReport {
	m.t.Helper()
	before := m.files()
	r := m.fsck(FsckOptions{Data: true})
	if r.Found != 0 {
		m.fatalf("%s: fsck finds %d faults:\n%s", when, r.Found, strings.Join(r.Findings, "\n"))
	}
	if after := m.files(); before != after {
		m.fatalf("%s: a check changed files:\n%s\nwas\n%s", when, after, before)
	}
	return r
}

// files lists the names and sizes of all files of the databases.
func (m *model) files() string {
	var out strings.Builder
	for _, dir := range []string{"meta", "router/map"} {
		names, _ := m.host.fs.List(filepath.Join("/d", dir))
		slices.Sort(names)
		for _, name := range names {
			if st, err := m.host.fs.Stat(filepath.Join("/d", dir, name)); err == nil {
				fmt.Fprintln(&out, dir, name, st.Size())
			}
		}
	}
	return out.String()
}

// down stops the machine, orderly or not, and leaves it so.
func (m *model) down(orderly, power bool) {
	if orderly {
		if err := m.n.Close(); err != nil {
			m.fatalf("close: %v", err)
		}
		return
	}
	m.kill(power)
}

// editMeta changes the metadata store of a deployment that does not run.
func (m *model) editMeta(edit func(meta.Store)) {
	m.t.Helper()
	s, err := meta.OpenPebble(meta.PebbleOptions{Dir: "/d/meta", FS: m.host.fs, MustExist: true, Ballast: -1})
	if err != nil {
		m.fatalf("%v", err)
	}
	edit(s)
	if err := s.Close(); err != nil {
		m.fatalf("%v", err)
	}
}

// harm deletes or garbles records of the proxy of some kinds.
func (m *model) harm(kinds string, part int) (n int) {
	m.editMeta(func(s meta.Store) {
		for _, kind := range kinds {
			list, err := s.Scan(context.Background(), []byte{'P', byte(kind)}, nil, 10000)
			if err != nil {
				m.fatalf("%v", err)
			}
			for _, e := range list {
				if m.rng.IntN(100) >= part {
					continue
				}
				t := new(meta.Txn)
				if m.rng.IntN(2) == 0 {
					t.Delete(e.Key)
				} else {
					e.Value[m.rng.IntN(len(e.Value))] ^= 1 << m.rng.IntN(8)
					t.Put(e.Key, e.Value)
				}
				if err := s.Apply(context.Background(), t); err != nil {
					m.fatalf("%v", err)
				}
				n++
			}
		}
	})
	return n
}

// harmNewest takes out the newest commits, as if they had never been.
func (m *model) harmNewest(most int) (n int) {
	m.editMeta(func(s meta.Store) {
		list, err := s.Scan(context.Background(), []byte("Pn"), nil, 10000)
		if err != nil {
			m.fatalf("%v", err)
		}
		for _, e := range list[max(0, len(list)-most):] {
			_, sco, err := proxy.DumpCell(e.Value)
			if err != nil {
				m.fatalf("%v", err)
			}
			manifest := binary.BigEndian.AppendUint32(append([]byte("Pm"), e.Key[2:10]...), uint32(sco))
			if err := s.Apply(context.Background(), new(meta.Txn).Delete(e.Key).Delete(manifest)); err != nil {
				m.fatalf("%v", err)
			}
			n++
		}
	})
	return n
}

func (m *model) dropMeta() {
	if err := m.host.fs.RemoveAll("/d/meta"); err != nil {
		m.fatalf("%v", err)
	}
}

// runFsckModel is runModel whose metadata store is lost or harmed between two lives.
func runFsckModel(t *testing.T, seed uint64, lives int) {
	said := new(lastWords)
	m := &model{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 4)), host: newMemHost(), log: said}
	defer func() {
		if t.Failed() {
			t.Logf("what was said last:\n%s", said)
		}
	}()
	m.power = m.rng.IntN(3) == 0
	m.size = int64(1+m.rng.IntN(4)) * 2 << 20
	m.flat, m.maybe = make([]byte, m.size), make([][]byte, m.size/4096)
	m.start(true)
	for range lives {
		m.step.Store(steps[m.rng.IntN(len(steps))])
		m.nth.Store(1 + m.rng.Int64N(6))
		for r := 20 + m.rng.IntN(300); r > 0 && !m.host.frozen.Load(); r-- {
			m.round()
		}
		m.step.Store("")
		m.down(m.rng.IntN(4) == 0 && !m.host.frozen.Load(), m.power && m.rng.IntN(2) == 0)
		m.mustBeWhole("after a life")
		what := []string{"nothing", "all", "manifests", "order", "numbers", "both", "newest", "much"}[m.rng.IntN(8)]
		n := 0
		switch what {
		case "all":
			m.dropMeta()
		case "manifests":
			n = m.harm("m", 1+m.rng.IntN(100))
		case "order":
			n = m.harm("n", 1+m.rng.IntN(100))
		case "numbers":
			n = m.harm("opsl", 50)
		case "both":
			n = m.harm("mn", 1+m.rng.IntN(50))
		case "newest":
			n = m.harmNewest(1 + m.rng.IntN(20))
		case "much":
			n = m.harm("mnopsl", 1+m.rng.IntN(100))
		}
		r := m.fsck(FsckOptions{Repair: true})
		if r.Found != r.Repaired || (what == "all") != (r.Metadata != "") {
			m.fatalf("%s (%d records): %d found, %d repaired:\n%s", what, n, r.Found, r.Repaired, strings.Join(r.Findings, "\n"))
		}
		for _, v := range r.VDisks {
			t.Logf("seed %d: %s lost: %d manifests of %d made again, %d left over", seed, what, v.Rebuilt,
				v.Objects+v.Rebuilt, v.Leftover)
		}
		m.mustBeWhole("after the repair of " + what)
		m.start(false)
		m.check()
	}
	if err := m.n.Close(); err != nil {
		m.fatalf("close: %v", err)
	}
}

// TestFsckModel takes the metadata store away, or parts of it, after random operations and kills: what was
// acknowledged is there after a repair, and a second check finds nothing.
func TestFsckModel(t *testing.T) {
	if *seedFlag != 0 {
		runFsckModel(t, *seedFlag, 8)
		return
	}
	end := time.Now().Add(*modelTime)
	seeds := uint64(2)
	if testing.Short() {
		seeds = 1
	}
	for seed := uint64(1); seed <= seeds || time.Now().Before(end); seed++ {
		s := seed
		if *modelTime > 0 {
			s = rand.Uint64()
		}
		runFsckModel(t, s, 6)
	}
}

// lastWords keeps the end of a log.
type lastWords struct {
	mu sync.Mutex
	b  []byte
}

func (w *lastWords) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.b = append(w.b, p...)
	w.b = w.b[max(0, len(w.b)-4096):]
	return len(p), nil
}

func (w *lastWords) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.b)
}
