package stamp

import (
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"
)

// Sizes in bytes.
const (
	BlockSize  = 4096
	SectorSize = 512
	perBlock   = BlockSize / SectorSize
)

const unitMagic = 0x014445504d415453 // "STAMPED\x01"

// identity is what a unit says of itself. Version 0 is zeros.
type identity struct {
	volume, addr, version, seed uint64
}

// fill stamps a unit of len(b) bytes.
func (id identity) fill(b []byte) {
	binary.LittleEndian.PutUint64(b, unitMagic)
	binary.LittleEndian.PutUint64(b[8:], id.volume)
	binary.LittleEndian.PutUint64(b[16:], id.addr)
	binary.LittleEndian.PutUint64(b[24:], id.version)
	binary.LittleEndian.PutUint64(b[32:], id.seed)
	x := id.version*0x9e3779b97f4a7c15 ^ id.addr*0xbf58476d1ce4e5b9 ^ id.seed | 1
	end := len(b) - 8
	for i := 40; i < end; i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(b[i:], x)
	}
	binary.LittleEndian.PutUint64(b[end:], xxhash.Sum64(b[:end]))
}

// read returns the version a unit holds, or what is wrong with it.
func (id identity) read(b []byte) (version uint64, wrong string) {
	if allZero(b) {
		return 0, ""
	}
	end := len(b) - 8
	got := identity{
		volume:  binary.LittleEndian.Uint64(b[8:]),
		addr:    binary.LittleEndian.Uint64(b[16:]),
		version: binary.LittleEndian.Uint64(b[24:]),
		seed:    binary.LittleEndian.Uint64(b[32:]),
	}
	switch {
	case binary.LittleEndian.Uint64(b) != unitMagic:
		return 0, fmt.Sprintf("no stamp (begins with %x)", b[:16])
	case binary.LittleEndian.Uint64(b[end:]) != xxhash.Sum64(b[:end]):
		return 0, fmt.Sprintf("torn or damaged (its head says version %d of address %d)", got.version, got.addr)
	case got.volume != id.volume || got.seed != id.seed:
		return 0, fmt.Sprintf("data of another volume or run (volume %x, seed %d)", got.volume, got.seed)
	case got.addr != id.addr:
		return 0, fmt.Sprintf("the data of address %d (version %d)", got.addr, got.version)
	}
	return got.version, ""
}

func allZero(b []byte) bool {
	for len(b) >= 8 {
		if binary.LittleEndian.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	return true
}
