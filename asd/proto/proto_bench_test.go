package proto

import (
	"testing"

	"vstor/dataplane/layout"
	"vstor/dataplane/wire"
)

// BenchmarkReadRanges is the request of a 4 KiB read of a fragment as it goes over the wire: the frame made by who
// asks, and taken apart by the ASD.
func BenchmarkReadRanges(b *testing.B) {
	ranges := []Range{{Key: layout.FragKey{SCO: 9, Put: 3, Frag: 2}, Off: 1 << 20, Len: 4096}}
	frame := make([]byte, wire.HeaderSize, 256)
	encode := func() []byte {
		out := AppendReadRanges(frame[:wire.HeaderSize], ranges)
		h := wire.Header{Type: TReadRanges, ID: 7, Body: uint32(len(out) - wire.HeaderSize)}
		h.Seal(out)
		return out
	}
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			encode()
		}
	})
	in := encode()
	b.Run("decode", func(b *testing.B) {
		got := make([]Range, 0, 4)
		b.ReportAllocs()
		for b.Loop() {
			var h wire.Header
			err := h.Decode(in)
			if err == nil {
				err = h.Verify(in)
			}
			if err == nil {
				got, err = DecodeReadRanges(got[:0], in[wire.HeaderSize:])
			}
			if err != nil || got[0] != ranges[0] {
				b.Fatal(got, err)
			}
		}
	})
}
