package proto

import (
	"encoding/binary"

	"vstor/dataplane/ids"
	"vstor/dataplane/wire"
)

// Info says which ASD this is and how it was set up; the reply to an empty request.
//
//	byte   0  ASD id u32, process id u32
//	       8  UUID 16 bytes
//	      24  deployment 16 bytes
//	      40  incarnation u64
//	      48  capacity in bytes u64
//	      56  quarantine of deleted space in ns u64
type Info struct {
	ID          ids.ASDID
	PID         uint32
	UUID        [16]byte
	Deployment  [16]byte
	Incarnation uint64
	Capacity    int64
	Quarantine  int64
}

// Append appends the body of the reply.
func (i *Info) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(le.AppendUint32(b, uint32(i.ID)), i.PID)
	b = append(append(b, i.UUID[:]...), i.Deployment[:]...)
	b = le.AppendUint64(b, i.Incarnation)
	return le.AppendUint64(le.AppendUint64(b, uint64(i.Capacity)), uint64(i.Quarantine))
}

// Decode reads it.
func (i *Info) Decode(b []byte) error {
	c := wire.NewCursor(b)
	i.ID, i.PID = ids.ASDID(c.U32()), c.U32()
	c.Copy(i.UUID[:])
	c.Copy(i.Deployment[:])
	i.Incarnation = c.U64()
	i.Capacity, i.Quarantine = int64(c.U64()), int64(c.U64())
	if !c.Done() {
		return malformed(TInfo|wire.Reply, len(b))
	}
	return nil
}

// Stat is the state of an ASD; the reply to an empty request. Sizes are in bytes.
//
//	a u64 for each number, in the order of the fields; then the sentence why it takes no change, if so
//
// A newer ASD may send more numbers before the sentence: the first u64 is how many there are.
type Stat struct {
	Incarnation                                               int64
	Capacity, Used, Quarantined, InFlight, SetAside           int64
	Free, Reserve, FreeRuns, Fragments                        int64
	Puts, PutBytes, Gets, Deletes, Syncs, Batches, Full       int64
	Corrupt, ReadErrors, WriteErrors, HealedSuperblocks       int64
	Reads, ReadBytes, Connections, BadPeers, CopiedBytes, RSS int64
	CPUNanos                                                  int64
	Failed                                                    string
}

// numbers lists the fields in the order of the wire: append only.
func (s *Stat) numbers() [28]*int64 {
	return [...]*int64{&s.Incarnation, &s.Capacity, &s.Used, &s.Quarantined, &s.InFlight, &s.SetAside,
		&s.Free, &s.Reserve,
		&s.FreeRuns, &s.Fragments, &s.Puts, &s.PutBytes, &s.Gets, &s.Deletes, &s.Syncs, &s.Batches, &s.Full, &s.Corrupt,
		&s.ReadErrors, &s.WriteErrors, &s.HealedSuperblocks, &s.Reads, &s.ReadBytes, &s.Connections, &s.BadPeers,
		&s.CopiedBytes, &s.RSS, &s.CPUNanos}
}

// Append appends the body of the reply.
func (s *Stat) Append(b []byte) []byte {
	le := binary.LittleEndian
	ns := s.numbers()
	b = le.AppendUint64(b, uint64(len(ns)))
	for _, n := range ns {
		b = le.AppendUint64(b, uint64(*n))
	}
	return append(b, s.Failed[:min(len(s.Failed), TextMax)]...)
}

// Decode reads it; numbers that an older ASD does not send are 0.
func (s *Stat) Decode(b []byte) error {
	c := wire.NewCursor(b)
	sent := c.U64()
	if !c.OK() || sent > uint64(c.Left()/8) {
		return malformed(TStat|wire.Reply, len(b))
	}
	*s = Stat{}
	ns := s.numbers()
	for i := range sent {
		v := int64(c.U64())
		if i < uint64(len(ns)) {
			*ns[i] = v
		}
	}
	s.Failed = string(c.Bytes(c.Left()))
	return nil
}

// Fault sets what shall go wrong from now on at an ASD that was started with --allow-faults; the body is
// text, rules of the form that `vstor asd fault --help` explains, an empty one takes all faults back.
// The reply is empty.
