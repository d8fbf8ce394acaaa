package nbd_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"vstor/dataplane/block"
	"vstor/dataplane/errs"
	"vstor/dataplane/nbd"
	"vstor/dataplane/nbd/nbdtest"
)

const (
	ctxAllocation = "base:allocation"
	ctxDepth      = "qemu:allocation-depth"
)

var modeNames = map[nbd.Mode]string{nbd.Simple: "simple", nbd.Structured: "structured", nbd.Extended: "extended"}

// dialMode connects in a mode, with every context where there are any.
func (r *rig) dialMode(m nbd.Mode) *nbdtest.Client {
	r.t.Helper()
	a := nbdtest.Ask{Export: "disk", Mode: m}
	if m != nbd.Simple {
		a.Contexts = []string{ctxAllocation, ctxDepth}
	}
	c, err := nbdtest.DialAsk("unix", r.sock, a)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Conn.Close() })
	return c
}

// eachMode runs a test in the modes that have chunks.
func eachMode(t *testing.T, f func(t *testing.T, m nbd.Mode)) {
	for _, m := range []nbd.Mode{nbd.Structured, nbd.Extended} {
		t.Run(modeNames[m], func(t *testing.T) { f(t, m) })
	}
}

func chunkNames(a *nbdtest.Answer) string {
	s := []string{}
	for _, c := range a.Chunks {
		s = append(s, c.String())
	}
	return strings.Join(s, " ")
}

// TestReadChunks: how data and zeros are cut into chunks, and that they add up to what was written.
func TestReadChunks(t *testing.T) {
	eachMode(t, func(t *testing.T, m nbd.Mode) {
		const size = 4 << 20
		r := newRig(t, rigOptions{size: size})
		c := r.dialMode(m)
		model := make([]byte, size)
		for _, at := range []int64{1 << 20, 1<<20 + 64<<10, 2 << 20, 2<<20 + 300<<10} { // 16 KiB of data each
			copy(model[at:], fill(make([]byte, 16<<10), uint64(at)))
			must(t, c.WriteAt(model[at:at+16<<10], at, 0))
		}
		for _, tc := range []struct {
			off, n int64
			flags  uint16
			chunks string
		}{
			{0, 4096, 0, "hole"},
			{1, 1, 0, "hole"},
			{0, 1 << 20, 0, "hole"},
			{0, 1 << 20, nbd.FlagDF, "hole"},
			{0, 4096, nbd.FlagFUA, "hole"},
			{1 << 20, 4096, 0, "data"},
			{1<<20 + 5, 4000, 0, "data"},
			{1 << 20, 64 << 10, 0, "data hole"},
			{1 << 20, 64 << 10, nbd.FlagDF, "data"},
			{1 << 20, 80 << 10, 0, "data hole data"},
			{1<<20 + 5, 80<<10 - 10, 0, "data hole data"},
			{1<<20 - 4096, 8192, 0, "data"}, // too few zeros for a chunk of their own
			{1 << 20, 20 << 10, 0, "data"},
			{0, size, 0, "hole data hole data hole data hole data hole"},
			{0, size, nbd.FlagDF, "data"},
		} {
			a, err := c.DoAnswer(nbd.Request{Type: nbd.CmdRead, Flags: tc.flags, Offset: uint64(tc.off), Length: uint64(tc.n)},
				nil)
			must(t, err)
			if got := chunkNames(a); got != tc.chunks {
				t.Errorf("%d at %d, flags %d: %s, want %s", tc.n, tc.off, tc.flags, got, tc.chunks)
			}
			if !bytes.Equal(a.Data, model[tc.off:tc.off+tc.n]) {
				t.Errorf("%d at %d: wrong data", tc.n, tc.off)
			}
		}
		for _, typ := range []nbd.Command{nbd.CmdRead, nbd.CmdWrite, nbd.CmdTrim, nbd.CmdCache, nbd.CmdWriteZeroes} {
			_, err := c.DoAnswer(nbd.Request{Type: typ, Flags: map[bool]uint16{true: nbd.FlagPayload}[m == nbd.Extended &&
				typ == nbd.CmdWrite], Offset: size}, nil)
			if err != nil {
				t.Errorf("%v of nothing: %v", typ, err)
			}
		}
		must(t, c.Flush())
	})
}

// TestErrorChunks: errors come with a sentence, and where the device failed with a place.
func TestErrorChunks(t *testing.T) {
	eachMode(t, func(t *testing.T, m nbd.Mode) {
		const size = 16 << 20
		r := newRig(t, rigOptions{size: size})
		bad := int64(5 << 20)
		r.loop.Call(func() {
			r.ram.Fail = func(q *block.Request) errs.Kind {
				if q.Off <= bad && bad < q.Off+int64(q.Len) {
					return errs.IO
				}
				return errs.OK
			}
			r.ram.SlowZero = true
		})
		c := r.dialMode(m)
		payload := uint16(0)
		if m == nbd.Extended {
			payload = nbd.FlagPayload
		}
		for _, tc := range []struct {
			req  nbd.Request
			data []byte
			want nbd.Errno
			bad  int64
		}{
			{nbd.Request{Type: nbd.CmdRead, Offset: uint64(bad), Length: 8192}, nil, nbd.EIO, bad},
			{nbd.Request{Type: nbd.CmdWrite, Flags: payload, Offset: 100, Length: 8 << 20}, make([]byte, 8<<20), nbd.EIO, bad},
			{nbd.Request{Type: nbd.CmdTrim, Offset: uint64(bad), Length: 8192}, nil, nbd.EIO, bad},
			{nbd.Request{Type: nbd.CmdCache, Offset: uint64(bad), Length: 8192}, nil, nbd.EIO, bad},
			{nbd.Request{Type: nbd.CmdWriteZeroes, Offset: uint64(bad), Length: 8192}, nil, nbd.EIO, bad},
			{nbd.Request{Type: nbd.CmdBlockStatus, Offset: uint64(bad), Length: 8192}, nil, nbd.EIO, bad},
			{nbd.Request{Type: nbd.CmdRead, Offset: size, Length: 1}, nil, nbd.EINVAL, -1},
			{nbd.Request{Type: nbd.CmdRead, Flags: nbd.FlagDF, Length: 33 << 20}, nil, nbd.EOVERFLOW, -1},
			{nbd.Request{Type: nbd.CmdRead, Flags: nbd.FlagNoHole, Length: 1}, nil, nbd.EINVAL, -1},
			{nbd.Request{Type: nbd.CmdWrite, Flags: payload, Offset: size, Length: 5000}, make([]byte, 5000), nbd.ENOSPC, -1},
			{nbd.Request{Type: nbd.CmdWriteZeroes, Flags: nbd.FlagFastZero, Length: 4096}, nil, nbd.ENOTSUP, 0},
			{nbd.Request{Type: nbd.CmdFlush, Length: 1}, nil, nbd.EINVAL, -1},
			{nbd.Request{Type: 77}, nil, nbd.EINVAL, -1},
			{nbd.Request{Type: nbd.CmdBlockStatus, Offset: 1}, nil, nbd.EINVAL, -1},
		} {
			a, err := c.DoAnswer(tc.req, tc.data)
			if nbdtest.ErrnoOf(err) != tc.want || a == nil || a.Bad != tc.bad || a.Chunks == nil || a.Sentence == "" {
				t.Errorf("%v: %v, %+v", tc.req, err, a)
			}
		}
		must(t, c.ReadAt(make([]byte, 4096), 0))
		must(t, c.Zero(0, 4096, 0))
	})
}

// TestPayloads: what an extended client may and may not send behind a header. Whatever it is, the stream
// stays in step.
func TestPayloads(t *testing.T) {
	r := newRig(t, rigOptions{size: 1 << 20})
	c := r.dialMode(nbd.Extended)
	control := func(n byte, ids ...byte) []byte {
		b := []byte{0, 0, 0, 0, 0, 0, n, 0}
		for _, id := range ids {
			b = append(b, 0, 0, 0, id)
		}
		return b
	}
	for _, tc := range []struct {
		typ      nbd.Command
		flags    uint16
		length   uint64
		data     []byte
		want     nbd.Errno
		contexts []uint32
	}{
		{typ: nbd.CmdRead, length: 100, data: make([]byte, 100), want: nbd.EINVAL},
		{typ: nbd.CmdTrim, length: 100000, data: make([]byte, 100000), want: nbd.EINVAL},
		{typ: nbd.CmdFlush, length: 1, data: make([]byte, 1), want: nbd.EINVAL},
		{typ: 4711, length: 32 << 20, data: make([]byte, 32<<20), want: nbd.EINVAL},
		{typ: nbd.CmdCache, length: 0, want: nbd.EINVAL},
		{typ: nbd.CmdWrite, length: 0},
		{typ: nbd.CmdWrite, length: 3, data: []byte("abc")},
		{typ: nbd.CmdBlockStatus, data: control(16, 1), contexts: []uint32{1}},
		{typ: nbd.CmdBlockStatus, data: control(16, 2), contexts: []uint32{2}},
		{typ: nbd.CmdBlockStatus, data: control(16, 2, 1), contexts: []uint32{1, 2}},
		{typ: nbd.CmdBlockStatus, flags: nbd.FlagReqOne, data: control(1, 2, 1), contexts: []uint32{1, 2}},
		{typ: nbd.CmdBlockStatus, data: control(0, 1), want: nbd.EINVAL},
		{typ: nbd.CmdBlockStatus, data: control(16, 1, 1), want: nbd.EINVAL},
		{typ: nbd.CmdBlockStatus, data: control(16, 3), want: nbd.EINVAL},
		{typ: nbd.CmdBlockStatus, data: control(16), want: nbd.EINVAL},
		{typ: nbd.CmdBlockStatus, data: control(16, 1, 2, 3), want: nbd.EINVAL},
		{typ: nbd.CmdBlockStatus, data: make([]byte, 70000), want: nbd.EINVAL},
		{typ: nbd.CmdBlockStatus, data: []byte{1}, want: nbd.EINVAL},
		{typ: nbd.CmdBlockStatus, want: nbd.EINVAL},
	} {
		q := nbd.Request{Type: tc.typ, Flags: tc.flags | nbd.FlagPayload, Length: max(tc.length, uint64(len(tc.data)))}
		for _, cut := range []bool{false, true} { // in one piece; byte by byte
			if cut && len(tc.data) > 100 {
				continue
			}
			q.Cookie = 0
			msg := append(c.Header(&q), tc.data...)
			c.Expect(q, tc.data)
			step := len(msg)
			if cut {
				step = 1
			}
			for part := range slices.Chunk(msg, step) {
				c.Conn.Write(part)
			}
			a, err := c.Answer()
			must(t, err)
			if a.Errno != tc.want {
				t.Errorf("%v: %v %s, want %v", q, a.Errno, a.Sentence, tc.want)
			}
			var got []uint32
			for id := range a.Status {
				got = append(got, id)
			}
			if slices.Sort(got); !slices.Equal(got, tc.contexts) {
				t.Errorf("%v: contexts %v, want %v", q, got, tc.contexts)
			}
		}
	}
	// A write without the flag has no payload: its length is an effect.
	if _, err := c.DoAnswer(nbd.Request{Type: nbd.CmdWrite, Length: 4096}, nil); nbdtest.ErrnoOf(err) != nbd.EINVAL {
		t.Errorf("a write without payload: %v", err)
	}
	must(t, c.Close())
}

// TestWrongMagic: a header of the other kind, and a payload that nobody may send, end the connection.
func TestWrongMagic(t *testing.T) {
	r := newRig(t, rigOptions{})
	for m := nbd.Simple; m <= nbd.Extended; m++ {
		c := r.dialMode(m)
		must(t, c.ReadAt(make([]byte, 10), 0))
		other := nbd.Extended
		if m == nbd.Extended {
			other = nbd.Simple
		}
		b := nbd.AppendRequest(nil, other, nbd.Request{Type: nbd.CmdFlush, Cookie: 1})
		c.Conn.Write(append(b, make([]byte, 10)...))
		expectEOF(t, c.Conn)
	}
	for _, typ := range []nbd.Command{nbd.CmdWrite, nbd.CmdRead, nbd.CmdBlockStatus, 99} {
		c := r.dialMode(nbd.Extended)
		c.Send(nbd.Request{Type: typ, Flags: nbd.FlagPayload, Length: block.MaxRequest + 1}, nil)
		expectEOF(t, c.Conn)
	}
	eventually(t, "all are counted", func() bool { return r.srv.Stats().BadPeers == 7 })
}

// TestStatus: extents from the device, merged over rounds, cut to what a reply holds.
func TestStatus(t *testing.T) {
	eachMode(t, func(t *testing.T, m nbd.Mode) {
		const size, blk = 16 << 20, 4096
		r := newRig(t, rigOptions{size: size})
		c := r.dialMode(m)
		must(t, c.WriteAt(make([]byte, 64<<10), 1<<20, 0))
		must(t, c.Zero(2<<20, 64<<10, nbd.FlagNoHole))
		must(t, c.Zero(3<<20, 64<<10, 0))
		for i := int64(0); i < 1024; i++ { // every other block
			must(t, c.WriteAt([]byte{1}, 8<<20+2*i*blk, 0))
		}
		for _, grain := range []int{0, 1, 7, 256} {
			r.loop.Call(func() { r.ram.Grain = grain })
			for _, tc := range []struct {
				off, n int64
				flags  uint16
				want   string // of base:allocation and of the depth
			}{
				{0, 4096, 0, "4096:3 | 4096:0"},
				{0, 4096, nbd.FlagReqOne, "4096:3 | 4096:0"},
				{1<<20 - 8192, 8192 + 72<<10, 0, "8192:3 65536:0 8192:3 | 8192:0 65536:1 8192:0"},
				{1<<20 - 8192, 8192 + 72<<10, nbd.FlagReqOne, "8192:3 | 8192:0"},
				{1<<20 + 100, 200, 0, "200:0 | 200:1"},
				{1<<20 - 1, 2, 0, "1:3 1:0 | 1:0 1:1"},
				{2<<20 - 4096, 4096 + 65536 + 1, 0, "4096:3 65536:2 1:3 | 4096:0 65536:1 1:0"},
				{3<<20 - 4096, 4096 + 65536 + 1, 0, "69633:3 | 69633:0"},
				{size - 1, 1, 0, "1:3 | 1:0"},
			} {
				// Small grains end a reply early: ask until the range is told.
				got := map[uint32][]nbdtest.Extent{}
				for at := tc.off; at < tc.off+tc.n; {
					a, err := c.DoAnswer(nbd.Request{Type: nbd.CmdBlockStatus, Flags: tc.flags, Offset: uint64(at),
						Length: uint64(tc.off + tc.n - at)}, nil)
					must(t, err)
					told := int64(0)
					for id, x := range a.Status {
						sum := int64(0)
						for _, e := range x {
							sum += int64(e.Len)
							if k := len(got[id]); k > 0 && got[id][k-1].Status == e.Status {
								got[id][k-1].Len += e.Len
							} else {
								got[id] = append(got[id], e)
							}
						}
						if told != 0 && told != sum {
							t.Fatalf("contexts of different length: %v", a.Status)
						}
						told = sum
					}
					if tc.flags != 0 {
						break
					}
					at += told
				}
				if s := extentNames(got[1]) + " | " + extentNames(got[2]); s != tc.want {
					t.Errorf("grain %d, %d at %d, flags %d: %s, want %s", grain, tc.n, tc.off, tc.flags, s, tc.want)
				}
			}
		}
		r.loop.Call(func() { r.ram.Grain = 0 })
		a, err := c.DoAnswer(nbd.Request{Type: nbd.CmdBlockStatus, Offset: 8 << 20, Length: 8 << 20}, nil)
		must(t, err)
		if n := len(a.Status[1]); n != map[nbd.Mode]int{nbd.Structured: 509, nbd.Extended: 253}[m] {
			t.Errorf("%d extents in a reply", n)
		}
		if held := r.pool.Pages() - r.freePages(); held > 16+1024 {
			t.Errorf("%d pages are held", held)
		}
	})
}

func extentNames(x []nbdtest.Extent) string {
	s := []string{}
	for _, e := range x {
		s = append(s, fmt.Sprintf("%d:%d", e.Len, e.Status))
	}
	return strings.Join(s, " ")
}

// TestStatusFails: an error after the first round belongs to who asks for the rest; no context, no status.
func TestStatusFails(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.loop.Call(func() {
		r.ram.Grain = 1
		r.ram.Fail = func(q *block.Request) errs.Kind {
			if q.Op == block.Extents && q.Off >= 8192 {
				return errs.Unreachable
			}
			return errs.OK
		}
	})
	c := r.dialMode(nbd.Structured)
	a, err := c.DoAnswer(nbd.Request{Type: nbd.CmdBlockStatus, Length: 1 << 20}, nil)
	if err != nil || extentNames(a.Status[1]) != "8192:3" {
		t.Errorf("%v, %+v", err, a)
	}
	a, err = c.DoAnswer(nbd.Request{Type: nbd.CmdBlockStatus, Offset: 8192, Length: 1 << 20}, nil)
	if nbdtest.ErrnoOf(err) != nbd.EIO || a.Bad != 8192 {
		t.Errorf("%v, %+v", err, a)
	}
	bare, err := nbdtest.DialAsk("unix", r.sock, nbdtest.Ask{Export: "disk", Mode: nbd.Extended})
	must(t, err)
	defer bare.Close()
	for _, flags := range []uint16{0, nbd.FlagReqOne} {
		if err := bare.Do(nbd.Request{Type: nbd.CmdBlockStatus, Flags: flags, Length: 1}, nil, nil); nbdtest.ErrnoOf(err) !=
			nbd.EINVAL {
			t.Errorf("%v", err)
		}
	}
}
