package journal

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// headers finds where in the image the record headers of the present life lie, by number.
func headers(d *drive, root Root) map[uint64]int64 {
	out := map[uint64]int64{}
	for off := int64(DataStart); off < d.Size(); off += BlockSize {
		h, err := DecodeHeader(d.mem[off : off+BlockSize])
		if err == nil && h.UUID == root.UUID && int64(h.Position)*BlockSize == off {
			out[h.Number] = off
		}
	}
	return out
}

// killed makes a journal with records 1..n of one block each and kills it. The boot id stays the same.
func killed(t *testing.T, n ids.Seq, opt Options, during func(*rig)) *drive {
	t.Helper()
	l := startLoop(t, 16<<20)
	r := open(t, l, create(t, 6, opt), opt, nil)
	r.putEach(1, 1, n)
	if during != nil {
		during(r)
	}
	img := r.d.kill(rand.New(rand.NewPCG(1, 1)))
	r.abandon()
	return img
}

// replayOf opens and replays an image.
func replayOf(t *testing.T, d *drive, opt Options) (seqs []ids.Seq, bad []ids.Seq, stats ReplayStats, err error) {
	t.Helper()
	j, err := Open(d, opt)
	if err != nil {
		return nil, nil, stats, err
	}
	err = j.Replay(func(e ReplayEntry) error {
		seqs = append(seqs, e.Seq)
		if e.Bad != 0 {
			bad = append(bad, e.Seq)
		}
		return nil
	})
	return seqs, bad, j.Replayed(), err
}

func TestRot(t *testing.T) {
	boot, other := [16]byte{1}, [16]byte{2}
	synced := func(at ids.Seq) func(*rig) {
		return func(r *rig) { r.sync(); r.putEach(1, at, at+2) }
	}
	const n = 100
	cases := []struct {
		name    string
		during  func(*rig)
		next    [16]byte
		record  uint64 // to be hit
		payload bool
		want    int // entries replayed
		bad     int
		kind    errs.Kind
	}{
		{"payload, synced, same boot", synced(n + 1), boot, 50, true, n + 3, 1, errs.OK},
		{"payload, synced, booted since", synced(n + 1), other, 50, true, n + 3, 1, errs.OK},
		{"header, synced, booted since", synced(n + 1), other, 50, false, 49, 0, errs.Corrupt},
		{"header at a segment's start, synced", synced(n + 1), other, 1, false, 0, 0, errs.Corrupt},
		// Record n+1 was issued after the fdatasync, so its header knows of it.
		{"header, last before the fdatasync", synced(n + 1), other, n, false, n - 1, 0, errs.Corrupt},
		{"header, first after the fdatasync", synced(n + 1), other, n + 1, false, n, 0, errs.OK},
		{"header, complete, same boot", synced(n + 1), boot, n + 1, false, n, 0, errs.Corrupt},
		{"payload, complete, same boot", nil, boot, 50, true, n, 1, errs.OK},
		{"header, complete, same boot", nil, boot, 50, false, 49, 0, errs.Corrupt},
		// Power loss may have taken any of what was not synced.
		{"payload, not synced, booted since", nil, other, 50, true, 49, 0, errs.OK},
		{"header, not synced, booted since", nil, other, 50, false, 49, 0, errs.OK},
		// Nothing behind it vouches for it.
		{"payload, last record", nil, boot, n, true, n - 1, 0, errs.OK},
		{"header, last record", nil, boot, n, false, n - 1, 0, errs.OK},
		{"payload, last record, marked", mark, boot, n, true, n, 1, errs.OK},
		{"header, last record, marked", mark, other, n, false, n - 1, 0, errs.Corrupt},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			d := killed(t, n, Options{BootID: boot, MarkAfter: time.Hour}, c.during)
			root, _ := DecodeRoot(d.mem)
			off, ok := headers(d, root)[c.record]
			if !ok {
				t.Fatalf("record %d is nowhere", c.record)
			}
			at := off + 20
			if c.payload {
				at = off + BlockSize + 17
			}
			d.mem[at] ^= 4
			seqs, bad, stats, err := replayOf(t, d, Options{BootID: c.next})
			if errs.Of(err) != c.kind || len(seqs) != c.want || len(bad) != c.bad || int(stats.BadBlocks) != c.bad {
				t.Fatalf("%d entries, %v bad, %+v, %v", len(seqs), bad, stats, err)
			}
			if c.bad > 0 && bad[0] != ids.Seq(c.record) {
				t.Fatalf("%v are bad, want %d", bad, c.record)
			}
			if c.kind == errs.Corrupt && !strings.Contains(err.Error(), "record") {
				t.Fatal(err)
			}
		})
	}
}

// A block that is lost is copied forward as lost: with nothing behind it that vouches for its record it is
// neither a torn tail nor good, and its neighbours are.
func TestLost(t *testing.T) {
	opt := Options{BootID: [16]byte{1}, MarkAfter: time.Hour}
	d := killed(t, 10, opt, func(r *rig) {
		r.on(func() {
			lost, good := write(r.l, 1, 3, 3, 1, 3), write(r.l, 1, 4, 4, 1, 4)
			lost.Lost = true
			lost.Sums[0]++
			r.j.AppendCopy(&lost.Entry)
			r.j.AppendCopy(&good.Entry)
		})
		r.settle()
	})
	for _, boot := range []byte{1, 2} {
		seqs, bad, stats, err := replayOf(t, d, Options{BootID: [16]byte{boot}})
		if err != nil || len(seqs) != 12 || len(bad) != 1 || bad[0] != 3 || stats.BadBlocks != 1 || stats.Torn {
			t.Fatalf("%v, %v bad, %+v, %v", seqs, bad, stats, err)
		}
	}
}

// mark is what the keeper does when its time has come.
func mark(r *rig) {
	r.on(r.j.timer.fire)
	r.settle()
	if s := r.j.Stats(); s.Marks != 1 {
		r.t.Fatalf("%d marks, want 1", s.Marks)
	}
	r.on(r.j.timer.fire)
	r.settle()
	if s := r.j.Stats(); s.Marks != 1 {
		r.t.Fatalf("an idle journal leaves %d marks", s.Marks)
	}
}

// After a clean close every flipped bit in what is used is found.
func TestRotClean(t *testing.T) {
	l := startLoop(t, 16<<20)
	r := open(t, l, create(t, 4, Options{}), Options{}, nil)
	r.putEach(1, 1, 20)
	r.put(2, 1, 40)
	r.close()
	j, err := Open(r.d, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Replay(func(ReplayEntry) error { return nil }); err != nil {
		t.Fatal(err)
	}
	end := int(j.headPos()) * BlockSize
	rnd := rand.New(rand.NewPCG(3, 3))
	caught := map[string]int{}
	for range 1000 {
		at, bit := DataStart+rnd.IntN(end-DataStart), byte(1)<<rnd.IntN(8)
		block := at &^ (BlockSize - 1)
		h, isHeader := DecodeHeader(r.d.mem[block : block+BlockSize])
		r.d.mem[at] ^= bit
		seqs, bad, stats, err := replayOf(t, r.d, Options{})
		switch {
		case isHeader == nil && at-block >= int(h.Length):
			caught["unused"]++
			if err != nil || len(bad) > 0 || len(seqs) != 60 {
				t.Fatalf("a bit in the unused part of a header: %v, %+v", err, stats)
			}
		case isHeader == nil:
			caught["header"]++
			if errs.Of(err) != errs.Corrupt {
				t.Fatalf("a bit in a header went unnoticed: %+v", stats)
			}
		default:
			caught["payload"]++
			if err != nil || len(bad) != 1 || len(seqs) != 60 {
				t.Fatalf("a bit in payload: %v, %+v", err, stats)
			}
		}
		r.d.mem[at] ^= bit
	}
	if len(caught) != 3 {
		t.Fatal(caught)
	}
}

func TestRootRot(t *testing.T) {
	l := startLoop(t, 16<<20)
	r := open(t, l, create(t, 5, Options{}), Options{MarkAfter: -1}, nil)
	r.putEach(1, 1, 100)
	r.commit(1, 80)
	img := r.d.kill(rand.New(rand.NewPCG(1, 1)))
	r.abandon()
	want, _, _, err := replayOf(t, img, Options{})
	if err != nil || len(want) == 0 || want[len(want)-1] != 100 {
		t.Fatal(want, err)
	}
	for _, off := range rootPlaces {
		img.mem[off+50] ^= 1
		seqs, _, _, err := replayOf(t, img, Options{})
		if err != nil || len(seqs) != len(want) {
			t.Fatalf("with the root at %d lost: %d entries, %v", off, len(seqs), err)
		}
		// The lost copy is renewed by the next attach, first of all.
		repaired := img.kill(rand.New(rand.NewPCG(1, 1)))
		r := open(t, l, repaired, Options{MarkAfter: -1}, nil)
		r.abandon()
		for _, o := range rootPlaces {
			if _, err := DecodeRoot(repaired.mem[o : o+BlockSize]); err != nil {
				t.Fatalf("copy at %d: %v", o, err)
			}
		}
		img.mem[off+50] ^= 1
	}
	img.mem[RootA+50] ^= 1
	img.mem[RootB+50] ^= 1
	if _, err := Open(img, Options{}); errs.Of(err) != errs.Corrupt {
		t.Fatalf("both copies lost: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	d := create(t, 5, Options{})
	// A newer version, with all else in order.
	newer := newDrive(d.Size())
	copy(newer.mem, d.mem)
	b := newer.mem[RootB : RootB+BlockSize]
	b[16] = 2
	root, _ := DecodeRoot(d.mem)
	fixRootSum(b)
	if _, err := Open(newer, Options{}); errs.Of(err) != errs.Version {
		t.Errorf("a newer version: %v", err)
	}
	short := newDrive(d.Size() - BlockSize)
	copy(short.mem, d.mem)
	if _, err := Open(short, Options{}); errs.Of(err) != errs.Corrupt || !strings.Contains(err.Error(), "truncated") {
		t.Errorf("a truncated file: %v", err)
	}
	mixed := newDrive(d.Size())
	copy(mixed.mem, d.mem)
	root.UUID[0]++
	root.Encode(mixed.mem[RootB:])
	if _, err := Open(mixed, Options{}); errs.Of(err) != errs.Corrupt {
		t.Errorf("roots of two journals: %v", err)
	}
	if err := Create(newDrive(DataStart+3*testSegment), Options{SegmentSize: testSegment}); errs.Of(err) != errs.Invalid {
		t.Errorf("a file too small: %v", err)
	}
	for _, o := range []Options{{SegmentSize: 4096}, {SegmentSize: 300001}, {MaxInFlight: 65}, {RecordBlocks: 1},
		{Reserve: -1}, {RecordBlocks: headerBlocks + 1}} {
		if errs.Of(o.Validate()) != errs.Invalid {
			t.Errorf("%+v is accepted", o)
		}
	}
	if _, err := Open(d, Options{Reserve: 4}); errs.Of(err) != errs.Invalid {
		t.Errorf("a reserve of 4 of 5 segments: %v", err)
	}
}

// An unreadable sector is damage like any other; a drive that answers nothing is no torn tail.
func TestUnreadable(t *testing.T) {
	d := killed(t, 100, Options{BootID: [16]byte{1}}, func(r *rig) { r.sync(); r.putEach(1, 101, 102) })
	root, _ := DecodeRoot(d.mem)
	off := headers(d, root)[50]
	d.badAt[int(off/BlockSize)+1] = true
	seqs, bad, stats, err := replayOf(t, d, Options{})
	if err != nil || len(seqs) != 102 || len(bad) != 1 || stats.Unreadable == 0 {
		t.Fatalf("%d entries, %v bad, %+v, %v", len(seqs), bad, stats, err)
	}
	j, err := Open(d, Options{})
	if err != nil {
		t.Fatal(err)
	}
	d.badAt[-1] = true
	if err := j.Replay(func(ReplayEntry) error { return nil }); errs.Of(err) != errs.IO {
		t.Fatalf("a dead drive: %v", err)
	}
}

// A header that was read once and then cannot be read any more takes none of its record's entries with it.
func TestHeaderReadOnce(t *testing.T) {
	d := killed(t, 100, Options{BootID: [16]byte{1}}, func(r *rig) { r.sync(); r.putEach(1, 101, 102) })
	root, _ := DecodeRoot(d.mem)
	starts := 0
	for _, off := range headers(d, root) {
		if off > DataStart && (off-DataStart)%testSegment == 0 {
			d.onceAt[int(off/BlockSize)] = true
			starts++
		}
	}
	seqs, bad, stats, err := replayOf(t, d, Options{})
	if starts == 0 || err != nil || len(seqs) != 102 || len(bad) != 0 || stats.Unreadable == 0 {
		t.Fatalf("of %d segments: %d entries, %v bad, %+v, %v", starts, len(seqs), bad, stats, err)
	}
	for i, seq := range seqs {
		if seq != ids.Seq(i+1) {
			t.Fatalf("entry %d has sequence %d", i+1, seq)
		}
	}
}

// The example of doc.go: what an earlier life left behind lies in the right place with the right number.
func TestStale(t *testing.T) {
	l := startLoop(t, 16<<20)
	opt := Options{MarkAfter: -1}
	r := open(t, l, create(t, 4, opt), opt, nil)
	r.putEach(1, 1, 9)
	r.d.hold = true
	for s := ids.Seq(10); s <= 12; s++ {
		r.on(func() { r.j.Append(&write(l, 1, s, 0, 1, 1000+uint64(s)).Entry) })
		r.settle()
	}
	r.on(func() { r.d.land(r.d.flying[2]); r.d.land(r.d.flying[1]) })
	late := r.d.flying[0] // record 10 is still on its way when the process is killed
	r.settle()
	img := newDrive(r.d.Size())
	copy(img.mem, r.d.mem)
	r.abandon()

	// A second life that writes nothing, then record 10 lands after all: it stays left out.
	second := open(t, l, img, opt, nil)
	if second.j.next != 10 {
		t.Fatalf("next is %d", second.j.next)
	}
	second.abandon()
	lateImg := newDrive(img.Size())
	copy(lateImg.mem, img.mem)
	late.put(lateImg, nil)
	if seqs, _, _, err := replayOf(t, lateImg, opt); err != nil || len(seqs) != 9 {
		t.Fatalf("%d entries, %v: a record came back from the dead", len(seqs), err)
	}

	// A third life writes a 10 of the same size; the old 11 and 12 are not taken for its successors.
	for _, lives := range []int{1, 2, 3} {
		d := newDrive(img.Size())
		copy(d.mem, img.mem)
		r := open(t, l, d, opt, nil)
		r.put(1, 10, 10)
		for range lives - 1 {
			r.abandon()
			d = d.kill(rand.New(rand.NewPCG(1, 1)))
			r = open(t, l, d, opt, nil)
		}
		r.abandon()
		seqs, _, _, err := replayOf(t, d.kill(rand.New(rand.NewPCG(1, 1))), opt)
		if err != nil || len(seqs) != 10 {
			t.Fatalf("after %d lives: %d entries, %v", lives, len(seqs), err)
		}
	}
}
