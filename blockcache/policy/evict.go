package policy

// pickRun is how many evictions in a row one account gives before it is looked again who is furthest above its
// share: the look goes over all accounts.
const pickRun = 16

// makeRoom evicts until bytes more fit into queue q of account a, and, with fresh, an entry more. keep stays. False
// means that they cannot fit.
func (p *Policy) makeRoom(a Account, q int, bytes int64, keep Entry, fresh bool) bool {
	acct := &p.accounts[a]
	if bytes > min(acct.quota, p.opts.Bytes) {
		return false
	}
	for acct.used+bytes > acct.quota {
		if !p.evictOne(a, keep) {
			return false
		}
	}
	for p.used+bytes > p.opts.Bytes || fresh && p.count == p.opts.Entries {
		if !p.evictOne(p.victim(a, q, bytes, keep), keep) {
			return false
		}
	}
	return true
}

// victim says who gives so that account a can have bytes more in queue q.
func (p *Policy) victim(a Account, q int, bytes int64, keep Entry) Account {
	if len(p.gone) > 0 && p.evictable(p.gone[0], keep) {
		return p.gone[0]
	}
	acct := &p.accounts[a]
	if q == small && !acct.gone && acct.queues[small].bytes > p.smallMax(acct) && p.evictable(a, keep) {
		return a
	}
	if p.pickLeft > 0 && p.pick != 0 {
		if v := &p.accounts[p.pick]; v.used > v.share && p.evictable(p.pick, keep) {
			p.pickLeft--
			return p.pick
		}
	}
	p.pick, p.pickLeft = p.furthest(a, bytes, keep), pickRun
	return p.pick
}

// furthest finds the account that is furthest above its share, counting what a is about to add.
func (p *Policy) furthest(a Account, bytes int64, keep Entry) Account {
	best, over := Account(0), int64(0)
	for i := 1; i < len(p.accounts); i++ {
		v := &p.accounts[i]
		if !v.open || !p.evictable(Account(i), keep) {
			continue
		}
		d := v.used - v.share
		if Account(i) == a {
			d += bytes
		}
		if best == 0 || d > over {
			best, over = Account(i), d
		}
	}
	return best
}

// evictable reports whether an account has an entry other than keep.
func (p *Policy) evictable(a Account, keep Entry) bool {
	n := p.accounts[a].entries
	return n > 1 || n == 1 && (keep == 0 || p.entries[keep].acct != a)
}

// evictOne makes account a give one entry other than keep. Each turn takes an entry out, lowers a count, or moves an
// entry from small to main, so it ends; and each count lowered was a hit.
func (p *Policy) evictOne(a Account, keep Entry) bool {
	if !p.evictable(a, keep) {
		return false
	}
	acct := &p.accounts[a]
	for {
		q := main
		if acct.queues[small].bytes > p.smallMax(acct) {
			q = small
		}
		e := p.oldest(acct, q, keep)
		if e == 0 {
			e = p.oldest(acct, small+main-q, keep)
		}
		en := &p.entries[e]
		switch {
		case en.queue == main && en.freq > 0:
			en.freq--
			p.unlink(e)
			p.push(e, main)
		case en.queue == small && int(en.freq) >= p.opts.PromoteAt:
			en.freq = 0
			p.unlink(e)
			p.push(e, main)
		default:
			if en.queue == small && !acct.gone {
				p.ghosts.add(&acct.ghosts, en.key.Hash(), p.ghostMax(acct))
			}
			p.opts.Owner.Evicted(e, en.queue == main || en.freq > 0)
			p.Remove(e)
			return true
		}
	}
}

func (p *Policy) oldest(a *account, q int, keep Entry) Entry {
	e := a.queues[q].tail
	if e != 0 && e == keep {
		e = p.entries[e].newer
	}
	return e
}

// ghostMax is how many ghosts an account keeps: as many as entries of mean weight fill its share.
func (p *Policy) ghostMax(a *account) int {
	if p.used == 0 {
		return 0
	}
	return max(16, int(float64(a.share)/float64(p.used)*float64(p.count)))
}

// Trim evicts what account a has above its quota, n entries at most, and reports whether all of that is gone.
func (p *Policy) Trim(a Account, n int) bool {
	acct := &p.accounts[a]
	for ; acct.used > acct.quota && n > 0; n-- {
		if !p.evictOne(a, 0) {
			return true
		}
	}
	return acct.used <= acct.quota
}

// Evict makes whoever should give one entry; false if there is none. The owner wants memory back.
func (p *Policy) Evict() bool {
	if p.count == 0 {
		return false
	}
	return p.evictOne(p.victim(0, main, 0, 0), 0)
}
