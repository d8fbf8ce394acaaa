// Package pagemap is a vDisk's map: block address -> layout.Location, in pages of 256, for vDisks of up
// to 64 TiB in a few bytes of RAM per page.
//
//	record.go page.go  the formats: keys, checkpoint, SCOs, counts; pages. dump.go prints them
//	db.go              the database of all maps of a router
//	map.go open.go     Map: Open, Lookup, Close. options.go has the budget of RAM
//	tree.go slab.go    what is in RAM: nodes of pages, and slots of deltas
//	apply.go           writes, trims and moves, in commit order
//	commits.go         what holds the checkpoint back
//	load.go absent.go  pages into RAM, and out by CLOCK; pages that are not there
//	squeeze.go         room in the budget that other maps hold
//	flush.go sweep.go  write back: when and how far; which pages, and what came of it
//	job.go             one batch, off the loop
//	live.go            blocks per SCO
//
// # Two sides
//
// The durable side is Pebble: base pages, and with them the checkpoint (every commit up to C is in the
// base pages) and the live blocks of each SCO. The RAM side is what the loop sees: per touched page the
// deltas that the base lacks, which are always in RAM, and maybe a clean copy of the base. A Lookup
// asks delta, then base, and misses if neither knows; it allocates nothing and takes no lock.
//
// The obvious way is to read, change and write a page per write. With random 4K writes that is 4 KB of map
// for 4 KB of data. Deltas gather instead: a delta is 12 bytes, and a page is written when many wait. Under
// a budget of 64 MiB a 100 GiB vDisk holds 2.7 million deltas, 27 per page in the mean, and a sweep in
// address order meets pages just when they were left alone longest, with twice the mean: 54 deltas for one
// page read and one written, 3.8 KB for 216 KB of data, under 2 %. Flushing each page at a fixed number of
// deltas absorbs as much, but in random order; a sweep's batches are runs of neighbouring keys, so
// Pebble's memtables cover narrow ranges and compaction rewrites little besides.
//
// # When pages are written
//
// Never because of time. A page waits until
//
//	moving the checkpoint is cheap    75 blocks were applied per dirty page: a hot set, or sequential writes
//	a restart would replay too much   more than RedoMax commits after the checkpoint
//	RAM is short                      deltas over 5/8 of the budget: dense pages, in address order
//	someone waits                     FlushAll at shutdown, FlushPages for the cleaner
//
// One batch per map is under way at most. The loop hands copies of deltas to a goroutine, which reads the
// base pages (or uses the cached copy), merges, counts what each SCO won and lost, and applies one batch
// of pages, counts, new SCOs and checkpoint. Then the loop drops the deltas that are what was flushed;
// those that changed meanwhile stay.
//
// A trim of whole pages is a flag on the node, or on the slot of 32 or 32768 pages that it covers; it
// becomes a delete of the range. What lay in those pages is read then, off the loop, for the counts.
//
// # After a crash
//
// The database has no log and loses its newest batches; the indexes of SCOs after the checkpoint are the
// log. Open returns the checkpoint C, and the commits after C are applied again, in order, over pages that
// may hold some of them already. The result is the same map. Take a block, and its state in the base after
// commit b >= C (base pages may be ahead of C, by different b) or with changes up to C missing that a commit
// after C undoes. The first write or trim of it that is replayed sets it to what it was then, and from there
// on history repeats. Before that, only moves touch it. A move takes effect if the block lies at Old;
// locations are never reused, so once a move or a write took a block away from Old it never lies there
// again, and a base that is ahead cannot match. If none follows, the base was right from the start. If a
// base lacks a change, a later replayed commit overwrites the block, whatever a move did before.
//
// What a SCO's object holds may be forgotten (TakeEmpty) when no base page and no delta lies in it, its own
// commit is not after the checkpoint, and both are durable: until then its trims and its place in the order
// may be replayed.
//
// A batch that fails leaves its pages as dirty as before. A base page that fails its checksum or identity
// is not merged: its deltas stay, the checkpoint stops below them, everything else goes on, and FlushAll
// says Corrupt. Its block locations can be rebuilt from the indexes of all SCOs.
//
// # Clones, later
//
// A map is a layer: pages are keyed and named by map id, not by vDisk. A snapshot will seal a vDisk's layer
// after FlushAll and start a new map with Tombstones above it; a clone starts one above the same layer. A page
// that a layer does not have is asked of the layer below; a page that it has may have holes of kind unmapped,
// which ask below, and trimmed or zero, which do not. So pages are shared unrewritten. The locations in a
// sealed layer carry the namespace index of whoever wrote them, and a map counts live blocks of its own
// namespace only.
package pagemap
