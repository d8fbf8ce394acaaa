package journal

import (
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/ring"
)

// model drives a journal with random operations and crashes, and knows what must come back.
type model struct {
	t    fataler
	r    *rig
	l    *ring.Loop
	opt  Options
	rnd  *rand.Rand
	log  []*known // of the present, in order of append; those left out by a replay are gone
	seqs [4]ids.Seq
	com  [4]ids.Seq // committed
	// settled: the present life's incarnation is durable, and with it what its replay decided.
	settled bool
	dropped []*known // by the replay of this life, as long as it is not settled
	stamp   uint64
	done    int
	crashes int
	early   int // fdatasyncs that were begun before anybody asked
	amid    int // crashes with one of them in flight
}

// known is an entry the model remembers, with its latest copy.
type known struct {
	e     *testEntry
	vol   ids.VolumeID
	seq   ids.Seq
	kind  Kind
	addr  ids.BlockAddr
	n     uint32
	sums  []uint32
	stamp uint64
	pos   Pos
	acked bool
	safe  bool // acknowledged before a Sync that has ended
}

func (m *model) append(entries int) {
	m.r.on(func() {
		for range entries {
			vol := m.rnd.IntN(len(m.seqs))
			m.seqs[vol]++
			n, kind := 1, Write
			switch m.rnd.IntN(4) {
			case 0:
				n = 1 + m.rnd.IntN(MaxEntryBlocks)
			case 1:
				kind = Kind(1 + m.rnd.IntN(int(kindLast)))
			}
			m.stamp += 64
			e := write(m.l, ids.VolumeID(vol), m.seqs[vol], ids.BlockAddr(m.rnd.IntN(1000)), n, m.stamp)
			e.Kind = kind
			k := &known{e: e, vol: e.Vol, seq: e.Seq, kind: kind, addr: e.Addr, n: e.Blocks, sums: e.Sums, stamp: m.stamp}
			m.log = append(m.log, k)
			e.then = func(e *testEntry) {
				m.l.Pool().ReleaseVec(&e.Data)
				if e.Err == errs.OK {
					k.acked, k.pos = true, e.Pos
					m.done++
				}
			}
			m.r.j.Append(&e.Entry)
		}
	})
}

func (m *model) sync() {
	var covered []*known
	s := &testSync{then: func(s *testSync) {
		if s.Err != errs.OK {
			return
		}
		for _, k := range covered {
			k.safe = true
		}
	}}
	s.Sync.Done = s
	m.r.on(func() {
		for _, k := range m.log {
			if k.acked {
				covered = append(covered, k)
			}
		}
		if n := len(m.log); n > 0 && m.rnd.IntN(2) == 0 { // FUA
			k := m.log[n-1]
			s.Entry = &k.e.Entry
			covered = append(covered, k)
		}
		m.r.j.Sync(&s.Sync)
	})
}

// land ends some of what is in flight, in any order.
func (m *model) land() {
	m.r.on(func() {
		for range m.rnd.IntN(6) + 1 {
			if d := m.r.d; len(d.flying) > 0 {
				d.land(d.flying[m.rnd.IntN(len(d.flying))])
			}
		}
	})
	m.r.settle()
}

func (m *model) landAll() {
	m.r.settle()
	for len(m.r.d.flying) > 0 {
		m.land()
	}
	m.r.settle()
}

// commits is a client that syncs after each write, until the next sync is expected and its fdatasync is in flight.
// Perhaps it crashes then.
func (m *model) commits() {
	m.landAll()
	m.sync()
	m.landAll()
	for range 1 + m.rnd.IntN(2) {
		m.append(1)
		m.landAll()
		m.sync()
		m.landAll()
	}
	m.r.on(func() { m.r.d.hold = true })
	m.append(1)
	m.r.settle()
	m.r.on(func() {
		for _, f := range append([]*flight(nil), m.r.d.flying...) {
			if !f.sync {
				m.r.d.land(f)
			}
		}
	})
	m.r.settle()
	if m.rnd.IntN(3) == 0 {
		m.crash(m.rnd.IntN(2) == 0)
	}
}

// commit says that a volume's acknowledged entries up to one of them are safe elsewhere.
func (m *model) commit() {
	m.r.on(func() {
		vol := m.rnd.IntN(len(m.com))
		for _, k := range m.log {
			if int(k.vol) == vol && k.seq > m.com[vol] && (!k.acked || m.rnd.IntN(20) == 0) {
				break
			}
			if int(k.vol) == vol && k.acked {
				m.com[vol] = max(m.com[vol], k.seq)
			}
		}
		m.r.j.Committed(ids.VolumeID(vol), m.com[vol])
	})
}

// move copies what a volume has in the tail segment forward.
func (m *model) move() {
	tail, ok := m.r.j.Tail()
	if !ok || !m.settled {
		return
	}
	vol := ids.VolumeID(m.rnd.IntN(len(m.com)))
	var copies []*known
	m.r.on(func() {
		for _, k := range m.log {
			if k.vol != vol || k.seq <= m.com[vol] || !k.acked || k.pos < tail.Lo || k.pos >= tail.Hi {
				continue
			}
			copies = append(copies, k)
			if k.e.ended == 0 {
				continue // the copy of an earlier round is still under way
			}
			c := write(m.l, vol, k.seq, k.addr, int(k.n), k.stamp)
			c.Kind = k.kind
			k.e = c
			m.r.j.AppendCopy(&c.Entry)
		}
	})
	m.landAll()
	for _, k := range copies {
		if k.e.ended != 1 || k.e.Err != errs.OK {
			return // the whole journal is full of copies; then the tail stays
		}
		k.pos = k.e.Pos
	}
	m.r.on(func() { m.r.j.Moved(vol, tail) })
}

// crash replaces the journal by what a crash leaves and replays that.
func (m *model) crash(power bool) {
	m.crashes++
	if m.unasked() {
		m.amid++
	}
	m.noteSettled()
	var img *drive
	m.r.on(func() {
		if power {
			img = m.r.d.powerLoss(m.rnd)
		} else {
			img = m.r.d.kill(m.rnd)
		}
	})
	m.r.abandon()
	m.r.on(func() { m.releaseAll() })
	if power {
		m.opt.BootID[0]++
	}
	m.reopen(img, func(k *known) bool { return k.safe || !power && k.acked })
}

// releaseAll gives the pages of what was under way back.
func (m *model) releaseAll() {
	for _, k := range m.log {
		if k.e != nil && k.e.ended == 0 {
			m.l.Pool().ReleaseVec(&k.e.Data)
		}
		k.e = &testEntry{ended: 1}
	}
}

// noteSettled takes over what an attach has made durable.
func (m *model) noteSettled() {
	if m.settled || m.r.j.st == attaching {
		return
	}
	m.settled, m.dropped = true, nil
	for _, k := range m.log {
		if k.e.ended == 1 && k.e.Done == nil { // replayed
			k.safe, k.acked = true, true
		}
	}
}

func (m *model) closeClean() {
	m.r.settle()
	m.r.d.hold = false
	m.landAll()
	m.noteSettled()
	var s testSync
	m.r.on(func() { s.Sync.Done = &s; m.r.j.Close(&s.Sync) })
	m.r.settle()
	if s.ended != 1 || s.Err != errs.OK {
		m.t.Fatalf("Close ended %d times, %s", s.ended, s.Err)
	}
	for _, k := range m.log {
		k.safe = k.acked
		if k.e.ended != 1 {
			m.t.Fatalf("entry %d/%d never ended", k.vol, k.seq)
		}
	}
	m.r.on(func() { m.releaseAll() })
	m.reopen(m.r.d, func(k *known) bool { return k.acked })
}

func (m *model) reopen(d *drive, must func(*known) bool) {
	t := m.t
	// What an unsettled replay left out may still come back.
	all := append(append([]*known(nil), m.log...), m.dropped...)
	found := map[*known]bool{}
	record := uint64(0)
	m.opt.MaxInFlight = 1 + m.rnd.IntN(4)
	m.opt.MarkAfter = [...]time.Duration{-1, time.Hour}[m.rnd.IntN(2)]
	j, err := Open(d, m.opt)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	if err := j.Replay(func(e ReplayEntry) error {
		if e.Record < record {
			t.Fatalf("record %d after %d", e.Record, record)
		}
		record = e.Record
		if e.Bad != 0 {
			t.Fatalf("record %d has bad blocks %b", e.Record, e.Bad)
		}
		if e.Seq <= m.com[e.Vol] {
			return nil
		}
		for _, k := range all {
			if k.vol == e.Vol && k.seq == e.Seq && k.addr == e.Addr && k.kind == e.Kind && k.n == e.Blocks &&
				(k.kind != Write || string(sumBytes(k.sums)) == string(sumBytes(e.Sums))) {
				found[k] = true
				k.pos = e.Pos
				return nil
			}
		}
		t.Fatalf("record %d holds %s %d/%d, which is stale or was never appended", e.Record, e.Kind, e.Vol, e.Seq)
		return nil
	}); err != nil {
		t.Fatalf("replay: %v", err)
	}
	m.check(found, must)
	m.adopt(found, all)
	m.settled = false
	m.r = &rig{t: t, l: m.l, d: d, j: j}
	d.hold = m.rnd.IntN(4) > 0
	m.r.on(func() {
		for v, s := range m.com {
			j.Committed(ids.VolumeID(v), s)
		}
		if err := j.Attach(m.l); err != nil {
			t.Errorf("attach: %v", err)
		}
		// What is done at random is not done habitsMin times in a row.
		j.syncs.habit.min = m.rnd.IntN(2)
		d.onSync = func() {
			if m.unasked() {
				m.early++
			}
		}
	})
	m.r.settle()
}

// unasked reports whether an fdatasync is in flight for which nobody waits.
func (m *model) unasked() bool { return m.r.j.syncs.busy && m.r.j.syncs.flying.head == nil }

func sumBytes(s []uint32) []byte {
	var b []byte
	for _, v := range s {
		b = append(b, byte(v), byte(v>>8), byte(v>>16), byte(v>>24))
	}
	return b
}

// check: what must be there is, and nothing of a volume is missing in front of what is. Between volumes that is not so:
// one that pins more than half of the log lets the others pass.
func (m *model) check(found map[*known]bool, must func(*known) bool) {
	last := map[ids.VolumeID]int{}
	for i, k := range m.log {
		if found[k] {
			last[k.vol] = i
		}
	}
	for i, k := range m.log {
		if found[k] || k.seq <= m.com[k.vol] {
			continue
		}
		if must(k) {
			m.t.Fatalf("crash %d: %s %d/%d is lost (acknowledged %v, synced %v)", m.crashes, k.kind, k.vol, k.seq,
				k.acked, k.safe)
		}
		if at, is := last[k.vol]; is && i < at {
			m.t.Fatalf("crash %d: %d/%d is missing in front of %d/%d", m.crashes, k.vol, k.seq, k.vol, m.log[at].seq)
		}
	}
}

// adopt makes what was found the present.
func (m *model) adopt(found map[*known]bool, all []*known) {
	m.log, m.dropped = m.log[:0:0], nil
	clear(m.seqs[:])
	copy(m.seqs[:], m.com[:])
	for _, k := range all {
		if k.seq <= m.com[k.vol] {
			continue
		}
		if !found[k] {
			m.dropped = append(m.dropped, k)
			continue
		}
		k.e = &testEntry{ended: 1}
		m.log = append(m.log, k)
		m.seqs[k.vol] = max(m.seqs[k.vol], k.seq)
	}
}

// TestCrashes is the property of the package: whatever is appended, synced, committed, copied and
// crashed, in whatever order the drive ends its operations, what must come back does, and nothing else.
func TestCrashes(t *testing.T) {
	l := startLoop(t, 64<<20)
	early, amid := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		m := runModel(t, l, rapid.Uint64().Draw(t, "seed"), rapid.IntRange(20, 250).Draw(t, "steps"))
		early, amid = early+m.early, amid+m.amid
	})
	if t.Logf("%d early fdatasyncs, %d crashes with one in flight", early, amid); early == 0 || amid == 0 {
		t.Error("habits are not tried")
	}
}

func runModel(t fataler, l *ring.Loop, seed uint64, steps int) *model {
	m := &model{t: t, l: l, rnd: rand.New(rand.NewPCG(seed, 7))}
	m.opt = Options{BootID: [16]byte{1}}
	d := create(t, 4+m.rnd.IntN(4), m.opt)
	m.reopen(d, func(*known) bool { return false })
	for range steps {
		m.step()
	}
	m.closeClean()
	m.r.d.hold = false
	m.landAll()
	m.r.close()
	if n := l.Pool().Pages() - l.Pool().Free(); n != 0 {
		t.Fatalf("%d pages leaked", n)
	}
	return m
}

func (m *model) step() {
	m.r.settle() // from here to the next call to the loop its state may be looked at
	m.noteSettled()
	switch n := m.rnd.IntN(100); {
	case n < 32:
		m.append(m.rnd.IntN(8) + 1)
	case n < 62:
		m.land()
	case n < 72:
		m.sync()
	case n < 80:
		m.commit()
	case n < 84:
		m.move()
	case n < 87:
		m.r.on(func() { m.r.j.timer.fire() })
	case n < 90:
		m.crash(false)
	case n < 93:
		m.crash(true)
	case n < 94:
		m.closeClean()
	case n < 98:
		m.commits()
	default:
		m.landAll()
	}
}
