package lsm

import (
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/dataplane/errs"
)

// fullFS is a file system whose free space is set by the test, and that takes no write once it has none.
type fullFS struct {
	vfs.FS
	avail   atomic.Int64
	ballast int64 // what removing the ballast gives back
}

func (f *fullFS) Unwrap() vfs.FS { return f.FS }

func (f *fullFS) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: uint64(max(0, f.avail.Load())), TotalBytes: 1 << 30}, nil
}

func (f *fullFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	w, err := f.FS.Create(name, c)
	if err != nil {
		return nil, err
	}
	return &fullFile{w, f}, nil
}

func (f *fullFS) Remove(name string) error {
	if strings.HasSuffix(name, ballastName) {
		f.avail.Add(f.ballast)
	}
	return f.FS.Remove(name)
}

type fullFile struct {
	vfs.File
	f *fullFS
}

func (w *fullFile) Write(p []byte) (int, error) {
	if w.f.avail.Load() < int64(len(p)) {
		return 0, syscall.ENOSPC
	}
	w.f.avail.Add(-int64(len(p)))
	return w.File.Write(p)
}

func opened(t *testing.T, o Options) (*Guard, *pebble.DB, *fullFS) {
	t.Helper()
	fs := &fullFS{FS: vfs.NewMem(), ballast: 2 << 20}
	fs.avail.Store(100 << 20)
	o.FS, o.Dir, o.Name = fs, "db", "the test's database"
	g := NewGuard(o)
	var po pebble.Options
	g.Attach(&po)
	po.FormatMajorVersion = pebble.FormatNewest
	db, err := pebble.Open("db", &po)
	if err != nil {
		t.Fatal(err)
	}
	g.SetBallast()
	return g, db, fs
}

// A file system that fills up: the ballast keeps the log going; without it the log fails and nobody panics.
func TestLogWithoutSpace(t *testing.T) {
	g, db, fs := opened(t, Options{Reserve: 8 << 20, Ballast: 2 << 20})
	put := func(n int) error { return db.Set([]byte("key"), make([]byte, n), pebble.Sync) }
	if err := put(1000); err != nil || g.Room() != nil || g.LogErr() != nil {
		t.Fatal(err, g.Room(), g.LogErr())
	}
	fs.avail.Store(4 << 20)
	if err := g.Room(); errs.Of(err) != errs.Full || g.LastRoom() != nil {
		t.Fatalf("with less than the reserve: %v, %v", err, g.LastRoom())
	}
	fs.avail.Store(0)
	if err := put(1000); err != nil || g.LogErr() != nil {
		t.Fatalf("with the ballast: %v, %v", err, g.LogErr())
	}
	fs.avail.Store(0)
	if err := g.LastRoom(); errs.Of(err) != errs.Full {
		t.Fatalf("without it: %v", err)
	}
	if err := put(1000); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(g.LogErr(), syscall.ENOSPC) {
		t.Fatalf("the log failed and nobody knows: %v", g.LogErr())
	}
	if v, c, err := db.Get([]byte("key")); err != nil || len(v) != 1000 {
		t.Fatalf("reads: %v", err)
	} else {
		c.Close()
	}
	fs.avail.Store(100 << 20)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// The ballast comes back with the space.
func TestBallastReturns(t *testing.T) {
	g, db, fs := opened(t, Options{Reserve: 8 << 20, Ballast: 2 << 20})
	defer db.Close()
	fs.avail.Store(0)
	if err := db.Set([]byte("key"), nil, pebble.Sync); err != nil || g.LogErr() != nil {
		t.Fatal(err, g.LogErr())
	}
	if _, err := fs.Stat(g.ballast.path); err == nil {
		t.Fatal("the ballast is there still")
	}
	fs.avail.Store(100 << 20)
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if g.Room() != nil {
			t.Fatal("no room")
		}
		if _, err := fs.Stat(g.ballast.path); err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the ballast does not come back")
		}
	}
}

// What Pebble cannot survive is told in one sentence, not with a stack of its own.
func TestFatal(t *testing.T) {
	told := make(chan error, 1)
	g := NewGuard(Options{FS: vfs.NewMem(), Dir: "db", Name: "the test's database", Fatal: func(err error) {
		told <- err
		panic("not returned from")
	}})
	func() {
		defer func() { _ = recover() }()
		logger{g}.Fatalf("MANIFEST sync failed: %v\n(1) attached stack trace\n  -- stack", syscall.EIO)
	}()
	err := <-told
	if says := err.Error(); errs.Of(err) != errs.IO || strings.Contains(says, "\n") ||
		!strings.Contains(says, "input/output error") {
		t.Fatal(err)
	}
}

// Damaged tables are found when they are read, counted, and end compaction, not the process.
func TestDamagedTable(t *testing.T) {
	g, db, _ := opened(t, Options{})
	value := make([]byte, 4000)
	for i := range 100 {
		value[0] = byte(i)
		if err := db.Set([]byte{'k', byte(i)}, value, pebble.NoSync); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := g.FS.List("db")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".sst") {
			b, err := readAll(g.FS, "db/"+name)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/2] ^= 8
			f, err := g.FS.Create("db/"+name, vfs.WriteCategoryUnspecified)
			if err != nil {
				t.Fatal(err)
			}
			f.Write(b)
			f.Close()
		}
	}
	g = NewGuard(Options{FS: g.FS, Dir: "db", Name: "the test's database", Fatal: func(err error) { t.Error(err) }})
	var po pebble.Options
	g.Attach(&po)
	po.FormatMajorVersion = pebble.FormatNewest
	if db, err = pebble.Open("db", &po); err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	bad := 0
	for i := range 100 {
		_, c, err := db.Get([]byte{'k', byte(i)})
		if err == nil {
			c.Close()
			continue
		}
		if e := ReadError(err, "key %d", i); errs.Of(e) != errs.Corrupt {
			t.Fatal(e)
		}
		bad++
	}
	if bad == 0 || bad > 50 || g.Corrupt() == 0 || errs.Of(g.Damage()) != errs.Corrupt ||
		!strings.Contains(g.Damage().Error(), ".sst") {
		t.Fatalf("%d keys are unreadable, %d pieces found, %v", bad, g.Corrupt(), g.Damage())
	}
	if err := db.Set([]byte("key"), nil, pebble.Sync); err != nil {
		t.Fatal(err)
	}
}

func FuzzScanLog(f *testing.F) {
	f.Add([]byte("MANIFEST"), int64(-1))
	f.Add(make([]byte, 100), int64(7))
	f.Fuzz(func(t *testing.T, b []byte, log int64) {
		end, _ := scanLog(b, max(-1, log))
		if end < 0 || end > len(b) {
			t.Fatalf("ends at %d of %d", end, len(b))
		}
	})
}
