package store

import "unsafe"

// aligned reports whether p may be handed to a direct-IO file as it is: address and length are
// multiples of the block size.
func aligned(p []byte) bool {
	return len(p)%blockSize == 0 && uintptr(unsafe.Pointer(unsafe.SliceData(p)))%blockSize == 0
}
