package client

import (
	"testing"
	"time"

	"vstor/dataplane/dio"
)

// A large Put waits for its place among those that write the same drive.
func TestPutWaitsForItsDrive(t *testing.T) {
	away := dio.AwayTo(t.TempDir())
	if away == nil {
		t.Skip("SKIPPED: the folder for tests is on no single drive")
	}
	a := newFake(t, plain).client(func(o *Options) { o.Away = away })
	start := time.Now()
	for range 2 { // these hang: each has its place for 50 ms
		defer away.Begin(bg, 1<<20)()
	}
	must(t, a.Put(timed(t), fput(t, 1, 1<<20)))
	if d := time.Since(start); d < 50*time.Millisecond {
		t.Errorf("it was written after %v, beside two that are under way", d)
	}
}
