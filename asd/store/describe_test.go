package store

import (
	"bytes"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
)

// A descriptor comes back as it was put, from the drive, also after a rebuild of the index, and never from a
// header that is not whole.
func TestDescribe(t *testing.T) {
	s, o := newTestStore(t, 32<<20, nil)
	descs := [][]byte{nil, []byte("x"), bytes.Repeat([]byte{7}, layout.DescMax)}
	for i, d := range descs {
		p := fput(fkey(i), payload(i, 2))
		p.Desc = d
		must(t, s.Put(bg, p))
		must(t, s.Put(bg, p)) // again
		freePut(p)
	}
	look := func() {
		t.Helper()
		for i, d := range descs {
			got, err := s.Describe(bg, fkey(i), []byte("before "))
			if err != nil || string(got) != "before "+string(d) {
				t.Fatalf("%d: %q, %v", i, got, err)
			}
		}
	}
	look()
	p := fput(fkey(5), payload(5, 1))
	p.Desc = make([]byte, layout.DescMax+1)
	want(t, s.Put(bg, p), errs.Invalid)
	must(t, s.Close())
	must2(RebuildIndex(bg, o, nil))
	s = mustOpen(t, o)
	look()
	_, err := s.Describe(bg, fkey(6), nil)
	want(t, err, errs.Absent)
	o.Data.(*testDrive).flip(int64(s.startOf(fkey(1)))<<blockShift+headerDesc+2, 0)
	_, err = s.Describe(bg, fkey(1), nil)
	want(t, err, errs.Corrupt)
	must(t, del(s, 2))
	_, err = s.Describe(bg, fkey(2), nil)
	want(t, err, errs.Absent)
}

// A store that is opened for reading only reads, lists and checks, refuses the rest, and leaves not a byte
// changed on the drive or in the index.
func TestReadOnly(t *testing.T) {
	s, o := newTestStore(t, 16<<20, func(o *Options) { o.Quarantine = 1 })
	for i := range 9 {
		must(t, put(s, i, 1+i))
	}
	must(t, del(s, 3))
	must(t, s.Close())
	d := o.Data.(*testDrive)
	files := func() map[string]string {
		out := map[string]string{}
		names, err := o.FS.List(o.Dir)
		must(t, err)
		for _, name := range names {
			b, err := o.FS.(*vfs.MemFS).UnsafeGetFileDataBuffer(o.FS.PathJoin(o.Dir, name))
			must(t, err)
			out[name] = string(b)
		}
		return out
	}
	drive, index := d.bytes(0, int(d.Size())), files()
	ro := o
	ro.ReadOnly = true
	s = mustOpen(t, ro)
	must(t, get(s, 4, 5))
	must2(s.List(layout.FragKey{}, 0))
	_, err := s.Describe(bg, fkey(4), nil)
	must(t, err)
	check(t, s)
	_ = s.Stat()
	want(t, put(s, 20, 1), errs.Refused)
	want(t, del(s, 4), errs.Refused)
	want(t, s.Fence(1, 99), errs.Refused)
	must(t, s.Close())
	if !bytes.Equal(drive, d.bytes(0, int(d.Size()))) {
		t.Error("the drive changed")
	}
	for name, was := range index {
		if now, ok := files()[name]; !ok || now != was {
			t.Errorf("%s changed", name)
		}
	}
	if len(files()) != len(index) {
		t.Errorf("files %d, were %d", len(files()), len(index))
	}
	s = mustOpen(t, o)
	must(t, put(s, 20, 1))
}

// What Open refuses, it refuses with the remedy; rebuild-index is not it where the wrong drive is there.
func TestRefusalsNameTheRemedy(t *testing.T) {
	const remedy = "vstor asd rebuild-index 3"
	s, o := newTestStore(t, 16<<20, nil)
	must(t, put(s, 1, 5))
	must(t, s.Close())
	refused := func(o Options, k errs.Kind, words string, rebuild bool) {
		t.Helper()
		_, err := Open(o)
		want(t, err, k)
		if !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), remedy) != rebuild {
			t.Errorf("%v", err)
		}
	}
	oldDrive, oldFS := o.Data.(*testDrive).killed(), copyFS(t, o.FS, "asd-3")
	s = mustOpen(t, o)
	must(t, put(s, 2, 5))
	must(t, s.Close())

	c := o
	c.Data = oldDrive
	refused(c, errs.Corrupt, "the drive is an old copy", true)
	c = o
	c.FS = oldFS
	refused(c, errs.Corrupt, "the index is an old copy", true)
	c = o
	c.FS = vfs.NewMem()
	refused(c, errs.Absent, "no index", true)
	if _, err := c.FS.Stat(c.Dir); err == nil {
		t.Error("a folder was made for an index that is lost")
	}
	c = o
	c.ID = 4
	refused(c, errs.Refused, "drive of ASD 3 where that of ASD 4 belongs", false)
	c = o
	c.UUID[0]++
	refused(c, errs.Refused, "another drive", false)
	c = o
	c.Deployment[0]++
	refused(c, errs.Refused, "of deployment", false)
	short := newDrive(12 << 20)
	short.set(0, o.Data.(*testDrive).bytes(0, 12<<20))
	c = o
	c.Data = short
	refused(c, errs.Corrupt, "truncate -s 16777216", true)

	// The index of another drive.
	other := o
	other.FS, other.Data, other.UUID = vfs.NewMem(), newDrive(16<<20), [16]byte{8}
	must(t, Format(other))
	c = o
	c.FS = other.FS
	refused(c, errs.Corrupt, "index of another", true)

	// A truncated drive that was made long again, as the sentence says.
	long := newDrive(16 << 20)
	long.set(0, o.Data.(*testDrive).bytes(0, 2<<20+8*blockSize))
	c = o
	c.Data = long
	rep := must2(RebuildIndex(bg, c, nil))
	if rep.Fragments != 1 || rep.DamagedCount != 1 {
		t.Fatalf("%+v", rep)
	}
	s = mustOpen(t, c)
	check(t, s)
	must(t, get(s, 1, 5))
	want(t, get(s, 2, 5), errs.Absent)
}
