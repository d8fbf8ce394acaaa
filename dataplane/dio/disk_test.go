package dio

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vstor/dataplane/errs"
)

func wantKind(t *testing.T, err error, k errs.Kind, says string) {
	t.Helper()
	if errs.Of(err) != k || !strings.Contains(err.Error(), says) {
		t.Fatalf("got %v (%v), want %v and %q", err, errs.Of(err), k, says)
	}
}

func TestCreateAndOpen(t *testing.T) {
	path := filepath.Join(tempDir(t), "drive")
	for _, through := range []bool{false, true} {
		d, err := Create(path, 3<<20+BlockSize, Options{WriteThrough: through})
		if errs.Of(err) == errs.Unsupported {
			t.Skip("SKIPPED: ", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil || st.Blocks*512 < 3<<20 {
			t.Fatalf("space is not reserved: %d blocks, %v", st.Blocks, err)
		}
		_, err = Open(path, Options{})
		wantKind(t, err, errs.Busy, "in use")
		_, err = Open(path, Options{ReadOnly: true})
		wantKind(t, err, errs.Busy, "in use")
		_, err = Create(path, 1<<20, Options{})
		wantKind(t, err, errs.Exists, "exists already")
		mustWrite(t, d, fill(t, 7, 1), BlockSize)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		r, err := Open(path, Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		r2, err := Open(path, Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		if r.Size() != 3<<20+BlockSize || readAll(t, r2)[BlockSize] != 7 {
			t.Fatal("the file is not what it was")
		}
		if err := r.WriteAt(fill(t, 7, 1), 0); errs.Of(err) != errs.IO {
			t.Fatalf("write to a file open for reading: %v", err)
		}
		r.Close()
		r2.Close()
		os.Remove(path)
	}
}

func TestRefusals(t *testing.T) {
	dir := tempDir(t)
	if d, err := Create(filepath.Join(dir, "probe"), BlockSize, Options{}); err == nil {
		d.Close()
	} else {
		t.Skip("SKIPPED: ", err)
	}
	_, err := Open(filepath.Join(dir, "none"), Options{})
	wantKind(t, err, errs.Absent, "there is no")
	_, err = Open(dir, Options{})
	wantKind(t, err, errs.Invalid, "neither a file nor a block device")
	_, err = Open("/dev/null", Options{})
	wantKind(t, err, errs.Invalid, "neither a file nor a block device")
	odd := filepath.Join(dir, "odd")
	if err := os.WriteFile(odd, make([]byte, 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Open(odd, Options{})
	wantKind(t, err, errs.Invalid, "5000 bytes")

	_, err = Create(filepath.Join(dir, "x"), 5000, Options{})
	wantKind(t, err, errs.Invalid, "multiple of 4096")
	_, err = Create(filepath.Join(dir, "no/x"), BlockSize, Options{})
	wantKind(t, err, errs.Absent, "there is no")
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	_, err = Create(filepath.Join(dir, "x"), (int64(st.Bavail)+1<<20)*st.Bsize&^(BlockSize-1), Options{})
	if errs.Of(err) != errs.Full && errs.Of(err) != errs.Invalid {
		t.Fatalf("more than there is: %v", err)
	}
	_, err = Create(filepath.Join(dir, "x"), math.MaxInt64&^(BlockSize-1), Options{})
	if errs.Of(err) != errs.Full && errs.Of(err) != errs.Invalid {
		t.Fatalf("more than a file can hold: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "x")); !os.IsNotExist(err) {
		t.Fatal("a refused Create left a file behind")
	}
}

func TestNoDirectIOInMemory(t *testing.T) {
	var st unix.Statfs_t
	if unix.Statfs("/dev/shm", &st) != nil || uint32(st.Type) != unix.TMPFS_MAGIC {
		t.Skip("SKIPPED: no tmpfs at /dev/shm")
	}
	path := filepath.Join("/dev/shm", filepath.Base(t.TempDir())+"-vstor")
	_, err := Create(path, BlockSize, Options{})
	wantKind(t, err, errs.Unsupported, "is on tmpfs, which has no direct IO; put it on ext4 or xfs")
	if err := os.WriteFile(path, make([]byte, BlockSize), 0o600); err != nil {
		t.Skip("SKIPPED: ", err)
	}
	defer os.Remove(path)
	_, err = Open(path, Options{})
	wantKind(t, err, errs.Unsupported, "is on tmpfs")
}

func TestWriteThroughCache(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		t.Fatal(err)
	}
	sys := filepath.Join(dir, "sys")
	link := filepath.Join(sys, "dev/block", devName(st.Dev))
	disk := filepath.Join(sys, "devices/disk0")
	for _, d := range []string{filepath.Dir(link), filepath.Join(disk, "queue"), filepath.Join(disk, "part1")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if writeThrough(sys, file) {
		t.Error("a device nobody knows is said to write through")
	}
	for _, target := range []string{disk, filepath.Join(disk, "part1")} {
		os.Remove(link)
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
		for text, want := range map[string]bool{"write through\n": true, "write back\n": false, "": false} {
			if err := os.WriteFile(filepath.Join(disk, "queue/write_cache"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if writeThrough(sys, file) != want {
				t.Errorf("%q on %s: not %v", text, filepath.Base(target), want)
			}
		}
	}
	if writeThrough(sys, filepath.Join(dir, "none")) {
		t.Error("a file that is not there is said to write through")
	}
}
