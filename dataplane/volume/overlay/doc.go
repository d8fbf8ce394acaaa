// Package overlay is what the journal holds of a vDisk and the backend does not yet: block address to
// page in RAM or place in the journal, plus trimmed and zeroed ranges, newest version of each.
//
// It is a list of batches. The open batch takes writes; once it is worth a SCO it is closed, waits for
// its turn and is sealed; when its SCO is committed and applied to the map the whole batch is dropped.
//
// One table for all would need a deletion per block when a SCO is done, and a check there whether a
// newer version took its place. Tables per batch need neither: the newest batch that knows a block
// wins, a done batch is dropped as a whole, and a closed batch is immutable but while the goroutine that
// seals it waits for the loop, so that one reads its entries without a lock. A lookup asks three or four
// small tables instead of one large.
//
// Entries hold no Go pointers: the collector never walks them. An Overlay belongs to its vDisk's loop.
package overlay
