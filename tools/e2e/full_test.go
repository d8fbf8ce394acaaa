//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"vstor/bench/nbdc"
)

// soonFull is a deployment on small drives, with a vDisk "v" that they cannot hold.
func soonFull(t *testing.T) (*deployment, *nbdc.Conn) {
	t.Helper()
	d := newDeployment(t, "--asd-size", "128M", "--journal", "64M", "--sco-size", "4M", "--stall-timeout", "6s")
	d.start()
	d.vstor("vdisk", "create", "v", "--size", "4G")
	c, err := d.dial("v")()
	if err != nil {
		t.Fatal(err)
	}
	return d, c
}

// Drives that are full refuse writes with a clear error, still read, and give space back when blocks are
// trimmed, again and again.
func TestFullAndBack(t *testing.T) {
	t.Parallel()
	d, c := soonFull(t)
	defer c.Close()
	for round := range 2 {
		n := fillUp(t, c, byte(round+1))
		t.Logf("round %d: full after %d MiB", round, n)
		if n < 200 {
			t.Fatalf("round %d: only %d MiB fitted: space did not come back", round, n)
		}
		got := make([]byte, 1<<20)
		for _, i := range []int64{0, n / 2, n - 1} {
			if err := c.Read(got, i<<20); err != nil || !bytes.Equal(got, pattern(byte(round+1), i)) {
				t.Fatalf("round %d: MiB %d while full: %v, or wrong", round, i, err)
			}
		}
		for i := int64(0); i < 2000; i++ { // what large writes have left of the journal
			if err := c.Write(pattern(9, i)[:4096], i<<12, 0); err == nbdc.Errno(28) {
				break
			} else if err != nil {
				t.Fatalf("round %d: %v; ENOSPC would be right", round, err)
			}
		}
		if err := c.Trim(0, 1<<30, 0); err != nil {
			t.Fatalf("round %d: trim while full: %v", round, err)
		}
		waitForRoom(t, d)
	}
	d.kill()
	d.start()
	c2, err := d.dial("v")()
	if err != nil {
		t.Fatal(err)
	}
	defer c2.Close()
	got := make([]byte, 1<<20)
	if err := c2.Read(got, 5<<20); err != nil || !bytes.Equal(got, make([]byte, 1<<20)) {
		t.Errorf("trimmed blocks after a restart: %v, or not zeros", err)
	}
}

// Fill to ENOSPC, delete, fill again: nothing crashes or leaks, and space comes back. What is deleted are
// blocks, or a vDisk as a whole, in turn. VSTOR_FILLS is how often.
func TestFillDeleteFill(t *testing.T) {
	t.Parallel()
	d := newDeployment(t, "--asd-size", "96M", "--journal", "64M", "--sco-size", "4M", "--stall-timeout", "4s")
	d.start()
	var first footprint
	for round := range number("VSTOR_FILLS", 7) {
		d.vstor("vdisk", "create", "v", "--size", "4G")
		c, err := d.dial("v")()
		if err != nil {
			t.Fatal(err)
		}
		n := fillUp(t, c, byte(round+1))
		if n < 150 {
			t.Fatalf("round %d: only %d MiB fitted: space did not come back", round, n)
		}
		if round%2 == 0 {
			if err := c.Trim(0, 1<<30, 0); err != nil {
				t.Fatalf("round %d: trim while full: %v", round, err)
			}
			waitForRoom(t, d)
		}
		c.Close()
		d.removeSoon("v")
		waitForRoom(t, d)
		now := d.footprint()
		t.Logf("round %d: full after %d MiB, then %+v", round, n, now)
		switch {
		case round == 3: // the first rounds fill pools, memtables and caches
			first = now
		case round > 3 && (now.resident > first.resident+64<<20 || now.goroutines > first.goroutines+20 ||
			now.descriptors > first.descriptors+20):
			t.Errorf("round %d leaves %+v behind; round 3 left %+v", round, now, first)
		}
	}
	d.stop()
}

// footprint is what a process holds.
type footprint struct {
	resident                int64
	goroutines, descriptors int
}

func (d *deployment) footprint() (f footprint) {
	d.t.Helper()
	for _, l := range strings.Split(d.get("/metrics"), "\n") {
		var x float64
		name, value, _ := strings.Cut(l, " ")
		fmt.Sscan(value, &x)
		switch name {
		case "process_resident_memory_bytes":
			f.resident = int64(x)
		case "go_goroutines":
			f.goroutines = int(x)
		case "process_open_fds":
			f.descriptors = int(x)
		}
	}
	if f.resident == 0 || f.goroutines == 0 || f.descriptors == 0 {
		d.t.Fatalf("/metrics lacks some of %+v", f)
	}
	return f
}

// removeSoon removes a vDisk once its last connection is gone.
func (d *deployment) removeSoon(name string) {
	d.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		code, _, says := d.try("vdisk", "rm", name)
		if code == 0 {
			return
		}
		if !strings.Contains(says, "in use") || time.Now().After(end) {
			d.t.Fatalf("vdisk rm: %s", says)
		}
	}
}

func pattern(round byte, mib int64) []byte {
	b := make([]byte, 1<<20)
	for i := range b {
		b[i] = round ^ byte(mib) ^ byte(i*7)
	}
	return b
}

// fillUp writes MiB after MiB until one is refused for lack of space, and says how many were not.
func fillUp(t *testing.T, c *nbdc.Conn, round byte) int64 {
	t.Helper()
	for i := range int64(1024) {
		switch err := c.Write(pattern(round, i), i<<20, 0); err {
		case nil:
		case nbdc.Errno(28):
			return i
		default:
			t.Fatalf("MiB %d: %v; ENOSPC would be right", i, err)
		}
	}
	t.Fatal("the drives never fill")
	return 0
}

// waitForRoom waits until most of the drives is free again.
func waitForRoom(t *testing.T, d *deployment) {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		s := d.status()
		if s.UsedBytes*4 < s.CapacityBytes {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d of %d MiB are still in use three minutes after all was trimmed", s.UsedBytes>>20, s.CapacityBytes>>20)
		}
	}
}

// What frees the drives gets through though somebody else's writes have filled them: the trims of one vDisk are not
// held up by SCOs of another that find no room.
func TestTrimBesideFullDrives(t *testing.T) {
	t.Parallel()
	d := newDeployment(t, "--asd-size", "128M", "--journal", "64M", "--sco-size", "4M", "--stall-timeout", "6s",
		"--loops", "2")
	d.start()
	var conns []*nbdc.Conn
	for _, name := range []string{"db", "fill"} {
		d.vstor("vdisk", "create", name, "--size", "4G")
		c, err := d.dial(name)()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	db, fill := conns[0], conns[1]
	for i := range int64(150) {
		if err := db.Write(pattern(1, i), i<<20, 0); err != nil {
			t.Fatalf("MiB %d: %v", i, err)
		}
	}
	t.Logf("full after %d MiB", fillUp(t, fill, 2))
	for off := range int64(5) {
		if err := db.Trim(off*30<<20, 30<<20, 0); err != nil {
			t.Fatalf("trim %d while full: %v", off, err)
		}
	}
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Second) {
		err := fill.Write(pattern(3, 0), 0, 0)
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("no room two minutes after 150 MiB were trimmed: %v", err)
		}
	}
}

// Trims of what was written long ago give room at once, though newer writes of the same vDisk wait for it, and take
// away nothing that was written after them, also across a crash.
func TestTrimOldWhileFull(t *testing.T) {
	t.Parallel()
	d, c := soonFull(t)
	defer c.Close()
	n := fillUp(t, c, 1)
	used := d.status().UsedBytes
	t.Logf("full after %d MiB: %d MiB in use", n, used>>20)
	old := n / 2
	if err := c.Trim(0, uint32(old<<20), 0); err != nil {
		t.Fatalf("trim while full: %v", err)
	}
	if err := c.Write(pattern(2, 3)[:4096], 3<<20, 0); err != nil && err != nbdc.Errno(28) {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); d.status().UsedBytes > used-old<<20; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d MiB of %d are still in use a minute after %d MiB were trimmed", d.status().UsedBytes>>20,
				used>>20, old)
		}
	}
	for i := range old / 2 { // into the room that was given back
		if err := c.Write(pattern(3, i), (n+i)<<20, 0); err != nil {
			t.Fatalf("MiB %d of the new ones: %v", i, err)
		}
	}
	if err := c.Write(pattern(2, 3), 3<<20, 0); err != nil {
		t.Fatal(err)
	}
	d.kill()
	d.start()
	c, err := d.dial("v")()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got := make([]byte, 1<<20)
	for i := range n + old/2 {
		want := pattern(1, i)
		switch {
		case i == 3:
			want = pattern(2, 3)
		case i < old:
			clear(want)
		case i >= n:
			want = pattern(3, i-n)
		}
		if err := c.Read(got, i<<20); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("MiB %d after a restart: %v, or wrong", i, err)
		}
	}
}
