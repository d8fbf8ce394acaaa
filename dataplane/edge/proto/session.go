package proto

import (
	"time"

	"vstor/dataplane/ids"
	"vstor/dataplane/wire"
)

// Mode is how a vDisk is open.
type Mode uint8

const (
	// Passive: reads by way of the router, nothing is kept, nothing is changed.
	Passive Mode = 0
	// Exclusive: the one opener that changes the vDisk, and that is told locations.
	Exclusive Mode = 1
)

func (m Mode) String() string {
	if m == Exclusive {
		return "exclusive"
	}
	return "passive"
}

// Open begins a session. The first request of a connection.
//
//	byte   0  mode u8, take over u8, zeros to 8
//	       8  session u64, in which it had the vDisk exclusively last; 0 none
//
// An exclusive session has a number that changes when another opener has had the vDisk since. Who names another one
// than the last is refused: it may have sent what it must not send again.
//
// Acquire is the same with an empty body: a passive opener wants to be exclusive, and the holder is asked to yield.
// Both are answered by Opened, as late as it takes.
type Open struct {
	Mode     Mode
	Takeover bool // fence who holds it
	Former   uint64
}

// Append appends the body of the message.
func (o *Open) Append(b []byte) []byte {
	take := byte(0)
	if o.Takeover {
		take = 1
	}
	return le.AppendUint64(append(b, byte(o.Mode), take, 0, 0, 0, 0, 0, 0), o.Former)
}

// Decode reads it.
func (o *Open) Decode(b []byte) error {
	c := wire.NewCursor(b)
	mode, take := c.U8(), c.U8()
	c.Bytes(6)
	o.Former = c.U64()
	if !c.Done() || mode > uint8(Exclusive) || take > 1 {
		return malformed(TOpen, len(b))
	}
	o.Mode, o.Takeover = Mode(mode), take == 1
	return nil
}

// Opened answers Open and Acquire.
//
//	byte   0  sequence u64
//	       8  vDisk    u64
//	      16  size     u64, in bytes
//	      24  epoch    u64
//	      32  session  u64, 0 if it is passive
//	      40  lease    u32, in milliseconds, from when the request was sent
//	      44  mode u8, read only u8, zero u16
type Opened struct {
	Seq      ids.Seq
	Volume   ids.VolumeID
	Size     int64
	Epoch    ids.Epoch
	Session  uint64
	Lease    time.Duration
	Mode     Mode
	ReadOnly bool
}

// Append appends the body of the message.
func (o *Opened) Append(b []byte) []byte {
	b = le.AppendUint64(le.AppendUint64(b, uint64(o.Seq)), uint64(o.Volume))
	b = le.AppendUint64(le.AppendUint64(b, uint64(o.Size)), uint64(o.Epoch))
	b = le.AppendUint32(le.AppendUint64(b, o.Session), uint32(o.Lease.Milliseconds()))
	ro := byte(0)
	if o.ReadOnly {
		ro = 1
	}
	return append(b, byte(o.Mode), ro, 0, 0)
}

// Decode reads it.
func (o *Opened) Decode(b []byte) error {
	c := wire.NewCursor(b)
	o.Seq, o.Volume = ids.Seq(c.U64()), ids.VolumeID(c.U64())
	size := c.U64()
	o.Epoch, o.Session = ids.Epoch(c.U64()), c.U64()
	o.Lease = time.Duration(c.U32()) * time.Millisecond
	mode, ro := c.U8(), c.U8()
	c.U16()
	if !c.Done() || size > 1<<62 || size%ids.BlockSize != 0 || mode > uint8(Exclusive) || ro > 1 {
		return malformed(TOpen|wire.Reply, len(b))
	}
	o.Size, o.Mode, o.ReadOnly = int64(size), Mode(mode), ro == 1
	return nil
}

// Renew asks for the lease anew, and has no body. Renewed answers it.
//
//	byte   0  sequence u64
//	       8  lease    u32, in milliseconds, from when the request was sent; zero u32
type Renewed struct {
	Seq   ids.Seq
	Lease time.Duration
}

// Append appends the body of the message.
func (r *Renewed) Append(b []byte) []byte {
	b = le.AppendUint64(b, uint64(r.Seq))
	return append(le.AppendUint32(b, uint32(r.Lease.Milliseconds())), 0, 0, 0, 0)
}

// Decode reads it.
func (r *Renewed) Decode(b []byte) error {
	c := wire.NewCursor(b)
	r.Seq, r.Lease = ids.Seq(c.U64()), time.Duration(c.U32())*time.Millisecond
	c.U32()
	if !c.Done() {
		return malformed(TRenew|wire.Reply, len(b))
	}
	return nil
}

// Stats is what an edge did since its session began, in blocks of 4 KiB; the router shows it. Answered by an Ack, also
// while an Open is not: that may take a lease's length, and tells nothing of whether the router is there.
//
//	byte   0  reads u64: blocks read by clients
//	       8  located u64: of them, where the edge knew the location
//	      16  asked u64: of them, asked of the router
//	      24  cached u64: blocks of all vDisks on its loop whose location it knows or knew
type Stats struct{ Reads, Located, Asked, Cached uint64 }

// Append appends the body of the message.
func (s *Stats) Append(b []byte) []byte {
	b = le.AppendUint64(le.AppendUint64(b, s.Reads), s.Located)
	return le.AppendUint64(le.AppendUint64(b, s.Asked), s.Cached)
}

// Decode reads it.
func (s *Stats) Decode(b []byte) error {
	c := wire.NewCursor(b)
	s.Reads, s.Located, s.Asked, s.Cached = c.U64(), c.U64(), c.U64(), c.U64()
	if !c.Done() {
		return malformed(TStats, len(b))
	}
	return nil
}
