package remote

// front is how far look-ups have got for somebody who reads on. They go before him. If he had to miss a group for the
// ones behind it to be looked up, then, with several requests under way, one read in three would be answered by the
// router: twice the way, and what comes so is in no cache, since nobody knows yet where it lies.
//
// It is a step function, and knows one stream. A second one costs misses.
type front struct {
	next   group // the first group behind those that were looked up
	stream bool  // somebody reads on
}

// aheadGroups is how many groups are looked up before a reader: 8 MiB. One look-up for each group is what he costs in
// any case.
const aheadGroups = 8

// missed is told of groups in which a read missed a block, and says up to which one to look up. Who misses close to the
// front reads on.
func (f *front) missed(first, last group) group {
	f.stream = first <= f.next && f.next <= last+2*aheadGroups // he may miss a group more than once
	if !f.stream {
		f.next = last + 1
		return last
	}
	last += aheadGroups
	f.next = max(f.next, last+1)
	return last
}

// passed is told of the last group of a read that missed nothing, and says which ones to look up: [from, end), mostly
// none. It is half the way that a reader is let come closer, so that look-ups are sent several at a time.
func (f *front) passed(last group) (from, end group) {
	if !f.stream || last >= f.next || last+aheadGroups/2 < f.next {
		return 0, 0
	}
	from, f.next = f.next, max(f.next, last+aheadGroups+1)
	return from, f.next
}
