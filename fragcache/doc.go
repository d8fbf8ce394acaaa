// Package fragcache keeps whole fragments on an SSD, nearer than their ASDs. It is filled when objects are put
// and, if asked to, when the same fragment is read again and again; PRACC and the proxy ask it before an ASD.
// Losing any of it, or all, costs reads and nothing else.
//
//	superblock A | .. | superblock B | .. | segment 0 | segment 1 | ... | segment n-1
//	0                 32 KiB              64 KiB
//
//	segment: header, payload | header, payload | ... | unused | footer    (header.go and footer.go draw the bytes)
//
//	Room, Fill    a fragment is copied into a buffer; the writer appends it to the open segment, then publishes it
//	Locate        RAM only: which bytes of the file; a pin keeps the segment from being written again
//	Get           the same for who may block, verified against the sums in the fragment's header
//
// # Why a log
//
// Fragments of all sizes come and go. Files, or an allocator of extents, must find room for each new one and
// evict as many old ones as it takes; fragmented, that needs ever more of them, and the fill waits. Here space
// is given and taken by whole segments, written front to back. Evicting one is an affair of RAM, and as it
// frees as much at a time as dozens of fills take, eviction cannot fall behind. A fill never waits either:
// it finds one of a few buffers free or is dropped and counted, so a slow SSD slows no put.
//
// The writer keeps a few segments free ahead. To get one it takes the oldest, with second chances on two scales:
//
//   - A segment of which more than half deserves to stay goes to the end of the line as it is, without IO.
//     What was read since loses that mark, so one round finds a victim, and an end.
//   - Of the victim, at most half is filed again, into the open segment: what belongs to a vDisk below its
//     share; then what was read. So at least half of what is written is new: the price of the second chance is
//     bounded, and paid by the writer alone. If some victims in a row brought no room, the next get none.
//
// # Quotas and shares
//
// A vDisk (a namespace) has a quota, its own or the default; what would exceed it pushes out the oldest
// fragments of the same vDisk at once, and so does a smaller quota while IO runs. The space they leave in their
// segments is dead until those are evicted. The sum of quotas may exceed the cache. Then a vDisk's share is its
// part of the cache by quota, and what is within a share survives eviction as said above; beyond the shares the
// age decides.
//
// # Why nothing stale or rotten comes out
//
// A key names one content for ever (layout.FragKey), so there is nothing to invalidate; deleting an object only
// gives room back early. What lies in the file is verified by whoever reads it: PRACC by the checksum of each
// block, Get by the sums of the regions, which must be those that the manifest vouches for, and the writer
// before it files a fragment again. A mismatch or an IO error drops the entry, the read goes on to the ASD,
// whose fragment is not accused of anything, and the fragment is asked for anew. So the file needs no fdatasync:
// after a power loss the index may name what never reached the SSD, and finds out when it reads.
//
// # Restart
//
// A sealed segment ends with a footer that lists its fragments: Open reads one per segment. A footer is older
// than the segment's first header where the segment was written anew; then, and behind the last fragment that a
// footer lists, Open walks from header to header and verifies the payloads too, which concerns the open
// segment of a crash and no other. Entries dropped before a restart come back with it, rotten ones too: they are
// in the file, and are found out again. Generation, segment, place and the file's UUID are in each
// header, so nothing of an earlier lap, of another file or from a misdirected write is taken.
//
// # A slow cache
//
// A cache slower than the ASDs is worse than none. Readers report how long reads took on either side; the minder
// compares each tenth of a second, and has the cache bypassed while it is slower, fails, or does not answer. It
// then times reads of its own, which no client waits for, and ends the bypass when they are fast. Where
// everything hits, one read a tick is sent to an ASD, so that there is something to compare with.
//
// # Who may call
//
// A Reader belongs to one loop and never blocks: it takes the mutex of one of 64 parts of the index for a
// map access, and none that is held across IO. All else is for goroutines. Lock order: Cache.mu, then a part's.
//
// # Bounds
//
//	Options.BufferBytes    fills under way; more are dropped
//	Options.EntriesMax     fragments; more evict the oldest segment
//	getScratches           verified reads under way; more are misses
//	wantedMax              fragments that wait to be fetched for reads; more are dropped
//	one buffer             for filing again
//
// Start reading at cache.go, then fill.go, segment.go, evict.go.
package fragcache
