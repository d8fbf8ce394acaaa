package journal

import "vstor/dataplane/errs"

// FailWaiting ends every entry that waits for space with kind: its caller decided that they waited long
// enough. What is under way, and copies, are left alone; while something is, nothing is ended, so that
// entries keep ending in order. Entries without payload that only stood behind the others go on, if there is room for
// them. It calls JournalDone before it returns. Loop only.
//
// They are back in line before anybody hears of an end: who does may append at once, and what he appends has a higher
// sequence than they have.
func (j *Journal) FailWaiting(kind errs.Kind) {
	if j.stalled == 0 || j.ended+1 != j.next {
		return
	}
	j.stalled = 0
	spare := j.segs.admits(false) && j.segs.room(false, false) > 0
	var failed entryList
	j.partWaiting(&j.queue, &failed, spare)
	j.partWaiting(&j.aside.entryList, &failed, spare)
	j.endAll(&failed, kind)
}

// partWaiting moves the entries of a line to failed, and if spare is true those without payload to the line of all.
func (j *Journal) partWaiting(line, failed *entryList, spare bool) {
	for list := line.take(); list.head != nil; {
		if e := list.pop(); spare && e.payload() == 0 {
			j.queue.push(e)
		} else {
			failed.push(e)
		}
	}
}

func (j *Journal) endAll(failed *entryList, kind errs.Kind) {
	for failed.head != nil {
		j.end(failed.pop(), kind)
	}
	j.wake()
}
