package server

import (
	"vstor/asd/proto"
	"vstor/dataplane/stat"
	"vstor/dataplane/wire"
)

// Stats is what a server did since it was made. Figures read together may be a few requests apart.
type Stats struct {
	Connections      int64  // after the handshake, now
	Refused          uint64 // closed at once: MaxConnections
	HandshakesFailed uint64
	Evicted          uint64 // of them: a newer handshake took the place
	Stalled          uint64 // closed: StallTimeout while others waited
	Idle             uint64 // closed: IdleTimeout
	BadPeers         uint64 // closed: broken protocol, or an end in the middle of a request
	Silent           uint64 // closed: nothing moved in the middle of a frame
	Overloaded       uint64 // closed: no memory for what it had sent while it waited

	Requests      [proto.TypesEnd + 1]uint64 // by type; the last is for unknown ones
	Errors        uint64                     // requests answered with an error
	Reads         uint64                     // ranges read from the drive
	RangeErrors   uint64                     // ranges answered with an error
	ReadErrors    uint64                     // of reads of the drive
	SentBytes     uint64                     // of data
	ReceivedBytes uint64
	CopiedBytes   uint64 // of data, in user space
	Stalls        uint64 // times a connection had to wait
	Located       uint64 // fragments located for peers that read the drive themselves
	Forgets       uint64 // messages that told them of deletes
}

// counters are written on the loop, read anywhere.
type counters struct {
	connections   stat.Gauge
	requests      [proto.TypesEnd + 1]stat.Counter // the last is for unknown types
	errors        stat.Counter
	reads         stat.Counter
	rangeErrors   stat.Counter
	readErrors    stat.Counter
	sentBytes     stat.Counter
	located       stat.Counter
	forgets       stat.Counter
	receivedBytes stat.Counter
	stalled       stat.Counter
	idle          stat.Counter
	badPeers      stat.Counter
}

func (c *counters) request(t uint8) {
	c.requests[min(int(t&^wire.Reply), len(c.requests)-1)].Inc()
}

// Stats sums up. Any goroutine.
func (s *Server) Stats() Stats {
	c, l := &s.core.count, &s.core.hub.Counts
	st := Stats{
		Connections: c.connections.Load(), Refused: s.door.Refused.Load(), HandshakesFailed: s.door.Fails.Load(),
		Evicted: s.door.Evicted.Load(), Stalled: c.stalled.Load(), Idle: c.idle.Load(),
		BadPeers: c.badPeers.Load() + l.BadPeers.Load(), Silent: l.Silent.Load(), Overloaded: l.Overloaded.Load(),
		Errors: c.errors.Load(), Reads: c.reads.Load(), RangeErrors: c.rangeErrors.Load(),
		ReadErrors: c.readErrors.Load(),
		SentBytes:  c.sentBytes.Load(), ReceivedBytes: c.receivedBytes.Load(), CopiedBytes: l.CopiedBytes.Load(),
		Stalls: l.Stalls.Load(), Located: c.located.Load(), Forgets: c.forgets.Load(),
	}
	for i := range c.requests {
		st.Requests[i] = c.requests[i].Load()
	}
	return st
}
