package dio

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"vstor/dataplane/errs"
)

// What is shared reads the drive, cannot write to it, does not hold its lock, and is what it was, whatever the path
// names by now.
func TestShare(t *testing.T) {
	path := filepath.Join(tempDir(t), "drive")
	d, err := Create(path, 1<<20, Options{})
	if errs.Of(err) == errs.Unsupported {
		t.Skip("SKIPPED: ", err)
	}
	must(t, err)
	mustWrite(t, d, fill(t, 7, 1), BlockSize)
	must(t, os.Rename(path, path+".moved"))
	fd, s, err := d.Share()
	must(t, err)
	got, err := Adopt(fd, "shared", s)
	must(t, err)
	if got.Size() != 1<<20 || readAll(t, got)[BlockSize] != 7 {
		t.Fatal("it is another file")
	}
	if err := got.WriteAt(fill(t, 8, 1), 0); errs.Of(err) != errs.IO {
		t.Fatalf("write to what was shared for reading: %v", err)
	}
	if _, err := unix.FcntlInt(uintptr(got.Fd()), unix.F_SETFL, 0); err != nil {
		t.Fatal(err)
	}
	flags, err := unix.FcntlInt(uintptr(d.Fd()), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_DIRECT == 0 {
		t.Fatalf("whoever holds what was shared changes the owner's flags: %#x, %v", flags, err)
	}
	must(t, d.Close())
	again, err := Open(path+".moved", Options{})
	must(t, err)
	must(t, again.Close())
	must(t, got.Close())
}

// Descriptors that are not what was announced are refused, and closed.
func TestAdoptRefuses(t *testing.T) {
	dir := tempDir(t)
	d, err := Create(filepath.Join(dir, "drive"), 1<<20, Options{})
	if errs.Of(err) == errs.Unsupported {
		t.Skip("SKIPPED: ", err)
	}
	must(t, err)
	defer d.Close()
	must(t, os.WriteFile(filepath.Join(dir, "other"), make([]byte, 1<<20), 0o600))
	fd, want, err := d.Share()
	must(t, err)
	unix.Close(fd)
	open := func(path string, flags int) int {
		fd, err := unix.Open(filepath.Join(dir, path), flags|unix.O_CLOEXEC, 0)
		must(t, err)
		return fd
	}
	var pipe [2]int
	must(t, unix.Pipe2(pipe[:], unix.O_CLOEXEC))
	defer unix.Close(pipe[1])
	longer := want
	longer.Size *= 2
	for _, c := range []struct {
		name, says string
		fd         int
		want       Shared
	}{
		{"a pipe", "neither a file", pipe[0], want},
		{"a folder", "neither a file", open(".", unix.O_RDONLY|unix.O_DIRECTORY), want},
		{"writable", "written to", open("drive", unix.O_RDWR|unix.O_DIRECT), want},
		{"write only", "written to", open("drive", unix.O_WRONLY|unix.O_DIRECT), want},
		{"buffered", "page cache", open("drive", unix.O_RDONLY), want},
		{"another file", "announced was", open("other", unix.O_RDONLY|unix.O_DIRECT), want},
		{"another size", "announced were", open("drive", unix.O_RDONLY|unix.O_DIRECT), longer},
	} {
		_, err := Adopt(c.fd, c.name, c.want)
		wantKind(t, err, errs.Invalid, c.says)
		if _, err := unix.FcntlInt(uintptr(c.fd), unix.F_GETFD, 0); err != unix.EBADF {
			t.Errorf("%s is still open: %v", c.name, err)
		}
	}
	if _, err := Adopt(-1, "none", want); errs.Of(err) != errs.Invalid {
		t.Error(err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
