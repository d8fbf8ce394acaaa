package nbd_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sort"
	"syscall"
	"testing"
	"time"

	"vstor/dataplane/nbd"
	"vstor/dataplane/nbd/nbdtest"
)

// answer is a reply as a client can tell it: order is free.
type answer struct {
	cookie uint64
	errno  nbd.Errno
}

// expect is what a server must answer to a stream, worked out without state, buffers or loops. data is
// how many bytes each cookie's reply carries. Cookies in the stream are made unique in place.
func expect(stream []byte, size int64) (want []answer, data map[uint64]int) {
	data = map[uint64]int{}
	for i := uint64(1); ; i++ {
		q, ok := nbd.ParseRequest(stream)
		if !ok || q.Type == nbd.CmdDisc {
			return want, data
		}
		q.Cookie = i
		nbd.PutRequest(stream, q)
		stream = stream[nbd.RequestSize:]
		if q.Type == nbd.CmdWrite {
			e := verdict(q, size)
			if uint64(len(stream)) < uint64(q.Length) {
				if e != nbd.OK {
					want = append(want, answer{i, e}) // a refusal does not wait for the payload
				}
				return want, data
			}
			stream = stream[q.Length:]
		}
		e := verdict(q, size)
		want = append(want, answer{i, e})
		if q.Type == nbd.CmdRead && e == nbd.OK {
			data[i] = int(q.Length)
		}
	}
}

func verdict(q nbd.Request, size int64) nbd.Errno {
	known := map[nbd.Command]uint16{nbd.CmdRead: 1, nbd.CmdWrite: 1, nbd.CmdFlush: 1, nbd.CmdTrim: 1,
		nbd.CmdWriteZeroes: 3}
	flags, ok := known[q.Type]
	inside := q.Offset <= uint64(size) && q.Offset+uint64(q.Length) <= uint64(size)
	switch {
	case !ok || q.Flags&^flags != 0:
		return nbd.EINVAL
	case q.Type == nbd.CmdFlush && (q.Offset != 0 || q.Length != 0):
		return nbd.EINVAL
	case (q.Type == nbd.CmdRead || q.Type == nbd.CmdWrite) && q.Length > 32<<20:
		return nbd.EINVAL
	case !inside && (q.Type == nbd.CmdWrite || q.Type == nbd.CmdWriteZeroes):
		return nbd.ENOSPC
	case !inside:
		return nbd.EINVAL
	}
	return nbd.OK
}

// FuzzTransmission sends a stream to a live connection, cut into two writes, and compares what comes
// back with expect. The loop runs beside it and blurs the coverage, so minimizing finds no end: run it
// with -fuzzminimizetime 10x.
func FuzzTransmission(f *testing.F) {
	const size = 1 << 20
	r := newRig(f, rigOptions{size: size})
	seed := func(cut uint16, qs ...nbd.Request) {
		var b []byte
		for _, q := range qs {
			h := make([]byte, nbd.RequestSize)
			nbd.PutRequest(h, q)
			b = append(b, h...)
			if q.Type == nbd.CmdWrite {
				b = append(b, make([]byte, min(q.Length, 100000))...)
			}
		}
		f.Add(b, cut)
	}
	seed(30, nbd.Request{Type: nbd.CmdWrite, Offset: 5, Length: 4096},
		nbd.Request{Type: nbd.CmdRead, Offset: 3, Length: 5000})
	seed(5000, nbd.Request{Type: nbd.CmdWrite, Offset: 5, Length: 90000}, nbd.Request{Type: nbd.CmdFlush})
	seed(1, nbd.Request{Type: nbd.CmdWrite, Offset: size, Length: 40000},
		nbd.Request{Type: nbd.CmdTrim, Length: size})
	seed(60, nbd.Request{Type: nbd.CmdWriteZeroes, Flags: 3, Length: size},
		nbd.Request{Type: 9}, nbd.Request{Type: nbd.CmdDisc})
	f.Fuzz(func(t *testing.T, input []byte, cut uint16) {
		stream := bytes.Clone(input)
		want, data := expect(stream, size)
		c, err := nbdtest.Dial("unix", r.sock, "disk")
		must(t, err)
		defer c.Conn.Close()
		c.Conn.SetDeadline(time.Now().Add(20 * time.Second))
		go func() {
			at := min(int(cut), len(stream))
			c.Conn.Write(stream[:at])
			c.Conn.Write(stream[at:])
			c.Conn.(*net.UnixConn).CloseWrite()
		}()
		var got []answer
		for {
			e, cookie, err := c.Recv()
			if err == io.EOF || errors.Is(err, syscall.ECONNRESET) { // a reset: it left bytes unread
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, answer{cookie, e})
			if _, err := io.CopyN(io.Discard, c.Conn, int64(data[cookie])); err != nil {
				t.Fatal(err)
			}
		}
		sort.Slice(got, func(i, j int) bool { return got[i].cookie < got[j].cookie })
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("\n got %v\nwant %v", got, want)
		}
	})
}
