package server

import (
	"slices"
	"syscall"
	"testing"

	"github.com/cespare/xxhash/v2"

	"vstor/asd/proto"
	"vstor/dataplane/layout"
	"vstor/dataplane/wire"
)

// FuzzServer feeds a server arbitrary bytes after the handshake. Where they look like frames their checksums are made
// right first, so that what is behind them is tried too. Nothing may panic, hang, or be left over.
func FuzzServer(f *testing.F) {
	data := payload(1, 8192)
	keys := key(2).Append(nil)
	l := proto.List{Limit: 10}
	seeds := [][]byte{
		message(proto.TPing, 1, 0, nil, nil),
		message(proto.TPut, 2, 0, putBody(1, data, []byte("desc")), data),
		message(proto.TReadRanges, 3, 5, rangesBody(rng(0, 0, 8192), rng(9, 0, 4096)), nil),
		message(proto.TGet, 4, 0, rangeBody(0, 3, 100), nil),
		message(proto.TDelete, 5, 0, proto.AppendSum(nil, xxhash.Sum64(keys)), keys),
		message(proto.TList, 6, 0, l.Append(nil), nil),
		message(proto.TCancel, 0, 0, make([]byte, 8), nil),
		message(proto.TFence, 7, 0, proto.AppendEpoch(nil, 9, 1), nil),
		message(proto.TDescribe, 8, 0, rangeBody(0, 0, 0), nil),
		message(99, 9, 0, nil, make([]byte, 100)),
		message(proto.TExtents, 10, 0, proto.AppendKeys(nil, []layout.FragKey{key(0), key(9)}), nil),
		message(proto.TLease, 11, 0, make([]byte, 8), nil),
	}
	for _, s := range seeds {
		f.Add(s, uint16(7))
	}
	f.Add(slices.Concat(seeds...), uint16(100))
	w := newWorld(f, func(o *Options) {
		o.PoolBytes, o.PutBuffers, o.MaxFragment, o.MaxRequests = 2<<20, 1, 64<<10, 3
	})
	p := w.dial()
	must(f, p.put(0, 8192))
	p.nc.Close()
	f.Fuzz(func(t *testing.T, b []byte, piece uint16) {
		b = slices.Clone(b)
		seal(b)
		fd := w.raw(t)
		defer syscall.Close(fd)
		syscall.SetNonblock(fd, false)
		tv := syscall.Timeval{Sec: 20}
		syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &tv)
		go func() {
			for len(b) > 0 {
				n, err := syscall.Write(fd, b[:min(len(b), int(piece)+1)])
				if err != nil {
					break
				}
				b = b[n:]
			}
			syscall.Shutdown(fd, syscall.SHUT_WR)
		}()
		in := make([]byte, 64<<10)
		for {
			n, err := syscall.Read(fd, in)
			if err == syscall.EAGAIN {
				t.Fatal("the server neither answers nor closes")
			}
			if n <= 0 {
				break
			}
		}
		until(t, "no connection", func() bool { return w.srv.Stats().Connections == 0 })
	})
}

// seal makes the checksums of what looks like frames right.
func seal(b []byte) {
	for len(b) >= wire.HeaderSize {
		var h wire.Header
		if h.Decode(b) != nil || wire.HeaderSize+int(h.Body) > len(b) {
			return
		}
		h.Seal(b)
		b = b[min(len(b), wire.HeaderSize+int(h.Body)+int(h.Data)):]
	}
}
