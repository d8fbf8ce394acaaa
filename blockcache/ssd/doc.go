// Package ssd is the second tier of the block cache: a file on a local drive, written past the page cache as a
// log of regions, and an index of it in RAM.
//
//	+------------+--------------------------+--------------------------+--
//	| superblock | region 0                 | region 1                 | ...
//	| 4 KiB      | headers | 4 KiB blocks   |                          |
//	+------------+--------------------------+--------------------------+--
//
// A region is 1 MiB unless set otherwise. Blocks that are to be kept are collected until they fill one; then its
// headers, which name every block in it, and its blocks leave in one write. That is all that is ever written, so
// a flash drive sees long sequential writes, and a region says by itself what it holds. Until its write has ended a
// region is served from the pages that wait, so a block is never named and not readable. There is one region
// that fills and one on its way; when both are full, what comes is not kept.
//
// Which region is overwritten next is not a matter of age: entries leave by policy (S3-FIFO, quotas), and leave
// holes in regions; the region with the most holes is taken, and loses what is left in it. A tenth of the file
// is never promised to anyone, so that there are holes. The obvious ring of regions, oldest first, needs no search,
// but a vDisk that churns within its quota would wash out everybody else's blocks with every lap.
//
// # Why nothing but a new superblock is ever synced
//
// A block is keyed by its location, and the content of a location never changes: a block from before a crash is as good
// as any. Whoever asks brings the checksum that its map has for the block, and what was read is served only if it
// has that checksum. So a lost write, a torn one, one that went astray, and a header that outlived its blocks all
// look alike: the entry is dropped, and counted. For the same reason the index holds no checksums: comparing bytes
// with what the reader wants is stronger than comparing two notes about them.
//
// After a restart Open reads the headers of all regions and has the index again, whether the stop was clean or not;
// what filled a region that was not written yet is lost with a crash. A superblock that is damaged, of another version,
// another deployment or another shape means an empty cache.
//
// A Tier belongs to one loop once it is attached; Open is for a goroutine.
package ssd
