package journal

import (
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// aside is the line of a volume that pins more than half of what Append can fill: it goes when nobody else waits.
//
//	queue  b1 c1 b2 ...      all others, in the order in which they came
//	aside  a7 a8 a9 ...      one volume's; behind all of queue
//
// In one line for all, whoever comes most often gets most of the space that comes back. Where that volume gives
// nothing back, as its SCOs cannot be stored or applied, it has all of the log in the end.
// More than one volume can hardly pin more than half, and if two do, by a segment's share of the reserve, the second
// is not set aside: its entries would be in a line behind another's.
type aside struct {
	entryList
	vol   ids.VolumeID // whose they are; while there are any
	since int64        // loop time at which one last left, or the first came
}

// lineOf is where an entry of a volume is to wait. What stands aside has all that its volume appends later behind it.
func (j *Journal) lineOf(vol ids.VolumeID) *entryList {
	switch a := &j.aside; {
	case a.head != nil:
		if vol == a.vol {
			return &a.entryList
		}
	case j.segs.filled() > 0.5 && j.tooMuch(vol):
		a.vol, a.since = vol, max(j.loop.Now(), 1)
		return &a.entryList
	}
	return &j.queue
}

func (j *Journal) tooMuch(vol ids.VolumeID) bool {
	bytes, _ := j.Usage(vol)
	return bytes > j.Half()
}

// rejoin puts what stands aside into the line of all, once its volume pins less.
func (j *Journal) rejoin() {
	if j.aside.head == nil || j.tooMuch(j.aside.vol) {
		return
	}
	for list := j.aside.take(); list.head != nil; {
		j.queue.push(list.pop())
	}
}

// first is the next entry of Append, nil if none waits.
func (j *Journal) first() *Entry {
	if j.queue.head != nil {
		return j.queue.head
	}
	return j.aside.head
}

// asideMost is how many blocks may leave aside in a record. What leaves makes the next wait where the brake is on, also
// others: they wait for one entry there, and not for a record full.
func (j *Journal) asideMost() uint32 {
	if len(j.segs.vols) > 1 && j.segs.filled() > brakeFrom {
		return MaxEntryBlocks
	}
	return uint32(j.opt.RecordBlocks)
}

// Aside is the loop's time since which a volume's entries wait because it pins more than half of the log and others
// wait, too; 0: none do. Stalled does not tell of them, for others get on.
func (j *Journal) Aside() int64 {
	if j.aside.head == nil {
		return 0
	}
	return j.aside.since
}

// FailAside ends what stands aside with kind, as FailWaiting does what has no space, and like it only if nothing of the
// volume is under way or in line before it: its entries keep ending in order. Loop only.
func (j *Journal) FailAside(kind errs.Kind) {
	if j.aside.head == nil || j.queue.has(j.aside.vol) {
		return
	}
	for n := j.ended + 1; n != j.next; n++ {
		if j.records[n%uint64(len(j.records))].entries.has(j.aside.vol) {
			return
		}
	}
	var failed entryList
	j.partWaiting(&j.aside.entryList, &failed, true)
	if j.first() == nil {
		j.stalled = 0 // nobody stands any more; whoever comes next waits from then on
	}
	j.endAll(&failed, kind)
}
