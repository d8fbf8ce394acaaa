// Package store keeps the immutable fragments of one drive: on a preallocated file or a raw device,
// past the page cache, with an index in Pebble and a copy of what matters of it in RAM. It is a store
// and not a daemon: any goroutine calls Put, Get and Delete, and a loop may ask Locate where bytes lie
// and read the drive on its own ring.
//
// # The drive
//
//	0            4 KiB                 1 MiB        +4 KiB               2 MiB                    Size
//	+------------+---------------------+------------+--------------------+--------------------------+
//	| superblock | left alone          | superblock | left alone         | extents, 4 KiB aligned   |
//	+------------+---------------------+------------+--------------------+--------------------------+
//	  copy 0                             copy 1
//
// The two superblocks are written one after the other with a sync between, so one is always whole, and
// both say the same once Open has returned: if one rots the other is as new. The second is at 1 MiB and
// not at the end because a truncated file must still say how long it was.
//
//	an extent:  +--------------------+---------------------------------------------+
//	            | header, 4 KiB      | payload: 64 KiB regions, the last may be    |
//	            | (header.go)        | shorter; a multiple of 4 KiB                |
//	            +--------------------+---------------------------------------------+
//
// A fragment is one such extent. Where no free run is long enough it is cut into at most maxExtents,
// the header at the lowest address and the payload in the order of their addresses.
//
// # What makes a put durable
//
// Put writes header and payload, then the committer does for all that wait: one Sync of the drive, one synced
// batch to the index, publication in RAM, the acknowledgements. It is two goroutines (commit.go): the drive is
// synced for the next puts while the index takes the last. Space is free if
// neither index nor RAM names it, so a put that a crash cut off leaves nothing to clean up. After a
// failed Sync or commit nobody knows what the drive holds: the store has failed, takes no change until it
// is reopened, and goes on reading.
//
// # What makes a delete durable, and a rebuild honest
//
// RebuildIndex finds fragments by their headers alone, so a header must not outlive its fragment. The
// obvious ways are a log of deletes on the drive, which grows for ever, or a comparison of sequence
// numbers, which cannot tell a deleted fragment whose space nobody took from a live one. Here Delete
// overwrites the header with a dead one, in the same Sync and batch that the puts of that moment pay
// for: 4 KiB per fragment, and free space holds no header of anything that was acknowledged as deleted.
// Whoever still reads the payload under a lease or a pin is not disturbed, because only headers die.
//
// What may remain is the header of a put that crashed before it was acknowledged. It comes back from a
// rebuild if all of it is whole, which is allowed: such a put is there or not. Otherwise its space has
// been used by another, its checksums fail, and it is dropped. A header is believed only with this
// drive's UUID, the random number of its Format, and its own address in it, so that no payload and no
// guest can pass for one; and inside a fragment that verifies whole nothing else is looked for.
//
// # Which index belongs to which drive
//
// Each Open takes a new incarnation, a count and a random number, kept in superblock and index. It is
// announced in the index, written to the drive, then confirmed in the index (open.go): a crash between
// leaves a pair that is still known to belong together, while a swapped folder or an old copy of either
// half does not match and is refused. A count of commits finds an index that lost its tail to rot.
//
// # Space
//
// Deleted space rests for Options.Quarantine, kept in the index, and while a pin holds it. Over a restart it
// rests on by the clock of the boot (mark.go), and after a boot anew: no wall clock is trusted, for one that jumped
// would give space away that a lease still names. Client puts leave a reserve for cleaning, and cleaning leaves one
// for repair; deletes need none. Puts are refused too while the index's file system is nearly full, and a ballast
// file there is given up so that deletes still commit.
//
// # Memory
//
// A fragment costs 32 bytes in a map without pointers, 40 to 85 with the map's slack: the key, where it
// lies, how many pins it has. Region sums (512 bytes for 4 MiB) stay in the header on the drive: a
// verified read, used by repair and scrub, pays one 4 KiB read for them, and the short path does not need
// them, for every block has a checksum in its location.
package store
