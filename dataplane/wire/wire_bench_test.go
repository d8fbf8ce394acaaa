package wire

import "testing"

// BenchmarkFrame is sealing a frame's header over a body of one read range, and taking it apart and verifying it.
func BenchmarkFrame(b *testing.B) {
	h := Header{Type: 3, ID: 7, Body: 28}
	frame := make([]byte, HeaderSize+28)
	b.Run("seal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			h.Seal(frame)
		}
	})
	h.Seal(frame)
	b.Run("open", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var got Header
			if err := got.Decode(frame); err != nil {
				b.Fatal(err)
			}
			if err := got.Verify(frame); err != nil {
				b.Fatal(err)
			}
		}
	})
}
