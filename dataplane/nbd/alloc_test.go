package nbd_test

import (
	"net"
	"runtime"
	"syscall"
	"testing"

	"vstor/dataplane/nbd"
	"vstor/dataplane/nbd/nbdtest"
)

// counted counts what it reads.
type counted struct {
	net.Conn
	n int
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.n += n
	return n, err
}

// TestNoAllocation: a request costs no allocation once the connection is warm, for reads, writes of
// both kinds and everything else, in every mode, over a real socket and a real loop. Reads and writes of
// whole blocks copy nothing but the payload that came with other bytes.
func TestNoAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("SKIPPED under the race detector, which allocates itself")
	}
	r := newRig(t, rigOptions{size: 32 << 20, pool: 128 << 20})
	fillDisk(t, r)
	type request struct {
		name string
		req  nbd.Request
		reps int
	}
	common := []request{
		{"read 4k", nbd.Request{Type: nbd.CmdRead, Length: 4096}, 150},
		{"write 4k", nbd.Request{Type: nbd.CmdWrite, Length: 4096}, 150},
		{"read unaligned", nbd.Request{Type: nbd.CmdRead, Offset: 777, Length: 9999}, 60},
		{"write unaligned", nbd.Request{Type: nbd.CmdWrite, Offset: 777, Length: 9999}, 60},
		{"read 1m", nbd.Request{Type: nbd.CmdRead, Length: 1 << 20}, 5},
		{"write 1m", nbd.Request{Type: nbd.CmdWrite, Length: 1 << 20}, 5},
		{"write 4m", nbd.Request{Type: nbd.CmdWrite, Length: 4 << 20}, 3},
		{"flush", nbd.Request{Type: nbd.CmdFlush}, 150},
		{"trim", nbd.Request{Type: nbd.CmdTrim, Offset: 8 << 20, Length: 8192}, 150},
		{"cache", nbd.Request{Type: nbd.CmdCache, Offset: 8 << 20, Length: 8192}, 150},
		{"beyond the end", nbd.Request{Type: nbd.CmdRead, Offset: 1 << 40, Length: 4096}, 150},
	}
	chunked := []request{
		{"read without fragments", nbd.Request{Type: nbd.CmdRead, Flags: nbd.FlagDF, Length: 4096}, 150},
		{"read a hole", nbd.Request{Type: nbd.CmdRead, Offset: 8 << 20, Length: 8192}, 150},
		{"status", nbd.Request{Type: nbd.CmdBlockStatus, Length: 32 << 20}, 20},
		{"status of one", nbd.Request{Type: nbd.CmdBlockStatus, Flags: nbd.FlagReqOne, Length: 4096}, 150},
	}
	for m := nbd.Simple; m <= nbd.Extended; m++ {
		requests := common
		if m != nbd.Simple {
			requests = append(common[:len(common):len(common)], chunked...)
		}
		c := r.dialMode(m)
		for _, tc := range requests {
			if m != nbd.Simple && tc.req.Type == nbd.CmdWrite && tc.req.Length > 1<<20 {
				continue // payload is received alike
			}
			if m == nbd.Extended && tc.req.Type == nbd.CmdWrite {
				tc.req.Flags |= nbd.FlagPayload
			}
			copied := r.srv.Stats().CopiedBytes
			n, of := measureAllocs(t, r.dialMode(m), tc.req, tc.reps)
			copied = r.srv.Stats().CopiedBytes - copied
			// The runtime allocates a little on its own, now and then.
			if n > 5+of/50 {
				t.Errorf("%s, %s: %d allocations in %d requests", modeNames[m], tc.name, n, of)
			}
			if tc.req.Type != nbd.CmdWrite && copied > 4<<20 { // requests that wait for room
				t.Errorf("%s, %s: %d bytes copied", modeNames[m], tc.name, copied)
			}
		}
		c.Close()
	}
}

// measureAllocs counts the allocations of reps rounds.
func measureAllocs(t *testing.T, c *nbdtest.Client, req nbd.Request, reps int) (allocs, requests int) {
	defer c.Close()
	p := newPipeline(t, c, req)
	for range min(10, reps) {
		p.round()
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range reps {
		p.round()
	}
	runtime.ReadMemStats(&after)
	return int(after.Mallocs - before.Mallocs), reps * depth
}

// pipeline sends depth requests in one go, then takes all their replies: the shape of a deep queue. It
// does so by bare system calls, so that the client allocates nothing.
type pipeline struct {
	t         testing.TB
	raw       syscall.RawConn
	out, left []byte
	in        []byte
	got, want int
	run       func(uintptr)
}

const depth = 32

func newPipeline(t testing.TB, c *nbdtest.Client, req nbd.Request) *pipeline {
	t.Helper()
	raw, err := c.Conn.(syscall.Conn).SyscallConn()
	must(t, err)
	count := &counted{Conn: c.Conn}
	c.Conn = count
	var payload []byte
	if req.Type == nbd.CmdWrite {
		payload = make([]byte, req.Length)
	}
	c.DoAnswer(req, payload) // which may be an error
	c.Conn = count.Conn
	p := &pipeline{t: t, raw: raw, in: make([]byte, 1<<20), want: depth * count.n}
	for range depth {
		req.Cookie = 0
		p.out = append(append(p.out, c.Header(&req)...), payload...)
	}
	p.run = p.step
	return p
}

func (p *pipeline) round() {
	p.left, p.got = p.out, 0
	p.raw.Control(p.run)
}

func (p *pipeline) step(fd uintptr) {
	for len(p.left) > 0 || p.got < p.want {
		if len(p.left) > 0 {
			if n, err := syscall.Write(int(fd), p.left[:min(len(p.left), 1<<20)]); n > 0 {
				p.left = p.left[n:]
				continue
			} else if err != syscall.EAGAIN {
				p.t.Errorf("write: %v", err)
				return
			}
		}
		if n, err := syscall.Read(int(fd), p.in); n > 0 {
			p.got += n
		} else if err != syscall.EAGAIN {
			p.t.Errorf("read: %v", err)
			return
		}
		runtime.Gosched()
	}
}
