// Package stamp proves that what a block device acknowledged is there. It writes blocks that say who
// they are, from many connections at a time, remembers for each block what it may hold, and after a
// crash and a restart reads everything back.
//
// Each 4 KiB block of the volume is one of two kinds:
//
//	whole blocks   written, zeroed and trimmed in runs of blocks; overlapping writes may be in flight
//	sector blocks  written and zeroed in runs of 512-byte sectors within one block, one at a time
//
// A unit (a whole block, or a sector) that was written holds
//
//	byte   0        8         16      24        32     40         len-8
//	       "STAMPED\x01"  volume  address  version  seed  filler  XXH64     little endian
//
// where address counts units of that size, and the filler follows from the rest. So a unit tells a torn
// write (the hash fails), an old one (its version), a misdirected one (address), and one of another
// volume or run.
//
// What a whole block may hold after a crash: any write of it that was issued, unless another one, issued
// after that was acknowledged, has settled. A sector block holds its settled state with the writes since
// then applied up to some point, each one wholly or not at all. Settled means acknowledged, or, where power
// loss is tested, acknowledged before a FLUSH began that was acknowledged, or written with FUA.
package stamp
