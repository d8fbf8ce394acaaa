// Package pracc is the Partial Read ACCelerator: it reads any range of blocks of an object from just
// the drives that hold it, and verifies every 4 KiB block on arrival.
//
//	Fetch ── manifest cached? ──no──> lookup: a goroutine asks Manifests, posts back
//	  │ yes                             │
//	  v                                 v
//	parts: the pieces of the range that lie in one fragment, at most 1 MiB each
//	  │  the Cache, if there is one and it has the fragment; if what it gives is no good, go on as without it
//	  │  rangeRead, straight into the caller's pages > verify
//	  │    drive here     Locate (RAM) > one read per extent
//	  │    another process  Remote.ReadRange, where the ASD is ready; else it is unreachable at once
//	  │
//	  ├─ all blocks match ────────────────────────────────────────> done
//	  v absent, IO error, or some blocks do not match: only those are rebuilt
//	rebuild steps: at most 64 blocks; the same range of k other fragments into scratch pages
//	  │  > reconstruct > verify against the caller's checksums > other combinations
//	  ├─ all match ───────────────────────────────────────────────> done
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
//     free takes what there is and goes on when parts return. A part never waits for another part.
//   - Options.Rebuilds rebuild steps are under way at most, on Options.ScratchBytes of pages together.
//     A step takes its slot and all its pages at once or waits holding nothing. The first in line
//     may always go when no other is under way: if the pool has no page left it works block by block in a
//     few pages that the Client kept back when it was made. So rebuilds never deadlock.
//   - Options.CacheBytes of manifests; Options.Lookups goroutines that ask for them;
//     Options.Workers goroutines that rebuild.
//   - At most Options.Combinations combinations of sources are tried for a block.
//
// # What a later stage hangs in where
//
// target is what the Client knows of one ASD, and rangeRead is the one step that touches a drive or a
// Remote: a hedge (a rebuild that is started before the part's own read has ended) goes there and changes
// nothing above.
package pracc
