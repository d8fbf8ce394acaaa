// Package edge is the block API on the compute host: it turns byte requests of any alignment into whole
// blocks and climbs the read ladder.
//
//	read    resolve the range to pieces: zeros | page in the overlay | place in the journal | location
//	        blocks that the cache has are listed as they are; pieces that need a drive are read in parallel into
//	        fresh pages and verified
//	        the reply is a scatter list over pages wherever they lie; unaligned edges are cut off the list
//	write   checksum each block where it lies, hand the pages to the Volume Driver
//	        a write that covers part of a block first reads the rest of it (order.go says what it waits for), and
//	        until it has ended no other edge gets the vDisk
//	zeroes  a range of whole blocks is one record; trims ignore partial blocks, zeros are merged into them
//	extents what is allocated, asked of the Volume Driver in turns of bounded length
//	cache   the map of a range is brought into memory, and the first of its blocks into the cache
//	ahead   who reads in order is read ahead of, into the cache
//
// A Disk belongs to one loop; nothing in it is locked.
package edge
