// Package journal is the write buffer: a direct-IO log where a write becomes durable before it is
// acknowledged. One Journal serves all vDisks of a loop.
//
//	root A | .. | root B | .. | segment 0 | segment 1 | ... | segment n-1
//	0           512 KiB        1 MiB
//
//	segment: record | record | ... | unused          (a record never crosses a segment's end)
//	record:  header block | payload blocks           (one WriteV; root.go and record.go draw the bytes)
//
// Everything that was appended in a pass of the loop leaves in one record: group commit. A few records
// are under way at once; their ends are told in order. Segments are used as a ring. What frees them is
// Committed (the volume's SCO is on the backend), or Moved (copied forward), and then a durable root.
//
// # What replay accepts
//
// Replay starts at the root's tail and takes record after record. Record n lies right behind record n-1 or
// at the start of the next segment; its number, uuid, position and lap must be the expected ones, its
// header names the checksum of header n-1, and each block of payload must match its checksum. The log
// ends at the first n for which there is none.
//
// Nothing acknowledged is lost. Entries are acknowledged when their record and all before it have
// completed, so a hole at n means that nothing from n on was acknowledged, unless power was lost or bits
// have rotted. On power loss what was synced is there: an fdatasync covers what had completed when it
// began, so everything up to it is without holes. Space is overwritten only when a root that has left it
// behind is durable in both copies, and that root was written after an fdatasync of everything
// that made it superfluous (rootWriter), so no older tail is ever needed.
//
// Nothing torn is accepted: header and payload are covered by checksums, block by block.
//
// Nothing stale is accepted. The danger: a life dies with records 10 (torn) and 11, 12 (complete, hence
// not acknowledged) behind 9; the next life writes its own 10, of the same size, and dies; then the old
// 11 lies in its place, with its number, and all checksums right. Three locks:
//
//   - The root holds the incarnation and First, the number its records begin with. From First on only
//     records of the last incarnation count, below it only earlier ones. Attach makes that durable, in both
//     copies, before it writes a record. So what a replay has once left out stays left out, even if it
//     was a slow write of a killed process that landed only later; and what it has delivered stays,
//     because Attach syncs it before the root calls it durable.
//   - The chain: the header of 11 names the checksum of the old header 10, which differs from the new
//     one's (another incarnation at least). Payload is chained through the checksums in the header. The
//     root names the checksum that record First-1 must have, which vouches for all before it. Where two
//     lives have each hung a record behind the same predecessor, in the two places it may have, the later
//     life's is taken (replayer.find).
//   - Number, lap and position: a record of an earlier lap has a lower number, and a misdirected one
//     another position.
//
// # Torn tail or rot
//
// A hole is a torn tail only if record n may have been incomplete, that is if nobody knows better. These
// know better:
//
//   - The root's durable mark, and the durable mark of each later header: records up to it were synced.
//   - If the machine has not been booted since the last life began, the complete mark of each later
//     header: records up to it had ended, and no power was lost since. (Across a boot it proves nothing:
//     a drive may lose completed writes that were not synced, in any order.)
//   - A clean root: nothing is missing.
//
// Later headers are looked for behind the hole by scanning (replayer.scan), under the same three locks
// but for the chain, which the hole has cut. If n must be there, the hole is rot: damaged payload under
// a good header is delivered with its blocks marked Bad, and the volume answers EIO for them until they
// are rewritten; a damaged header is refused with Corrupt, because nobody can say which blocks it
// held, and older versions of them must not be served.
//
// A bad block need not stay where it is, or it would hold its segment for as long as its volume is not
// sealed: it is copied forward as Lost, with the checksum it should have. Such an entry is Bad by what its
// header says, so its payload is no reason to take the record for torn.
//
// What stays undecided is rot in records behind the last mark, which are taken for a torn tail:
//
//   - after a kill without a boot, the last record and those that ended after it was issued (its header
//     vouches for what had ended by then): under load the records of the last moment, MaxInFlight at most;
//     after a second of silence none, since the keeper has left a mark;
//   - after power loss also those that were not synced, which the contract allows to be gone.
//
// Rot and the kill must fall within that moment of each other: later marks close it for ever.
//
// # Space
//
// Append may not enter the last Reserve segments; AppendCopy may. Copying the live entries of the tail
// segment forward takes no more space than they took there, if the record boundaries fall as well, and
// frees that segment: with one segment in reserve a few blocks can always be moved, with two a full
// segment can, however badly its entries pack. When the head stands inside the reserve, Append waits,
// so that the reserve is not eaten by those it is to free. Of the last segment before the reserve a few blocks are for
// entries without payload: with drives and log full a trim is what frees both.
//
// # Who calls
//
// Create, Open and Replay block: any goroutine but a loop's. From Attach on the Journal belongs to the
// loop. Reading order: root.go and record.go (formats), entry.go, append.go, half.go, brake.go, giveup.go,
// complete.go (an entry's way), sync.go, habit.go, segments.go, rootwriter.go, keeper.go, close.go, then replay.go.
package journal
