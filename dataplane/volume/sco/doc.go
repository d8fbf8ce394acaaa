// Package sco is the format of a Storage Container Object: a sealed, immutable batch of a vDisk's
// blocks, sorted by address, with the index that says what they are. Pure: bytes in, structs out.
//
//	block 0           header
//	      1 .. i      index: entries by address, then holes by address; zero-padded to a block
//	      i+1 ..      data blocks, in the order of the entries
//
// The index stands in front so that opening a vDisk reads one short range at the object's start, from
// one drive, and so that the data blocks of an entry are found by its place: entry n lies at block
// i+1+n. All sizes are known before the first byte is written, since a batch is closed when it is sealed.
//
//	header   0  magic "VSCO"        4
//	         4  version             2     1
//	         6  kind                2     0 write, 1 cleaning
//	         8  header length       4     4096
//	        12  entries             4
//	        16  header checksum     8     XXH64 of the header block with this field zero
//	        24  volume              8
//	        32  SCO number          4
//	        36  holes               4
//	        40  epoch               8
//	        48  lowest sequence     8
//	        56  highest sequence    8     every record of the vDisk up to here is in this SCO or an earlier one
//	        64  index checksum      8     XXH64 of the index bytes without padding
//	        72  zeros               to 4096
//
//	entry    0  address             8     in blocks
//	         8  sequence            8     of the write
//	        16  checksum            4     low half of XXH64 of the block
//	       (20  old location       12     in cleaning SCOs: the move counts only if the block still lies there)
//
//	hole     0  address             8     in cleaning SCOs it counts only while its sequence is above all applied
//	         8  blocks              8
//	        16  sequence            8
//	        24  kind                1     layout.OffZero or layout.OffTrimmed
//	        25  zeros               7
//
// All numbers are little endian. Format version 1; never change it in place.
package sco
