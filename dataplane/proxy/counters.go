package proxy

import "sync/atomic"

type counter = atomic.Int64

// counters are bumped from many goroutines, but per fragment and not per block.
type counters struct {
	puts, putBytes, putsFailed, putRetries, putsDegraded         counter
	fragsWritten, fragBytes, fragsFailed, fragsLate, codingNanos counter
	commits, commitsRefused, amends, amendConflicts              counter
	gets, getBytes, fragsRebuilt, corrupt                        counter
	condemned, garbage, deleted, deletesLeft, repaired, adopted  counter
	lacking                                                      counter
}

// Counters is a snapshot; all but the gauges only grow.
type Counters struct {
	Puts           int64 // put to enough ASDs
	PutBytes       int64 // object bytes of those
	PutsFailed     int64 // given up
	PutRetries     int64 // attempts after a first one that failed
	PutsDegraded   int64 // accepted with fragments missing
	FragsWritten   int64
	FragBytes      int64 // payload bytes of those
	FragsFailed    int64 // writes that an ASD did not do
	FragsLate      int64 // writes that ended after their put had gone on
	CodingNanos    int64 // time of the workers: gather, code, hash
	Commits        int64
	CommitsRefused int64
	Amends         int64
	AmendConflicts int64
	Gets           int64
	GetBytes       int64
	FragsRebuilt   int64 // fragments, or ranges of one, computed from others
	Corrupt        int64 // fragments that failed a checksum
	Condemned      int64 // put ids
	Garbage        int64 // fragments deleted that no manifest named
	Deleted        int64 // objects
	Repaired       int64 // fragments written again
	Adopted        int64 // missing fragments that were found at their place after all
	Lacking        int64 // fragments that an audit found their ASD not to have

	DeletesLeft int64 // gauge: objects whose deletion waits for an ASD
	BuffersOut  int64 // gauge: fragment buffers in use
	Lagging     int64 // gauge: fragment writes that their put no longer waits for
}

// Counters takes a snapshot.
func (px *Proxy) Counters() Counters {
	c := &px.count
	return Counters{
		Puts: c.puts.Load(), PutBytes: c.putBytes.Load(), PutsFailed: c.putsFailed.Load(),
		PutRetries: c.putRetries.Load(), PutsDegraded: c.putsDegraded.Load(),
		FragsWritten: c.fragsWritten.Load(), FragBytes: c.fragBytes.Load(), FragsFailed: c.fragsFailed.Load(),
		FragsLate: c.fragsLate.Load(), CodingNanos: c.codingNanos.Load(),
		Commits: c.commits.Load(), CommitsRefused: c.commitsRefused.Load(),
		Amends: c.amends.Load(), AmendConflicts: c.amendConflicts.Load(),
		Gets: c.gets.Load(), GetBytes: c.getBytes.Load(), FragsRebuilt: c.fragsRebuilt.Load(),
		Corrupt: c.corrupt.Load(), Condemned: c.condemned.Load(), Garbage: c.garbage.Load(),
		Deleted: c.deleted.Load(), Repaired: c.repaired.Load(), Adopted: c.adopted.Load(),
		Lacking:     c.lacking.Load(),
		DeletesLeft: c.deletesLeft.Load(), BuffersOut: int64(px.mem.out()), Lagging: px.lagging(),
	}
}
