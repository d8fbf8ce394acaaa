package policy

import (
	"math/bits"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/invariants"
)

// Key names a cache block: the Block-th of an object, in units of the cache's block size.
type Key struct {
	NS    ids.NamespaceID
	SCO   ids.SCONum
	Block uint32
}

// Hash mixes a key: two rounds of multiply and fold. Nobody outside chooses keys, so it need not be secret.
func (k Key) Hash() uint64 {
	hi, lo := bits.Mul64(uint64(k.NS)^0x9e3779b97f4a7c15, (uint64(k.SCO)<<32|uint64(k.Block))^0xd6e8feb86659fd93)
	hi, lo = bits.Mul64(hi^lo^uint64(k.Block)<<17, 0xa0761d6478bd642f)
	return hi ^ lo
}

// Entry is the number of an entry; 0 is none. It stays the same until the entry leaves.
type Entry uint32

// Parts is how many parts of an entry are told apart at most: bits of a mask.
const Parts = 64

// entry is what is known of a cached block.
type entry struct {
	key    Key
	seen   uint64  // parts seen since freq last rose
	chain  Entry   // hash chain, or the free list
	older  Entry   // towards the tail of its queue, where entries leave
	newer  Entry   // towards the head
	acct   Account // whose it is; 0 = the entry is free
	weight uint32  // bytes
	queue  uint8
	freq   uint8
	last   uint8 // the highest part of the last read
}

const (
	entrySize = 48
	ghostSize = 16
	// EntryBytes is what an entry takes here, in bytes: itself, its ghost, and two hash tables at least half full.
	EntryBytes = entrySize + ghostSize + 2*8
)

// The queues of an account.
const (
	small = iota
	main
)

const freqMax = 3

// Owner has the data of the entries.
type Owner interface {
	// Evicted tells that e leaves: the owner drops its data. Key and account can still be asked for. proven
	// says that e was hit after it was filled. It must not call the Policy.
	Evicted(e Entry, proven bool)
}

// Options say what a Policy is made of.
type Options struct {
	Bytes   int64 // of all entries together
	Entries int   // how many at most
	Owner   Owner

	// SmallPercent is how much of an account's share the small queue gets. Default 10.
	SmallPercent int
	// PromoteAt is how many hits in small bring an entry into main. Default 2: being read twice within a short time
	// is common, and says little about a third. (1 gains half a point on the traces of bench/cachesim, and
	// loses main to everything that is copied and then verified.)
	PromoteAt int
}

func (o *Options) ensureDefaults() {
	if o.SmallPercent == 0 {
		o.SmallPercent = 10
	}
	if o.PromoteAt == 0 {
		o.PromoteAt = 2
	}
}

// Policy is the queues of all accounts of one cache. It belongs to one goroutine.
type Policy struct {
	opts    Options
	entries []entry // from 1
	heads   []Entry // hash table
	free    Entry
	unused  Entry // entries from here on were never used
	count   int
	used    int64
	ghosts  ghosts

	accounts []account // from 1
	byID     map[ids.VolumeID]Account
	gone     []Account // those without a vDisk
	pick     Account   // who gives, for pickLeft more evictions
	pickLeft int
}

// New makes an empty policy.
func New(o Options) (*Policy, error) {
	if o.Bytes <= 0 || o.Entries <= 0 || o.Entries >= 1<<31 || o.Owner == nil {
		return nil, errs.New(errs.Invalid, "blockcache: a policy of %d bytes and %d entries cannot be", o.Bytes, o.Entries)
	}
	o.ensureDefaults()
	p := &Policy{opts: o, unused: 1, accounts: make([]account, 1), byID: map[ids.VolumeID]Account{}}
	var err error
	if p.entries, err = NewTable[entry](o.Entries + 1); err == nil {
		p.heads, err = NewTable[Entry](1 << bits.Len(uint(o.Entries)))
	}
	if err == nil {
		err = p.ghosts.init(o.Entries)
	}
	if err != nil {
		p.Free()
		return nil, err
	}
	return p, nil
}

// Free gives the tables back. The owner is not told of entries.
func (p *Policy) Free() {
	FreeTable(p.entries)
	FreeTable(p.heads)
	p.ghosts.close()
	p.entries, p.heads = nil, nil
}

// Used is the weight of all entries in bytes, Count their number, Bytes the bound.
func (p *Policy) Used() int64  { return p.used }
func (p *Policy) Count() int   { return p.count }
func (p *Policy) Bytes() int64 { return p.opts.Bytes }

// Key is the key of an entry; AccountOf says whose it is.
func (p *Policy) Key(e Entry) Key           { return p.entries[e].key }
func (p *Policy) AccountOf(e Entry) Account { return p.entries[e].acct }

// Find looks a block up; 0 if it is not there. It is not a hit yet: see Touch.
func (p *Policy) Find(k Key) Entry {
	e := p.heads[k.Hash()&uint64(len(p.heads)-1)]
	for e != 0 && p.entries[e].key != k {
		e = p.entries[e].chain
	}
	return e
}

// Touch says that account a read these parts of e, and was served some of them. A read that begins in the part where
// the one before it ended, and goes on from there, is the same pass: readers of a stream need not be aligned.
func (p *Policy) Touch(a Account, e Entry, parts uint64) {
	en := &p.entries[e]
	again := en.seen & parts
	if again == 0 || again == 1<<en.last && parts&^en.seen != 0 {
		en.seen |= parts
	} else {
		en.seen = parts
		en.freq = min(en.freq+1, freqMax)
	}
	en.last = highest(parts)
	if en.acct != a && p.accounts[en.acct].gone {
		p.adopt(a, e)
	}
}

// Insert adds a block for account a and makes room for it; parts are those that were asked for, rather than read
// ahead. 0 means that there is no room. REQUIRES: Find(k) == 0.
func (p *Policy) Insert(a Account, k Key, bytes uint32, parts uint64) Entry {
	h := k.Hash()
	q := small
	if p.ghosts.take(h) {
		q = main
	}
	p.accounts[a].held = true // it may have to give its last entry for this one
	ok := p.makeRoom(a, q, int64(bytes), 0, true)
	p.accounts[a].held = false
	if !ok {
		return 0
	}
	e := p.newEntry()
	en := &p.entries[e]
	head := &p.heads[h&uint64(len(p.heads)-1)]
	*en = entry{key: k, seen: parts, chain: *head, acct: a, last: highest(parts)}
	*head = e
	p.count++
	p.accounts[a].entries++
	p.push(e, q)
	p.weigh(e, int64(bytes))
	return e
}

// Grow adds bytes to an entry, and makes room for them; parts as in Insert. False means that there is no room.
func (p *Policy) Grow(e Entry, bytes uint32, parts uint64) bool {
	en := &p.entries[e]
	if !p.makeRoom(en.acct, int(en.queue), int64(bytes), e, false) {
		return false
	}
	p.weigh(e, int64(bytes))
	if parts != 0 {
		en.seen |= parts
		en.last = highest(parts)
	}
	return true
}

// highest is the highest part of some; 0 of none.
func highest(parts uint64) uint8 { return uint8(max(bits.Len64(parts), 1) - 1) }

// Lose takes bytes from an entry: the owner dropped a part of it.
func (p *Policy) Lose(e Entry, bytes uint32) { p.weigh(e, -int64(bytes)) }

// Remove takes an entry out; the owner is not told.
func (p *Policy) Remove(e Entry) {
	en := &p.entries[e]
	a := en.acct
	at := &p.heads[en.key.Hash()&uint64(len(p.heads)-1)]
	for *at != e {
		at = &p.entries[*at].chain
	}
	*at = en.chain
	p.weigh(e, -int64(en.weight))
	p.unlink(e)
	*en = entry{chain: p.free}
	p.free = e
	p.count--
	p.accounts[a].entries--
	p.Retire(a)
}

// newEntry takes a free one. REQUIRES: there is one, see makeRoom.
func (p *Policy) newEntry() Entry {
	if e := p.free; e != 0 {
		p.free = p.entries[e].chain
		return e
	}
	e := p.unused
	p.unused++
	return e
}

// weigh books a change of an entry's weight.
func (p *Policy) weigh(e Entry, bytes int64) {
	en := &p.entries[e]
	acct := &p.accounts[en.acct]
	en.weight = uint32(int64(en.weight) + bytes)
	acct.queues[en.queue].bytes += bytes
	acct.used += bytes
	p.used += bytes
	if acct.used < 0 || p.used < 0 {
		invariants.Fail("blockcache: an account weighs %d bytes, all of them %d", acct.used, p.used)
	}
}
