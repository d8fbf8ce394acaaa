package proto

import (
	"encoding/binary"

	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
	"vstor/dataplane/wire"
)

// Short-circuit: an asker on the ASD's host reads the drive itself. Where both sides announce CapShortCircuit, on a
// unix socket, Drive follows Ready; it and these messages are all there is to it.
//
//	asker                                        ASD
//	                                          <─ Drive     the drive's descriptor, open for reading only
//	  Lease     what it has forgotten         ─>
//	                                          <─ Lease     for how long what was located, and not forgotten, lies
//	  Extents   keys                          ─>           where it lay
//	                                          <─ Extents   where the fragments lie
//	                                          <─ Forget    keys that were deleted; of the ASD's own accord
//
// # What a lease promises
//
// Everything that the ASD located on this connection, and has not told to forget before this reply, keeps its bytes
// until the lease has run out, counted by the asker from when it sent its request. The ASD keeps it by letting deleted
// space rest for at least as long as a lease, from when it would locate the fragment no more and, in the order of
// the stream, before it grants the next one. So it does not matter when a Forget arrives: an asker that has not seen
// it has seen no later lease either.
//
// An asker that has forgotten, and has no read under way that began before, says so with its next request, which it
// may send at once: when all have, the space need not rest to its end.

// Drive ends the handshake of an asker who wants it. The frame carries exactly one descriptor (SCM_RIGHTS), or none
// if size is 0: then the ASD could not open its drive again, and all goes over the socket.
//
//	byte   0  size of the drive in bytes u64
//	       8  number of the file system it lies on u64, zero for a block device
//	      16  number of its file there, or of the block device u64
type Drive struct {
	Size   int64
	Device uint64
	Inode  uint64
}

// Append appends the body of the message.
func (d *Drive) Append(b []byte) []byte {
	le := binary.LittleEndian
	return le.AppendUint64(le.AppendUint64(le.AppendUint64(b, uint64(d.Size)), d.Device), d.Inode)
}

// Decode reads it.
func (d *Drive) Decode(b []byte) error {
	c := wire.NewCursor(b)
	d.Size = int64(c.U64())
	d.Device, d.Inode = c.U64(), c.U64()
	if !c.Done() || d.Size < 0 || d.Size%4096 != 0 {
		return malformed(TDrive, len(b))
	}
	return nil
}

// Lease is the reply to a request of 8 bytes: the number of deletes, as Forget counts them, that the asker has
// forgotten and does not read any more u64.
//
//	byte   0  length in ns u64; 0: none now, ask again in a second
//	       8  deletes of which this connection was told, in all u64
type Lease struct {
	Nanos int64
	Told  uint64
}

// Append appends the body of the reply.
func (l *Lease) Append(b []byte) []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(b, uint64(l.Nanos)), l.Told)
}

// Decode reads it.
func (l *Lease) Decode(b []byte) error {
	c := wire.NewCursor(b)
	l.Nanos, l.Told = int64(c.U64()), c.U64()
	if !c.Done() || l.Nanos < 0 {
		return malformed(TLease|wire.Reply, len(b))
	}
	return nil
}

// DecodeForgotten reads the request.
func DecodeForgotten(b []byte) (uint64, error) {
	if len(b) != 8 {
		return 0, malformed(TLease, len(b))
	}
	return binary.LittleEndian.Uint64(b), nil
}

// Extents asks where whole fragments lie.
//
//	request   keys, 20 bytes each, 1 to LocateMax
//	reply     incarnation u64, then for each key
//	            errs.Kind u8, number of extents u8, zero u16
//	            extents of the payload, in order, 12 bytes each: offset on the drive u64, length u32
//
// Absent and all other kinds but OK have no extents, and no lease: nothing follows from them later.

// AppendKeys appends keys, as Extents and Forget have them.
func AppendKeys(b []byte, keys []layout.FragKey) []byte {
	for _, k := range keys {
		b = k.Append(b)
	}
	return b
}

// DecodeKeys appends the keys of an Extents request to dst. Errors: Corrupt, Invalid if there are too many.
func DecodeKeys(dst []layout.FragKey, b []byte) ([]layout.FragKey, error) {
	n := len(b) / layout.FragKeySize
	switch {
	case n == 0 || n*layout.FragKeySize != len(b):
		return dst, malformed(TExtents, len(b))
	case n > LocateMax:
		return dst, errs.New(errs.Invalid, "extents: %d keys; at most %d go into one message", n, LocateMax)
	}
	return appendKeys(dst, b), nil
}

func appendKeys(dst []layout.FragKey, b []byte) []layout.FragKey {
	for ; len(b) > 0; b = b[layout.FragKeySize:] {
		k, _ := layout.ParseFragKey(b)
		dst = append(dst, k)
	}
	return dst
}

// AppendFound appends the answer for one key to a reply, which begins with the incarnation.
func AppendFound(b []byte, k errs.Kind, es []layout.Extent) []byte {
	return AppendExtents(append(b, byte(k), byte(len(es)), 0, 0), es)
}

// Found reads the reply to an Extents: Next once for each key, and then Done.
type Found struct {
	Incarnation uint64
	c           wire.Cursor
	bad         bool
}

// NewFound begins to read.
func NewFound(b []byte) Found {
	f := Found{c: wire.NewCursor(b)}
	f.Incarnation = f.c.U64()
	return f
}

// Next appends the extents of the next key to dst. What is cut off or cannot be is Unreachable, and Done says so.
func (f *Found) Next(dst []layout.Extent) ([]layout.Extent, errs.Kind) {
	k, n, zero := errs.Kind(f.c.U8()), int(f.c.U8()), f.c.U16()
	if n > ExtentsMax || zero != 0 || (n > 0) != (k == errs.OK) {
		f.bad = true
	}
	from := len(dst)
	for range n {
		e := layout.Extent{Off: int64(f.c.U64()), Len: f.c.U32()}
		if e.Off < 0 || e.Off > 1<<62 || e.Off%4096 != 0 || e.Len == 0 || e.Len%4096 != 0 {
			f.bad = true
		}
		if f.bad || !f.c.OK() {
			break
		}
		dst = append(dst, e)
	}
	if f.bad || !f.c.OK() {
		return dst[:from], errs.Unreachable
	}
	return dst, k
}

// Done is nil if all was well and nothing is left.
func (f *Found) Done() error {
	if f.bad || !f.c.Done() {
		return malformed(TExtents|wire.Reply, f.c.Left())
	}
	return nil
}

// Forget comes from the ASD unasked, with id 0, and has no reply.
//
//	byte   0  deletes of which this connection was told, these included u64
//	       8  keys, 20 bytes each; none: there were more than the ASD remembers, forget all
type Forget struct {
	Told uint64
	Keys []layout.FragKey
}

// ForgetMax is how many keys one Forget may name.
const ForgetMax = (wire.BodyMax - 8) / layout.FragKeySize

// Append appends the body of the message.
func (f *Forget) Append(b []byte) []byte {
	return AppendKeys(binary.LittleEndian.AppendUint64(b, f.Told), f.Keys)
}

// Decode reads it; f.Keys is used again.
func (f *Forget) Decode(b []byte) error {
	if len(b) < 8 || (len(b)-8)%layout.FragKeySize != 0 {
		return malformed(TForget, len(b))
	}
	f.Told = binary.LittleEndian.Uint64(b)
	f.Keys = appendKeys(f.Keys[:0], b[8:])
	return nil
}
