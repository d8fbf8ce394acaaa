package lsm

import (
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// markerFS calls at before and after each move of the manifest's marker.
type markerFS struct {
	*vfs.MemFS
	at func()
}

func (m *markerFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if strings.HasPrefix(m.PathBase(name), markerPrefix) {
		m.at()
		defer m.at()
	}
	return m.MemFS.Create(name, c)
}

// A crash at any moment of a change of manifests finds at least as much of the manifest as the Guard says.
func TestMarkWhileManifestChanges(t *testing.T) {
	fs := &markerFS{MemFS: vfs.NewCrashableMem()}
	g := NewGuard(Options{FS: fs, Dir: "db", Name: "the test's database"})
	moves := 0
	fs.at = func() {
		want := g.Manifest()
		if want.Num > 0 {
			moves++
		}
		for _, percent := range []int{0, 100} {
			crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(1, 1))})
			got, err := NewGuard(Options{FS: crashed, Dir: "db", Name: "after a crash"}).Inspect()
			if err != nil || got.Before(want) {
				t.Errorf("with %d %% of what was not synced: %+v is left, %v; the mark says %+v", percent, got, err, want)
			}
		}
	}
	po := pebble.Options{MaxManifestFileSize: 1, FormatMajorVersion: pebble.FormatNewest}
	g.Attach(&po)
	db, err := pebble.Open("db", &po)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		before := g.Manifest()
		if err := db.Set([]byte{byte(i)}, make([]byte, 100), pebble.Sync); err != nil {
			t.Fatal(err)
		}
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
		if now := g.Manifest(); !before.Before(now) {
			t.Fatalf("a flush moves the mark from %+v to %+v", before, now)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	end, err := NewGuard(Options{FS: fs.MemFS, Dir: "db", Name: "at the end"}).Inspect()
	if err != nil || end != g.Manifest() || moves < 4 {
		t.Fatalf("the manifest ends at %+v, %v; the mark says %+v after %d moves", end, err, g.Manifest(), moves)
	}
}

// silentFS does not tell its free space while err is set.
type silentFS struct {
	fullFS
	err error
}

func (s *silentFS) GetDiskUsage(dir string) (vfs.DiskUsage, error) {
	if s.err != nil {
		return vfs.DiskUsage{}, s.err
	}
	return s.fullFS.GetDiskUsage(dir)
}

// One failed look at the free space does not end the watch.
func TestSpaceWatchGoesOn(t *testing.T) {
	fs := &silentFS{fullFS: fullFS{FS: vfs.NewMem()}, err: syscall.EIO}
	g := NewGuard(Options{FS: fs, Dir: "db", Name: "the test's database", Reserve: 1 << 20})
	if g.Room() != nil {
		t.Fatal("without an answer there is no room")
	}
	fs.err = nil
	if g.Room() == nil {
		t.Fatal("a full file system goes unnoticed after a failed look")
	}
	fs.err = vfs.ErrUnsupported
	if g.Room() != nil {
		t.Fatal("without an answer there is no room")
	}
}
