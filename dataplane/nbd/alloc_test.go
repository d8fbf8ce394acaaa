package nbd_test

import (
	"runtime"
	"syscall"
	"testing"

	"vstor/dataplane/nbd"
)

// TestNoAllocation: a request costs no allocation once the connection is warm, for reads, writes of
// both kinds and everything else, over a real socket and a real loop.
func TestNoAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("SKIPPED under the race detector, which allocates itself")
	}
	r := newRig(t, rigOptions{size: 32 << 20, pool: 128 << 20})
	c := r.dial()
	defer c.Close()
	raw, err := c.Conn.(syscall.Conn).SyscallConn()
	must(t, err)
	for _, tc := range []struct {
		name string
		req  nbd.Request
		reps int
	}{
		{"read 4k", nbd.Request{Type: nbd.CmdRead, Length: 4096}, 300},
		{"write 4k", nbd.Request{Type: nbd.CmdWrite, Length: 4096}, 300},
		{"read unaligned", nbd.Request{Type: nbd.CmdRead, Offset: 777, Length: 9999}, 100},
		{"write unaligned", nbd.Request{Type: nbd.CmdWrite, Offset: 777, Length: 9999}, 100},
		{"read 1m", nbd.Request{Type: nbd.CmdRead, Length: 1 << 20}, 20},
		{"write 1m", nbd.Request{Type: nbd.CmdWrite, Length: 1 << 20}, 20},
		{"write 4m", nbd.Request{Type: nbd.CmdWrite, Length: 4 << 20}, 20},
		{"flush", nbd.Request{Type: nbd.CmdFlush}, 300},
		{"trim", nbd.Request{Type: nbd.CmdTrim, Offset: 8 << 20, Length: 8192}, 300},
		{"beyond the end", nbd.Request{Type: nbd.CmdRead, Offset: 1 << 40, Length: 4096}, 300},
	} {
		// 32 requests in one go, then all their replies: the shape of a deep queue. Written by bare
		// system calls so that the client allocates nothing either.
		const depth = 32
		var out []byte
		for range depth {
			out = append(out, c.Header(&tc.req)...)
			if tc.req.Type == nbd.CmdWrite {
				out = append(out, make([]byte, tc.req.Length)...)
			}
		}
		want := depth * nbd.ReplySize
		if tc.req.Type == nbd.CmdRead && tc.req.Offset < 1<<30 {
			want += depth * int(tc.req.Length)
		}
		in := make([]byte, 1<<20)
		left := out
		got := 0
		step := func(fd uintptr) {
			for len(left) > 0 || got < want {
				if len(left) > 0 {
					if n, err := syscall.Write(int(fd), left[:min(len(left), 1<<20)]); n > 0 {
						left = left[n:]
						continue
					} else if err != syscall.EAGAIN {
						t.Errorf("write: %v", err)
						return
					}
				}
				if n, err := syscall.Read(int(fd), in); n > 0 {
					got += n
				} else if err != syscall.EAGAIN {
					t.Errorf("read: %v", err)
					return
				}
				runtime.Gosched()
			}
		}
		round := func() {
			left, got = out, 0
			raw.Control(step)
		}
		for range 10 {
			round()
		}
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for range tc.reps {
			round()
		}
		runtime.ReadMemStats(&after)
		n := float64(after.Mallocs-before.Mallocs) / float64(tc.reps*depth)
		// The runtime allocates a little on its own, now and then.
		if n > 0.02 {
			t.Errorf("%s: %.3f allocations per request", tc.name, n)
		}
	}
}
