package dio

import "maps"

const (
	chunkShift = 16
	chunkSize  = 1 << chunkShift
)

// sparse is bytes in chunks of 64 KiB; what was never written is zeros.
type sparse map[int64]*[chunkSize]byte

// block is the 4 KiB block number b, nil if it lies in a hole.
func (s sparse) block(b int64) []byte {
	c := s[b*BlockSize>>chunkShift]
	if c == nil {
		return nil
	}
	off := b * BlockSize % chunkSize
	return c[off : off+BlockSize]
}

// put sets block b.
func (s sparse) put(b int64, data []byte) {
	i := b * BlockSize >> chunkShift
	if s[i] == nil {
		s[i] = new([chunkSize]byte)
	}
	copy(s[i][b*BlockSize%chunkSize:], data[:BlockSize])
}

func (s sparse) clone() sparse {
	out := maps.Clone(s)
	for i, c := range out {
		fresh := *c
		out[i] = &fresh
	}
	return out
}
