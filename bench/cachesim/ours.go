package cachesim

import (
	"math/bits"

	"vstor/blockcache/policy"
	"vstor/dataplane/ids"
)

func popcount(x uint64) int { return bits.OnesCount64(x) }

// ours is the policy of the block cache, with one vDisk.
type ours struct {
	size
	pol   *policy.Policy
	acct  policy.Account
	parts []uint64 // by entry
}

func newOurs(s size) (*ours, error) {
	o := &ours{size: s}
	n := int(s.capacity/(s.part+s.entry)) + 1
	var err error
	if o.pol, err = policy.New(policy.Options{Bytes: s.capacity, Entries: n, Owner: o}); err != nil {
		return nil, err
	}
	o.acct = o.pol.Open(1, policy.Unlimited)
	o.parts = make([]uint64, n+1)
	return o, nil
}

// Evicted is the policy's.
func (o *ours) Evicted(e policy.Entry, _ bool) { o.parts[e] = 0 }

// access does what blockcache does with a read.
func (o *ours) access(object, parts uint64) uint64 {
	k := policy.Key{NS: ids.NamespaceID(object >> 32), SCO: 1, Block: uint32(object)}
	e := o.pol.Find(k)
	if e == 0 {
		if e = o.pol.Insert(o.acct, k, uint32(o.entry+int64(popcount(parts))*o.part), parts); e != 0 {
			o.parts[e] = parts
		}
		return 0
	}
	found := o.parts[e] & parts
	if found != 0 {
		o.pol.Touch(o.acct, e, parts)
	}
	fresh := parts &^ found
	if fresh != 0 && o.pol.Grow(e, uint32(int64(popcount(fresh))*o.part), fresh) {
		o.parts[e] |= fresh
	}
	return found
}
