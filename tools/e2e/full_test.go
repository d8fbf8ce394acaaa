//go:build e2e

package e2e

import (
	"bytes"
	"testing"
	"time"

	"vstor/bench/nbdc"
)

// Drives that are full refuse writes with a clear error, still read, and give space back when blocks are
// trimmed, again and again.
func TestFullAndBack(t *testing.T) {
	d := newDeployment(t, "--asd-size", "128M", "--journal", "64M", "--sco-size", "4M", "--stall-timeout", "2s")
	d.start()
	d.vstor("vdisk", "create", "v", "--size", "4G")
	c, err := d.dial("v")()
	if err != nil {
		t.Fatal(err)
	}
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
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		s := d.status()
		if s.UsedBytes*4 < s.CapacityBytes {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d of %d MiB are still in use a minute after all was trimmed", s.UsedBytes>>20, s.CapacityBytes>>20)
		}
	}
}
