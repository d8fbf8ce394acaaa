package store

import (
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
)

// copyFS copies a folder of a memory file system to a new one.
func copyFS(t testing.TB, from vfs.FS, dir string) *vfs.MemFS {
	t.Helper()
	to := vfs.NewMem()
	ok, err := vfs.Clone(from, to, dir, dir)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	return to
}

func TestRotOnDrive(t *testing.T) {
	s, o := newTestStore(t, 16<<20, nil)
	const blocks = 40
	must(t, put(s, 1, blocks))
	must(t, put(s, 2, blocks))
	d := o.Data.(*testDrive)
	at := int64(s.startOf(fkey(1))) << blockShift
	rng := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		off := rng.Int64N((blocks + 1) * blockSize)
		bit := rng.IntN(8)
		d.flip(at+off, bit)
		before := s.Stat().Corrupt
		want(t, s.Verify(bg, fkey(1)), errs.Corrupt)
		if s.Stat().Corrupt != before+1 {
			t.Fatal("not counted")
		}
		must(t, get(s, 2, blocks))
		if off >= blockSize {
			// The regions beside it still read.
			bad := (off - blockSize) / layout.RegionSize
			for r := range int64(3) {
				err := s.Get(bg, fkey(1), uint32(r)*layout.RegionSize, make([]byte, blockSize))
				if k := errs.Of(err); (k == errs.Corrupt) != (r == bad) {
					t.Fatalf("region %d: %v", r, err)
				}
			}
		}
		d.flip(at+off, bit)
	}
	must(t, get(s, 1, blocks))
	// A misdirected fragment: header and payload are whole and another's.
	d.set(at, d.bytes(int64(s.startOf(fkey(2)))<<blockShift, (blocks+1)*blockSize))
	want(t, get(s, 1, blocks), errs.Corrupt)
	r, err := s.Check(bg, true)
	if err != nil || len(r.Corrupt) != 1 || r.Corrupt[0] != fkey(1) {
		t.Fatal(r, err)
	}
}

func TestSuperblockRot(t *testing.T) {
	s, o := newTestStore(t, 16<<20, nil)
	must(t, put(s, 1, 5))
	must(t, s.Close())
	d := o.Data.(*testDrive)
	for _, off := range []int64{sbOffset0, sbOffset1} {
		d.flip(off+100, 3)
		s = mustOpen(t, o)
		if st := s.Stat(); st.HealedSuperblocks != 1 {
			t.Fatalf("%+v", st)
		}
		must(t, get(s, 1, 5))
		must(t, s.Close())
		if _, whole, err := ReadSuperblock(d); err != nil || !whole {
			t.Fatal("not healed", err)
		}
		want(t, Format(o), errs.Exists)
	}
	// While it is open too: the copies are alike.
	s = mustOpen(t, o)
	k := d.killed()
	k.flip(sbOffset0, 0)
	o2 := o
	o2.Data, o2.FS = k, copyFS(t, o.FS, "asd-3")
	mustOpen(t, o2)
	must(t, s.Close())
	d.flip(sbOffset0+9, 0)
	d.flip(sbOffset1+200, 0)
	_, err := Open(o)
	want(t, err, errs.Corrupt)
	want(t, Format(o), errs.Corrupt)
	o.Force = true
	must(t, Format(o))
	s = mustOpen(t, o)
	want(t, Format(o), errs.Busy)
	must(t, s.Close())
	s = mustOpen(t, o)
	want(t, get(s, 1, 5), errs.Absent)
}

func TestNewerVersion(t *testing.T) {
	s, o := newTestStore(t, 16<<20, nil)
	must(t, s.Close())
	d := o.Data.(*testDrive)
	b := d.bytes(sbOffset0, blockSize)
	b[8] = 2
	putUint64(b[16:], 0)
	putUint64(b[16:], sumWithout(b, 16))
	d.set(sbOffset0, b)
	_, err := Open(o)
	want(t, err, errs.Version)
	want(t, Format(o), errs.Version)
}

func TestRefusals(t *testing.T) {
	s, o := newTestStore(t, 16<<20, nil)
	_, err := Open(o)
	want(t, err, errs.Busy)
	must(t, put(s, 1, 5))
	must(t, s.Close())
	try := func(k errs.Kind, edit func(*Options)) {
		t.Helper()
		c := o
		edit(&c)
		s, err := Open(c)
		if err == nil {
			s.Close()
		}
		want(t, err, k)
		t.Log(err)
	}
	try(errs.Refused, func(o *Options) { o.ID = 4 })
	try(errs.Refused, func(o *Options) { o.UUID[5] = 1 })
	try(errs.Refused, func(o *Options) { o.Deployment[5] = 1 })
	try(errs.Absent, func(o *Options) { o.FS = vfs.NewMem() })
	try(errs.Absent, func(o *Options) { o.Data = newDrive(16 << 20) })
	try(errs.Invalid, func(o *Options) { o.Data = newDrive(1 << 20) })
	try(errs.Invalid, func(o *Options) { o.Data = nil })
	try(errs.Invalid, func(o *Options) { o.Dir = "" })
	try(errs.Invalid, func(o *Options) { o.Quarantine = -1 })
	short := newDrive(8 << 20)
	short.set(0, o.Data.(*testDrive).bytes(0, dataStart))
	try(errs.Corrupt, func(o *Options) { o.Data = short })
	s = mustOpen(t, o)
	must(t, get(s, 1, 5))
}

// Halves that do not belong together are refused: another drive's, and old copies of either, taken
// while the store was closed or open.
func TestSwappedAndOld(t *testing.T) {
	s, o := newTestStore(t, 16<<20, nil)
	other, o2 := newTestStore(t, 16<<20, nil)
	must(t, put(s, 1, 5))
	must(t, s.Close())
	must(t, other.Close())
	try := func(what string, d *testDrive, fs vfs.FS) {
		t.Helper()
		c := o
		c.Data, c.FS = d, fs
		s, err := Open(c)
		if err == nil {
			s.Close()
		}
		want(t, err, errs.Corrupt)
		t.Log(what, err)
	}
	d := o.Data.(*testDrive)
	try("another's index", d.killed(), copyFS(t, o2.FS, "asd-3"))
	oldD, oldFS := d.killed(), copyFS(t, o.FS, "asd-3")
	s = mustOpen(t, o)
	must(t, put(s, 2, 5))
	try("old index, store killed", d.killed(), copyFS(t, oldFS, "asd-3"))
	midFS := copyFS(t, o.FS, "asd-3")
	try("old drive, store killed", oldD.killed(), midFS)
	must(t, put(s, 3, 5))
	must(t, s.Close())
	try("old drive", oldD.killed(), copyFS(t, o.FS, "asd-3"))
	try("old index", d.killed(), copyFS(t, oldFS, "asd-3"))
	try("index of the same incarnation", d.killed(), copyFS(t, midFS, "asd-3"))
	// Both halves restored and opened elsewhere make a fork of the same count.
	fork := o
	fork.Data, fork.FS = oldD, oldFS
	f := mustOpen(t, fork)
	must(t, f.Close())
	try("index of a fork", d.killed(), copyFS(t, oldFS, "asd-3"))
	s = mustOpen(t, o)
	must(t, get(s, 3, 5))
}

// One bit flipped anywhere in the index's files of a stopped store is refused, or changes nothing.
func TestRotInIndex(t *testing.T) {
	s, o := newTestStore(t, 16<<20, nil)
	for i := range 60 {
		must(t, put(s, i, 1+i%5))
	}
	must(t, del(s, 3, 5, 9))
	must(t, s.Close())
	files, err := o.FS.List(o.Dir)
	must(t, err)
	rng := rand.New(rand.NewPCG(3, 3))
	refused, same := map[errs.Kind]int{}, 0
	for _, name := range files {
		path := o.FS.PathJoin(o.Dir, name)
		fi, err := o.FS.Stat(path)
		must(t, err)
		if fi.IsDir() || fi.Size() == 0 {
			continue
		}
		for range 40 {
			c := o
			c.Data, c.FS = o.Data.(*testDrive).killed(), copyFS(t, o.FS, "asd-3")
			mem, err := c.FS.(*vfs.MemFS).UnsafeGetFileDataBuffer(path)
			must(t, err)
			mem[rng.IntN(len(mem))] ^= 1 << rng.IntN(8)
			s, err := Open(c)
			if err != nil {
				if k := errs.Of(err); k == errs.Corrupt || k == errs.Absent {
					refused[k]++
				} else {
					t.Errorf("%s: %v", name, err)
				}
				// Either way the headers still make an index.
				rep, err := RebuildIndex(bg, c, nil)
				if err != nil || rep.Fragments != 57 {
					t.Fatal(rep, err)
				}
				continue
			}
			same++
			for i := range 60 {
				err := get(s, i, 1+i%5)
				gone := i == 3 || i == 5 || i == 9
				if k := errs.Of(err); gone != (k == errs.Absent) || gone != (k != errs.OK) {
					t.Errorf("%s: fragment %d: %v", name, i, err)
				}
			}
			s.Close()
		}
	}
	t.Logf("refused %v, no difference %d", refused, same)
}

// A guest that stores what looks like headers, or a copy of the drive itself, fools no rebuild.
func TestForgedHeaders(t *testing.T) {
	s, o := newTestStore(t, 32<<20, nil)
	must(t, put(s, 1, 3))
	forged := payload(7, 64)
	for b := range 64 {
		h := goldenHeader()
		h.UUID, h.FormatNonce, h.Self = s.sb.UUID, s.sb.FormatNonce+1, dataStart+int64(b+5)*blockSize
		h.Sums, h.Len = h.Sums[:1], blockSize
		h.Extents = []layout.Extent{{Off: h.Self, Len: 2 * blockSize}}
		h.Encode(forged[b*blockSize:])
	}
	copy(forged[:4*blockSize], o.Data.(*testDrive).bytes(dataStart, 4*blockSize)) // fragment 1 itself
	p := fput(fkey(2), forged)
	must(t, s.Put(bg, p))
	must(t, del(s, 2)) // its payload still lies there
	must(t, put(s, 3, 1))
	must(t, s.Close())
	rep := must2(RebuildIndex(bg, o, nil))
	if rep.Fragments != 2 || rep.Dead != 0 {
		t.Fatalf("%+v", rep)
	}
	s = mustOpen(t, o)
	must(t, get(s, 1, 3))
	must(t, get(s, 3, 1))
	check(t, s)
}

// A rebuild finds what is live, leaves out what is damaged, and forgets no epoch that a put brought.
func TestRebuild(t *testing.T) {
	s, o := newTestStore(t, 32<<20, nil)
	for i := range 20 {
		must(t, put(s, i, 1+i*3))
	}
	must(t, del(s, 4, 8))
	p := fput(layout.FragKey{Namespace: 77, SCO: 1}, payload(1, 1))
	p.Epoch = 12
	must(t, s.Put(bg, p))
	d := o.Data.(*testDrive)
	d.flip(int64(s.startOf(fkey(6))+2)<<blockShift, 1)
	_, err := RebuildIndex(bg, o, nil)
	want(t, err, errs.Busy)
	must(t, s.Close())
	rep := must2(RebuildIndex(bg, o, nil))
	if rep.Fragments != 18 || len(rep.Damaged) != 1 || rep.Damaged[0] != fkey(6) {
		t.Fatalf("%+v", rep)
	}
	s = mustOpen(t, o)
	for i := range 20 {
		if err := get(s, i, 1+i*3); i == 4 || i == 6 || i == 8 {
			want(t, err, errs.Absent)
		} else {
			must(t, err)
		}
	}
	if s.HighestEpoch(77) != 12 {
		t.Fatal("epoch lost")
	}
	check(t, s)
	must(t, put(s, 6, 1+6*3))
	check(t, s)
	if st := s.Stat(); st.Quarantined != 0 || st.Used+st.Free != st.Capacity {
		t.Fatalf("%+v", st)
	}
	must(t, s.Close())
	// A rebuild that did not end is refused.
	o.FS = vfs.NewMem()
	c := o.withDefaults()
	ix, err := openIndex(&c, true)
	must(t, err)
	must(t, ix.close())
	_, err = Open(o)
	want(t, err, errs.Corrupt)
}

func TestIndexFull(t *testing.T) {
	mem := vfs.NewMem()
	usage := func(avail uint64) {
		mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: avail, TotalBytes: 1 << 40})
	}
	usage(1 << 30)
	s, _ := newTestStore(t, 32<<20, func(o *Options) { o.FS = mem })
	must(t, put(s, 1, 1))
	must(t, put(s, 2, 1))
	usage(5 << 20)
	for i := 0; i <= blindBatches && put(s, 100+i, 1) == nil; i++ { // a batch notices
	}
	want(t, put(s, 4, 1), errs.Full)
	if _, err := mem.Stat("asd-3/index/BALLAST"); err != nil {
		t.Fatal(err)
	}
	usage(100)
	must(t, del(s, 1))
	if _, err := mem.Stat("asd-3/index/BALLAST"); err == nil {
		t.Fatal("the ballast is still there")
	}
	usage(1 << 30)
	must(t, put(s, 4, 1))
}

// The header of a put that crashed outlives it; then its space is used in part by a later fragment of
// several extents, and both are zeros. The rebuild believes the later one.
func TestRebuildRivals(t *testing.T) {
	s, o := newTestStore(t, 16<<20, func(o *Options) { o.Reserve = 1 })
	must(t, s.Close())
	d := o.Data.(*testDrive)
	sb := must2R(ReadSuperblock(d))
	lay := func(key layout.FragKey, inc uint64, rs ...run) {
		n := int(runsLen(rs)-1) * blockSize
		p := fput(key, make([]byte, n))
		put := putting{s: &Store{sb: sb, opts: o}, p: p}
		put.setHeader(rs)
		h := put.head
		h.Incarnation, h.Extents = inc, nil
		for _, r := range rs {
			h.Extents = append(h.Extents,
				layout.Extent{Off: int64(r.start) << blockShift, Len: uint32(r.n << blockShift)})
		}
		h.Encode(p.Buf)
		d.set(h.Self, p.Buf[:blockSize])
	}
	for _, newer := range []uint64{1, 9} {
		lay(fkey(1), 5, run{600, 4}, run{700, 30})
		lay(fkey(2), newer, run{650, 4}, run{710, 10})
		lay(fkey(3), 5, run{800, 4}) // and the same key twice
		lay(fkey(3), newer, run{900, 4})
		c := o
		c.Data, c.FS = d.killed(), copyFS(t, o.FS, "asd-3")
		rep := must2(RebuildIndex(bg, c, nil))
		if rep.Fragments != 2 {
			t.Fatalf("%+v", rep)
		}
		s := mustOpen(t, c)
		winner, at := 1, uint64(800)
		if newer == 9 {
			winner, at = 2, 900
		}
		if s.startOf(fkey(3)) != at {
			t.Fatal("the older copy won")
		}
		must(t, s.Verify(bg, fkey(winner)))
		want(t, s.Verify(bg, fkey(3-winner)), errs.Absent)
		check(t, s)
	}
}

func must2R(sb Superblock, _ bool, err error) Superblock { return must2(sb, err) }
