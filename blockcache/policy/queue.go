package policy

// queue is a FIFO of entries through their own links.
type queue struct {
	head, tail Entry // newest, oldest
	bytes      int64
}

// push puts an entry that is in no queue at the head of one of its account's. Its weight goes along.
func (p *Policy) push(e Entry, which int) {
	en := &p.entries[e]
	q := &p.accounts[en.acct].queues[which]
	en.queue = uint8(which)
	en.older, en.newer = q.head, 0
	if q.head != 0 {
		p.entries[q.head].newer = e
	} else {
		q.tail = e
	}
	q.head = e
	q.bytes += int64(en.weight)
}

// unlink takes an entry out of its queue.
func (p *Policy) unlink(e Entry) {
	en := &p.entries[e]
	q := &p.accounts[en.acct].queues[en.queue]
	if en.newer != 0 {
		p.entries[en.newer].older = en.older
	} else {
		q.head = en.older
	}
	if en.older != 0 {
		p.entries[en.older].newer = en.newer
	} else {
		q.tail = en.newer
	}
	q.bytes -= int64(en.weight)
}
