package journal

import "testing"

// BenchmarkBlockSum is the checksum of a 4 KiB block: once for each block written, and for each that enters memory.
func BenchmarkBlockSum(b *testing.B) {
	block := make([]byte, BlockSize)
	for i := range block {
		block[i] = byte(i * 7)
	}
	sum := uint32(0)
	b.SetBytes(BlockSize)
	b.ReportAllocs()
	for b.Loop() {
		sum += blockSum(block)
	}
	if sum == 0 {
		b.Log("sums that add up to 0 are as good as others")
	}
}
