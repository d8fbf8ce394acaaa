package policy

import (
	"math"
	"slices"

	"vstor/dataplane/ids"
)

// Account is the number of an account; 0 is none.
type Account uint32

// Unlimited is a quota that bounds nothing.
const Unlimited = math.MaxInt64

// account is what one vDisk has in the cache.
type account struct {
	id      ids.VolumeID
	open    bool // the slot is in use
	gone    bool // its vDisk is not here
	quota   int64
	share   int64 // of the whole, in proportion to the quota, if all want theirs
	used    int64
	entries int
	held    bool // Insert makes room for it
	queues  [2]queue
	ghosts  line
}

// smallMax is how many bytes of small an account keeps when room is wanted.
func (p *Policy) smallMax(a *account) int64 { return a.share * int64(p.opts.SmallPercent) / 100 }

// Open makes the account of a vDisk, or finds it again as the vDisk left it.
func (p *Policy) Open(id ids.VolumeID, quota int64) Account {
	a := p.Departed(id)
	acct := &p.accounts[a]
	acct.gone = false
	p.listGone(a, false)
	acct.quota = quota
	p.reshare()
	return a
}

// Departed finds the account of a vDisk, or makes one as of a vDisk that has gone: for entries found on a drive
// after a restart. It is forgotten with its last entry.
func (p *Policy) Departed(id ids.VolumeID) Account {
	if a, ok := p.byID[id]; ok {
		return a
	}
	a := Account(0)
	for i := 1; i < len(p.accounts) && a == 0; i++ {
		if !p.accounts[i].open {
			a = Account(i)
		}
	}
	if a == 0 {
		a = Account(len(p.accounts))
		p.accounts = append(p.accounts, account{})
	}
	p.accounts[a] = account{id: id, open: true, gone: true, quota: Unlimited}
	p.byID[id] = a
	p.listGone(a, true)
	return a
}

// Close says that the vDisk of an account has gone.
func (p *Policy) Close(a Account) {
	acct := &p.accounts[a]
	acct.gone, acct.quota = true, Unlimited
	p.listGone(a, true)
	p.reshare()
	p.Retire(a)
}

// Retire forgets an account that has gone and is empty. It does so by itself with the last entry; who asked Departed
// for an account and put nothing into it calls it.
func (p *Policy) Retire(a Account) {
	acct := &p.accounts[a]
	if !acct.gone || acct.entries > 0 || acct.held {
		return
	}
	p.ghosts.orphan(&acct.ghosts)
	delete(p.byID, acct.id)
	p.listGone(a, false)
	*acct = account{}
}

// listGone puts an account at the end of the list of those without a vDisk, or takes it off. The first gives first.
func (p *Policy) listGone(a Account, on bool) {
	if on {
		p.gone = append(p.gone, a)
		return
	}
	if i := slices.Index(p.gone, a); i >= 0 {
		p.gone = slices.Delete(p.gone, i, i+1)
	}
}

// SetQuota changes a quota. What is above it is evicted by Trim, and by whatever the account fills.
func (p *Policy) SetQuota(a Account, quota int64) {
	p.accounts[a].quota = quota
	p.reshare()
}

// ID names the vDisk of an account.
func (p *Policy) ID(a Account) ids.VolumeID { return p.accounts[a].id }

// AccountUsed is the weight of an account's entries in bytes, Share what it has a right to, Quota its bound.
func (p *Policy) AccountUsed(a Account) int64 { return p.accounts[a].used }
func (p *Policy) Share(a Account) int64       { return p.accounts[a].share }
func (p *Policy) Quota(a Account) int64       { return p.accounts[a].quota }

// reshare divides the cache anew: to each its quota, or its proportion if that is more than there is.
func (p *Policy) reshare() {
	sum := 0.0
	for i := range p.accounts {
		if a := &p.accounts[i]; a.open && !a.gone {
			sum += float64(min(a.quota, p.opts.Bytes))
		}
	}
	scale := 1.0
	if all := float64(p.opts.Bytes); sum > all {
		scale = all / sum
	}
	for i := range p.accounts {
		a := &p.accounts[i]
		a.share = 0
		if a.open && !a.gone {
			a.share = int64(scale * float64(min(a.quota, p.opts.Bytes)))
		}
	}
	p.pickLeft = 0
}

// adopt gives an entry whose owner has gone to who hit it: straight into main.
func (p *Policy) adopt(a Account, e Entry) {
	en := &p.entries[e]
	to := &p.accounts[a]
	if to.gone || to.used+int64(en.weight) > to.quota {
		return
	}
	old, w := en.acct, int64(en.weight)
	p.unlink(e)
	p.accounts[old].used -= w
	p.accounts[old].entries--
	en.acct = a
	to.used += w
	to.entries++
	p.push(e, main)
	p.Retire(old)
}
