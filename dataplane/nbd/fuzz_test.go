package nbd_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"vstor/dataplane/nbd"
	"vstor/dataplane/nbd/nbdtest"
)

const fuzzSize = 1 << 20

// answer is what a client learns of a request; order is free.
type answer struct {
	cookie uint64
	errno  nbd.Errno
	data   string // a hash would do; it is short
}

// expect is what a server must answer to a stream, worked out without state, buffers or loops. Cookies in
// the stream are made unique in place, and c is told of the requests.
func expect(c *nbdtest.Client, f *flat, stream []byte) (want []answer) {
	parse, head := nbd.ParseRequest, nbd.RequestSize
	if f.mode == nbd.Extended {
		parse, head = nbd.ParseExtendedRequest, nbd.ExtendedRequestSize
	}
	for i := uint64(1); ; i++ {
		q, ok := parse(stream)
		if !ok || q.Type == nbd.CmdDisc {
			return want
		}
		n, ok := f.payload(q)
		if !ok {
			return want
		}
		q.Cookie = i
		copy(stream, nbd.AppendRequest(nil, f.mode, q))
		stream = stream[head:]
		payload := stream[:min(uint64(len(stream)), n)]
		stream = stream[len(payload):]
		missing := uint64(len(payload)) < n
		if missing && f.control(q) {
			return want
		}
		e := f.verdict(q, payload)
		if missing && e == nbd.OK {
			return want // a refusal does not wait for the payload
		}
		c.Expect(q, payload)
		a := answer{cookie: i, errno: e}
		if e == nbd.OK {
			if q.Type == nbd.CmdRead {
				a.data = string(f.data[q.Offset : q.Offset+q.Length])
			}
			f.apply(q, payload)
		}
		want = append(want, a)
		if missing {
			return want
		}
	}
}

// FuzzTransmission sends a stream to a live connection, in each mode, cut into two writes, and compares what
// comes back, and what the device is afterwards, with a model. The loop runs beside it and blurs the coverage,
// so minimizing finds no end: run it with -fuzzminimizetime 10x.
func FuzzTransmission(f *testing.F) {
	r := newRig(f, rigOptions{size: fuzzSize})
	for m := nbd.Simple; m <= nbd.Extended; m++ {
		for i, s := range streamSeeds(m) {
			f.Add(s, uint16(29*i), uint8(m))
		}
	}
	f.Fuzz(func(t *testing.T, input []byte, cut uint16, mode uint8) {
		r.t = t
		r.loop.Call(r.ram.Drop)
		stream := bytes.Clone(input)
		m := nbd.Mode(mode % 3)
		c := r.dialMode(m)
		defer c.Conn.Close()
		model := newFlat(m, fuzzSize)
		want := expect(c, model, stream)
		c.Conn.SetDeadline(time.Now().Add(20 * time.Second))
		go func() {
			at := min(int(cut), len(stream))
			c.Conn.Write(stream[:at])
			c.Conn.Write(stream[at:])
			c.Conn.(*net.UnixConn).CloseWrite()
		}()
		var got []answer
		for {
			a, err := c.Answer()
			if err == io.EOF || errors.Is(err, syscall.ECONNRESET) { // a reset: it left bytes unread
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, answer{a.Cookie, a.Errno, string(a.Data)})
		}
		slices.SortFunc(got, func(a, b answer) int { return int(a.cookie) - int(b.cookie) })
		if !slices.Equal(got, want) {
			t.Fatalf("%s:\n got %.1000s\nwant %.1000s", modeNames[m], fmt.Sprint(got), fmt.Sprint(want))
		}
		r.compare(t, model)
	})
}

// compare reads the whole device and its map.
func (r *rig) compare(t *testing.T, model *flat) {
	t.Helper()
	c := r.dialMode(nbd.Structured)
	defer c.Close()
	got := make([]byte, len(model.data))
	must(t, c.ReadAt(got, 0))
	if !bytes.Equal(got, model.data) {
		t.Fatal("the device is not what it should be")
	}
	a, err := c.DoAnswer(nbd.Request{Type: nbd.CmdBlockStatus, Length: uint64(len(got))}, nil)
	must(t, err)
	if !model.told(0, uint64(len(got)), a.Status) {
		t.Fatalf("the map is not what it should be: %v", a.Status)
	}
}

// streamSeeds have every command, every flag, refusals, and streams that break off.
func streamSeeds(m nbd.Mode) (seeds [][]byte) {
	add := func(tail string, qs ...nbd.Request) {
		var b []byte
		for _, q := range qs {
			if q.Type == nbd.CmdWrite && m == nbd.Extended {
				q.Flags |= nbd.FlagPayload
			}
			b = nbd.AppendRequest(b, m, q)
			if q.Type == nbd.CmdWrite {
				b = append(b, fill(make([]byte, min(q.Length, 100000)), q.Length)...)
			}
		}
		seeds = append(seeds, append(b, tail...))
	}
	add("", nbd.Request{Type: nbd.CmdWrite, Offset: 5, Length: 4096},
		nbd.Request{Type: nbd.CmdRead, Offset: 3, Length: 5000})
	add("", nbd.Request{Type: nbd.CmdWrite, Offset: 5, Length: 90000}, nbd.Request{Type: nbd.CmdFlush},
		nbd.Request{Type: nbd.CmdRead, Flags: nbd.FlagDF, Length: fuzzSize}, nbd.Request{Type: nbd.CmdRead, Length: fuzzSize})
	add("", nbd.Request{Type: nbd.CmdWrite, Offset: fuzzSize, Length: 40000},
		nbd.Request{Type: nbd.CmdTrim, Length: fuzzSize})
	zero := nbd.Request{Type: nbd.CmdWriteZeroes, Flags: nbd.FlagNoHole | nbd.FlagFastZero | nbd.FlagFUA, Length: fuzzSize}
	add("", zero,
		nbd.Request{Type: 9}, nbd.Request{Type: nbd.CmdCache, Length: 4096}, nbd.Request{Type: nbd.CmdDisc})
	add("", nbd.Request{Type: nbd.CmdBlockStatus, Length: fuzzSize},
		nbd.Request{Type: nbd.CmdBlockStatus, Flags: nbd.FlagReqOne, Offset: 77, Length: 9999})
	add("", nbd.Request{Type: nbd.CmdWrite, Length: fuzzSize})
	add("GARBAGE", nbd.Request{Type: nbd.CmdRead, Length: 33 << 20})
	if m == nbd.Extended {
		control := "\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x02"
		add(control, nbd.Request{Type: nbd.CmdBlockStatus, Flags: nbd.FlagPayload, Length: 12})
		add(control, nbd.Request{Type: nbd.CmdBlockStatus, Flags: nbd.FlagPayload, Length: 16})
		add(control, nbd.Request{Type: nbd.CmdRead, Flags: nbd.FlagPayload, Length: 12})
		add("", nbd.Request{Type: nbd.CmdTrim, Length: 1 << 40}, nbd.Request{Type: nbd.CmdWrite, Length: 1 << 40})
	}
	return seeds
}

// FuzzModel turns its input into requests that are mostly right, keeps many in flight, and compares all that
// comes back with a model: bytes, errors, and the map to the block.
func FuzzModel(f *testing.F) {
	r := newRig(f, rigOptions{size: fuzzSize})
	for m := range byte(3) {
		for typ := range byte(9) {
			f.Add([]byte{m + typ<<4, 1, 0, 0, 3, 9, typ, 0, 0, 2, 7, typ, 1, 1, 0, 5, 0, 4, 0, 0, 11, 7, 8, 0, 0, 11})
		}
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) < 1 {
			return
		}
		r.t = t
		m := nbd.Mode(in[0] % 3)
		r.loop.Call(func() { r.ram.Drop(); r.ram.Grain = int(in[0] >> 4) })
		c := r.dialMode(m)
		defer c.Close()
		c.Conn.SetDeadline(time.Now().Add(20 * time.Second))
		model := newFlat(m, fuzzSize)
		want := map[uint64]answer{}
		for in = in[1:]; len(in) >= 5 && len(in) < 5*64; in = in[5:] {
			q, payload := program(in, m)
			if q.Type == nbd.CmdBlockStatus { // takes rounds, between which others would change things
				modelDrain(t, c, want)
			}
			e := model.verdict(q, payload)
			_, err := c.Ask(q, payload)
			must(t, err)
			a := answer{errno: e}
			if e == nbd.OK && q.Type == nbd.CmdRead {
				a.data = string(model.data[q.Offset : q.Offset+q.Length])
			}
			want[uint64(len(want)+1)] = a
			if e == nbd.OK {
				model.apply(q, payload)
			}
			if q.Type == nbd.CmdBlockStatus {
				got := modelDrain(t, c, want)
				length := q.Length
				if q.Flags&nbd.FlagPayload != 0 && len(payload) >= 8 {
					length = binary.BigEndian.Uint64(payload)
				}
				if e == nbd.OK && !model.told(q.Offset, length, got.Status) {
					t.Fatalf("%v: %v", q, got.Status)
				}
			}
		}
		modelDrain(t, c, want)
		r.loop.Call(func() { r.ram.Grain = 0 })
		r.compare(t, model)
	})
}

// modelDrain takes the answers to all that is in flight; an entry that was answered has no error of its own
// any more. It returns the last.
func modelDrain(t *testing.T, c *nbdtest.Client, want map[uint64]answer) (last *nbdtest.Answer) {
	t.Helper()
	for c.Pending() > 0 {
		a, err := c.Answer()
		must(t, err)
		if w := want[a.Cookie]; a.Errno != w.errno || w.errno == nbd.OK && string(a.Data) != w.data {
			t.Fatalf("%d: %v %s, want %v", a.Cookie, a.Errno, a.Sentence, w.errno)
		}
		last = a
	}
	return last
}

// program makes a request of five bytes: command, flags, offset, length.
func program(in []byte, m nbd.Mode) (q nbd.Request, payload []byte) {
	lengths := [...]uint64{0, 1, 511, 512, 4095, 4096, 4097, 8192, 32767, 40000, 65536, 131072, 500001, fuzzSize,
		fuzzSize + 1, 33 << 20}
	q.Type = nbd.Command(in[0] % 9)
	if q.Type == nbd.CmdDisc {
		q.Type = nbd.CmdRead
	}
	q.Flags = uint16(in[1] & 31)
	if in[1]&0xc0 == 0 { // mostly no flags, or few allow anything
		q.Flags &= map[nbd.Command]uint16{nbd.CmdRead: 1 | 4, nbd.CmdWrite: 1, nbd.CmdWriteZeroes: 1 | 2 | 16,
			nbd.CmdBlockStatus: 8}[q.Type]
	}
	q.Offset = uint64(in[2])*blk + uint64(in[3])
	q.Length = lengths[in[4]%16]
	if in[4]&16 != 0 {
		q.Length = min(q.Length, fuzzSize-min(q.Offset, fuzzSize))
	}
	switch {
	case q.Type == nbd.CmdFlush:
		q.Offset, q.Length = 0, 0
	case q.Type == nbd.CmdWrite:
		if m == nbd.Extended {
			q.Flags |= nbd.FlagPayload
			q.Length = min(q.Length, 32<<20)
		}
		payload = fill(make([]byte, q.Length), uint64(in[3]))
	case q.Type == nbd.CmdBlockStatus && m == nbd.Extended && in[4]&32 != 0:
		payload = binary.BigEndian.AppendUint64(nil, q.Length)
		payload = binary.BigEndian.AppendUint32(payload, 1+uint32(in[1]&1))
		q.Flags |= nbd.FlagPayload
		q.Length = uint64(len(payload))
	}
	return q, payload
}
