// Package pracc is the Partial Read ACCelerator: it reads any range of blocks of an object from just
// the drives that hold it, and verifies every 4 KiB block on arrival.
//
//	Fetch ── manifest cached? ──no──> lookup: a goroutine asks Manifests, posts back
//	  │ yes                             │
//	  v                                 v
//	parts: the pieces of the range that lie in one fragment, at most 1 MiB each
//	  │  k=1: the replica that Options.Prefer likes best
//	  │  the Cache, if there is one and it has the fragment; if what it gives is no good, go on as without it
//	  │
//	  ├─ its ASD is out of the fast set, and k others are in it ──────────────┐   fastset.go
//	  v                                                                       │
//	  rangeRead, straight into the caller's pages > verify                    │   read.go
//	  │    drive here     Locate (RAM) > one read per extent                  │
//	  │    another process  Remote.ReadRange, where the ASD is ready;         │
//	  │                   else it is unreachable at once                      │
//	  │                                                                       │
//	  ├─ late: later than the ASD's p95, and hedges are to be had ─> shadow   │   hedge.go
//	  │          a part with pages of its own; the first to be verified wins, │
//	  │          and if that is the shadow the pages change places ──> done   │
//	  ├─ all blocks match ───────────────────────────────────────────> done   │
//	  v absent, IO error, or some blocks do not match: only those             │
//	  are rebuilt                     <───────────────────────────────────────┘
//	rebuild steps: at most 64 blocks; the same range of k other fragments into scratch pages, those of
//	  │  the fast set, near and quick first; for one that is late another is read
//	  │  > reconstruct > verify against the caller's checksums > other combinations
//	  ├─ all match ───────────────────────────────────────────────> done
//	  v
//	its own read, if it was left out: slow is better than not at all
//	  │
//	  v
//	the fetch has failed: its manifest is asked for once more; if it changed, the whole fetch is done
//	again with it (thrice at most)
//	  │
//	  ├─ too few ASDs answered: it rests a moment and begins anew, for Options.Patience at most
//	  v
//	the caller gets the kind of the failure
//
// # Who may call
//
// A Client belongs to one loop. Every method but the statistics is called on that loop, and
// completions come on it. Nothing blocks: the goroutines that ask for manifests and the workers that
// do large rebuilds post back to the loop's inbox.
//
// # Bounds
//
//   - Options.Ranges parts are under way at most; further fetches wait in order in a list that runs
//     through the Fetch structs themselves, so it costs nothing. A fetch that needs more parts than are
//     free takes what there is and goes on when parts return. A part never waits for another part but its
//     shadow, which has all its pages when it begins.
//   - Options.Rebuilds rebuild steps are under way at most, on Options.ScratchBytes of pages together.
//     A step takes its slot and all its pages at once or waits holding nothing. The first in line
//     may always go when no other is under way: if the pool has no page left it works block by block in a
//     few pages that the Client kept back when it was made. So rebuilds never deadlock.
//   - Options.CacheBytes of manifests; Options.Lookups goroutines that ask for them;
//     Options.Workers goroutines that rebuild.
//   - Hedges are at most Options.HedgePercent of the parts read, and die out when they do not win.
//   - At most Options.Combinations combinations of sources are tried for a block.
//
// # What waits for a drive that does not answer
//
// Nothing that could go on without it. The part has its bytes by way of a shadow, a rebuild by way of another
// source; what is left of the read is stuck: it keeps the pages that it was given, in a list of its own, until the
// kernel has let go of them. Stuck reads are bounded by Options.StuckReads and StuckBytes, which also cover the
// pages of shadows. At the bound, or with fewer than k others to read, a fetch waits for its drive, as long as
// Options.ReadTimeout, and ends with Unreachable. Close calls off what it can and waits a second for the rest.
//
// # One range a message
//
// A Remote is asked for one range at a time, though the protocol could take several. All requests of a pass leave
// in one send anyway, so a message saves little; but its ranges are answered together, when the last of them is read,
// and called off together: the slowest would decide for all, and a hedge could not tell which of them is late.
package pracc
