//go:build e2e

package e2e

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"vstor/bench/nbdc"
)

const (
	eio    = nbdc.Errno(5)
	enospc = nbdc.Errno(28)
)

// mounted is a small file system of its own.
func mounted(t *testing.T, size int64) string {
	t.Helper()
	base, err := os.MkdirTemp("/var/tmp", "vstor-full-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	image, dir := filepath.Join(base, "image"), filepath.Join(base, "m")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, size); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", "-m", "0", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("SKIPPED: no file system to fill: %s: %v: %s", args[0], err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir
}

// filler takes all that a file system has free.
func filler(t *testing.T, dir string) (path string) {
	t.Helper()
	path = filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for piece := make([]byte, 1<<20); len(piece) >= 512; {
		if _, err := f.Write(piece); errors.Is(err, syscall.ENOSPC) {
			piece = piece[:len(piece)/2]
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// The file system that holds metadata, map and indexes fills up while vStor runs: writes end with ENOSPC once
// the journal is full, reads and deletes go on, nothing crashes, and when space returns all goes on by itself.
func TestHostFull(t *testing.T) {
	t.Parallel()
	m := mounted(t, 800<<20)
	d := newDeployment(t, "--asd-size", "64M", "--journal", "64M", "--sco-size", "1M", "--stall-timeout", "6s")
	d.dir = filepath.Join(m, "d")
	d.start()
	d.vstor("vdisk", "create", "v", "--size", "192M")
	d.vstor("vdisk", "create", "w", "--size", "64M")
	d.vstor("vdisk", "create", "gone", "--size", "64M")
	c := dialed(t, d, "v")
	for i := range int64(16) {
		if err := c.Write(pattern(1, i), i<<20, 0); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 2 {
		path := filler(t, m)
		wrote := fillFrom(t, c, 32, 192)
		t.Logf("round %d: %d MiB were taken with the file system full; the status is %s: %s", round, wrote, d.status().State,
			strings.Join(d.status().Reasons, "; "))
		if s := d.status(); len(s.Reasons) == 0 {
			t.Error("the status gives no reason")
		}
		got := make([]byte, 1<<20)
		for i := range int64(16) {
			if err := c.Read(got, i<<20); err != nil || !bytes.Equal(got, pattern(1, i)) {
				t.Fatalf("MiB %d while the file system is full: %v, or wrong", i, err)
			}
		}
		if round == 0 {
			d.vstor("vdisk", "rm", "gone")
		} else {
			d.restartFull(t, path)
			c = dialed(t, d, "v")
		}
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		comesBack(t, c)
	}
	d.stop()
}

// restartFull stops the deployment, which a full file system must not hold up, and sees that it does not start
// before there is room.
func (d *deployment) restartFull(t *testing.T, fill string) {
	t.Helper()
	began := time.Now()
	d.stop()
	if took := time.Since(began); took > time.Minute {
		t.Errorf("stopping took %v with the file system full", took)
	}
	if says := d.startOr(); !strings.Contains(says, "free some space") {
		t.Errorf("a start without space: %q", says)
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	d.start()
}

func dialed(t *testing.T, d *deployment, name string) *nbdc.Conn {
	t.Helper()
	c, err := d.dial(name)()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// fillFrom writes MiB after MiB, round and round in [from, to), until one is refused for lack of space.
func fillFrom(t *testing.T, c *nbdc.Conn, from, to int64) (n int64) {
	t.Helper()
	for i := from; n < 2048; n++ {
		switch err := c.Write(pattern(byte(n), i), i<<20, 0); err {
		case nil:
		case enospc:
			return n
		default:
			t.Fatalf("write %d: %v; ENOSPC would be right", n, err)
		}
		if i++; i == to {
			i = from
		}
	}
	t.Fatal("the file system is full, and all writes are taken")
	return 0
}

// comesBack waits until writes are taken again, well beyond what the journal holds.
func comesBack(t *testing.T, c *nbdc.Conn) {
	t.Helper()
	end := time.Now().Add(90 * time.Second)
	for n := int64(0); n < 160; {
		switch err := c.Write(pattern(9, n), (32+n)<<20, 0); {
		case err == nil:
			n++
		case err != enospc && err != eio:
			t.Fatal(err)
		case time.Now().After(end):
			t.Fatalf("space is back for 90 s, and writes still end with %v; %d MiB were taken", err, n)
		default:
			time.Sleep(200 * time.Millisecond)
		}
	}
}
