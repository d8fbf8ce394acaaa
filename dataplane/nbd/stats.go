package nbd

import (
	"sync/atomic"

	"vstor/dataplane/stat"
)

// Stats is what a server did since it was made. Figures read together may be a few requests apart.
type Stats struct {
	Connections      int64  // in handshake or transmission now
	Accepted         uint64 // connections that were let in
	Refused          uint64 // closed at once: MaxConnections
	HandshakesFailed uint64 // ended by an error, the deadline or a broken protocol
	Handshaken       uint64 // reached transmission
	Overloaded       uint64 // closed: LoopStashBytes
	Stalled          uint64 // closed: StallTimeout while others waited
	BadPeers         uint64 // closed in transmission: broken protocol, or silence in mid-request

	Requests     [CmdBlockStatus + 1]uint64 // by Command; unknown ones are errors only
	Errors       uint64                     // requests answered with an error
	ReadBytes    uint64                     // payload sent
	WrittenBytes uint64                     // payload handed to devices
	CopiedBytes  uint64                     // payload and stashed bytes copied in user space
	Waits        uint64                     // times a connection had to wait for memory of its loop
}

// counters of one loop: written there, read anywhere.
type counters struct {
	requests     [CmdBlockStatus + 1]stat.Counter
	errors       stat.Counter
	readBytes    stat.Counter
	writtenBytes stat.Counter
	copiedBytes  stat.Counter
	waits        stat.Counter
	overloaded   stat.Counter
	stalled      stat.Counter
	badPeers     stat.Counter
}

// serverCounters have many writers, for what happens once per connection.
type serverCounters struct {
	connections atomic.Int64
	accepted    stat.Shared
	refused     stat.Shared
	failed      stat.Shared
	handshaken  stat.Shared
}

// Stats sums up over all loops. Any goroutine.
func (s *Server) Stats() Stats {
	st := Stats{
		Connections:      s.counts.connections.Load(),
		Accepted:         s.counts.accepted.Load(),
		Refused:          s.counts.refused.Load(),
		HandshakesFailed: s.counts.failed.Load(),
		Handshaken:       s.counts.handshaken.Load(),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sh := range s.shares {
		c := &sh.counts
		for i := range c.requests {
			st.Requests[i] += c.requests[i].Load()
		}
		st.Errors += c.errors.Load()
		st.ReadBytes += c.readBytes.Load()
		st.WrittenBytes += c.writtenBytes.Load()
		st.CopiedBytes += c.copiedBytes.Load()
		st.Waits += c.waits.Load()
		st.Overloaded += c.overloaded.Load()
		st.Stalled += c.stalled.Load()
		st.BadPeers += c.badPeers.Load()
	}
	return st
}
