// Package policy decides what a cache keeps: which entry leaves when another wants its place, and whose. It
// holds keys, weights and counts but no data, does no IO and reads no clock, so that both tiers of the block
// cache run it, and the simulator in bench/cachesim runs the very same code on traces.
//
// # Within one vDisk: S3-FIFO, with two changes
//
//	insert ──> small (10 %) ──hit again──> main ──not hit──> out
//	             │ not hit                  ^ │ hit: once more around
//	             v                          └─┘
//	           ghost (names only) ──asked for again: straight to main
//
// An LRU list is moved by every hit, and a scan pushes all of it out. Here a hit writes a count into an entry
// that stays where it is, and a scan goes through small, a tenth, and leaves main alone. ARC resists scans too,
// but moves list nodes with every hit, and what it learns from names it must forget and learn again.
//
// bench/plots/cachesim.txt compares them, made by `vstor bench cache-sim`. In short, with blocks of 64 KiB and a
// cache of 5 % of what is read: hot spots LRU 41.6, ARC 46.8, S3-FIFO 47.8, this 47.6 % hits; with a scan by 4 KiB
// beside them 8.0, 7.9, 8.1, 10.0; with a loop 11.4, 16.6, 16.6, 16.8. Where it loses is a working set that moves
// at once to other places: 41.6, 41.6, 39.1, 38.9, as main gives up the old one only entry by entry.
//
// Change one: an entry is a block of up to 64 parts, of which clients read now this one and now that. Taking each
// read that finds the entry for a hit would make every sequential reader of 4 KiB look like sixteen readers of
// a block of 64 KiB, and read-ahead look like a second reader. So an entry knows which parts were seen since its
// count last rose, and the count rises when one of these is seen again: once per pass over the block, whatever
// the size of the reads.
//
// Change two: an entry weighs what it holds, as blocks are filled piece by piece. All bounds are in bytes.
//
// # Between vDisks: quotas and shares
//
// An Account is what one vDisk has in the cache. Its quota is a bound that it never exceeds: it evicts its own
// first. The sum of quotas may exceed the cache; then each has a share of the cache in proportion to its quota,
// and when all is full the account furthest above its share gives first. Shares that nobody uses are lent.
//
// That alone would let a scan by a vDisk with a large share take what others borrowed, block for block, for data
// that nobody reads twice. So when all is full, an account takes from others only for main: what it has in small
// beyond a tenth of its share it takes from itself.
//
// An account whose vDisk has gone keeps its entries, has no share and gives first; who hits an entry of it
// takes the entry over. When the vDisk comes back it finds its account as it is.
package policy
