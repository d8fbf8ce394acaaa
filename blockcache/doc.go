// Package blockcache is the block cache of the read ladder: small blocks, filled on reads, in RAM and, where there is
// one, on a local SSD.
//
//	Get ──> RAM: the pages themselves, retained                                        no copy, no allocation
//	Fetch ──> block by block:
//	    in RAM                    the page is exchanged for the cached one
//	    being read by another     wait for that, then share its page                   misses are merged
//	    on the SSD                one ring read per extent > verify > fill RAM
//	    else                      the backend below > fill RAM
//
// # Location, not address
//
// Both tiers are keyed by location: namespace, SCO, and the block's place in the SCO in units of the cache's block
// size. The content of a location never changes and its number is never used again, so nothing here can be stale:
// no write, trim, rollback or takeover drops anything, clones share what they have in common, and the file is as good
// after a crash as before. What is overwritten is never asked for again and ages out. The price is that a
// block rewritten by cleaning is read once more. Readers bring the checksum their map has for each block; RAM
// compares it with the one the block was read under, the SSD tier with the bytes, and a mismatch is a miss, counted,
// never served.
//
// # RAM
//
// An entry is a cache block of 32 to 256 KiB of which any 4 KiB parts may be there: a read of 4 KiB fills 4 KiB. A
// part is a page of the loop's pool that the cache retains, so that filling and serving both are a count in a table.
// An entry costs 88 bytes and 8 for each part it could have: with 64 KiB blocks 216 bytes, between 0.3 % of full
// entries and 5 % of those that hold one part. That is charged against the bound as the pages are. When the loop runs
// short of pages its owner calls Shrink; and below the pool's reserve nothing is filled.
//
// What stays is decided in package policy (S3-FIFO, quotas, shares), which has no data and no IO, so that the
// simulator runs it too.
//
// # SSD
//
// The file is package ssd. What leaves RAM goes there if it was read again while it was cached, or if it left RAM
// before and was remembered (door.go): a second time, within about the file's size of blocks. A scan is written never,
// and a working set larger than RAM is written once. Filling on every read instead would wear the drive at the speed
// of the reads and make room for a block that is read twice by dropping one that is; filling from main alone would
// never learn of a working set that is larger than RAM and smaller than the SSD.
//
// # A cache slower than the backend
//
// gate.go keeps mean latencies of SSD reads and of the backend, by size. While the SSD is the slower one, reads go to
// the backend, but for a probe now and then, and nothing is written to it. A read of the SSD that is late is left
// alone and the backend asked, into fresh pages. A queue of reads that is full, errors and damaged bytes lead
// to the backend too. All of that is counted.
//
// # Who may call
//
// A Cache belongs to one loop, with everything of it but the statistics. Nothing blocks, and nothing is locked.
// Memory and SSD space are divided among loops by whoever makes them: a vDisk lives on one loop, so its blocks
// are in one cache; clones on two loops have a block each.
package blockcache
