package proto

import (
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/wire"
)

// Locations answers the request of that name, a Range of at most BlocksMax blocks.
//
//	byte   0  sequence u64
//	       8  blocks u32, namespaces u32
//	      16  namespaces u64
//	       .  a location for each block, 12 bytes (layout.Location), with an index into these namespaces
//
// A location of SCO 0 is a hole, as in a map, or, with offset layout.OffAsk, none that may be kept: the driver knows.
type Locations struct {
	Seq    ids.Seq
	Spaces []ids.NamespaceID
	Blocks []layout.Location
}

const locationsHead = 16

// Asked is the location of a block that the driver must be asked of.
var Asked = layout.Location{Off: layout.OffAsk}

// Append appends the body of the message.
func (l *Locations) Append(b []byte) []byte {
	b = le.AppendUint64(b, uint64(l.Seq))
	b = le.AppendUint32(le.AppendUint32(b, uint32(len(l.Blocks))), uint32(len(l.Spaces)))
	for _, ns := range l.Spaces {
		b = le.AppendUint64(b, uint64(ns))
	}
	for _, loc := range l.Blocks {
		b = loc.Append(b)
	}
	return b
}

// Decode reads it; the slices of l are used again. count is how many blocks were asked for.
func (l *Locations) Decode(b []byte, count uint64) error {
	c := wire.NewCursor(b)
	l.Seq = ids.Seq(c.U64())
	blocks, spaces := c.U32(), c.U32()
	if !c.OK() || uint64(blocks) != count || blocks > BlocksMax || spaces > SpacesMax ||
		c.Left() != int(8*spaces+layout.LocationSize*blocks) {
		return malformed(TLocations|wire.Reply, len(b))
	}
	l.Spaces, l.Blocks = l.Spaces[:0], l.Blocks[:0]
	for range spaces {
		l.Spaces = append(l.Spaces, ids.NamespaceID(c.U64()))
	}
	for range blocks {
		loc := layout.ParseLocation(c.Bytes(layout.LocationSize))
		if !loc.Hole() && uint32(loc.NS) >= spaces ||
			loc.Hole() && loc.Off != layout.OffAsk && loc.Off > layout.OffTrimmed {
			return malformed(TLocations|wire.Reply, len(b))
		}
		l.Blocks = append(l.Blocks, loc)
	}
	return nil
}

// Object names an object: the body of Manifest, whose answer is an Ack with the encoded manifest as its data.
//
//	byte   0  namespace u64
//	       8  SCO u32, zero u32
type Object struct {
	NS  ids.NamespaceID
	SCO ids.SCONum
}

// Append appends the body of the message.
func (o *Object) Append(b []byte) []byte {
	b = le.AppendUint64(b, uint64(o.NS))
	return append(le.AppendUint32(b, uint32(o.SCO)), 0, 0, 0, 0)
}

// Decode reads it.
func (o *Object) Decode(b []byte) error {
	c := wire.NewCursor(b)
	o.NS, o.SCO = ids.NamespaceID(c.U64()), ids.SCONum(c.U32())
	c.U32()
	if !c.Done() || o.SCO == 0 {
		return malformed(TManifest, len(b))
	}
	return nil
}

// Rot tells of a fragment that a read found missing, failing or damaged. The router looks for itself before it
// repairs anything. Its answer is an Ack.
//
//	byte   0  fragment key, 20 bytes (layout.FragKey)
//	      20  ASD  u32
//	      24  kind u32, an errs.Kind
type Rot struct {
	Key  layout.FragKey
	ASD  ids.ASDID
	Kind errs.Kind
}

// Append appends the body of the message.
func (r *Rot) Append(b []byte) []byte {
	return le.AppendUint32(le.AppendUint32(r.Key.Append(b), uint32(r.ASD)), uint32(r.Kind))
}

// Decode reads it.
func (r *Rot) Decode(b []byte) error {
	c := wire.NewCursor(b)
	key, ok := layout.ParseFragKey(c.Bytes(layout.FragKeySize))
	asd, kind := ids.ASDID(c.U32()), c.U32()
	if !c.Done() || !ok || kind > 0xff {
		return malformed(TRot, len(b))
	}
	r.Key, r.ASD, r.Kind = key, asd, errs.Kind(kind)
	return nil
}

// Invalidate is pushed by the router: what names the object, or lies in the range where it names none, is dropped
// before the reply, which is empty.
//
//	byte   0  namespace   u64
//	       8  SCO         u32, 0: the range; zero u32
//	      16  first block u64
//	      24  blocks      u64
type Invalidate struct {
	Object
	Range
}

// Append appends the body of the message.
func (i *Invalidate) Append(b []byte) []byte { return i.Range.Append(i.Object.Append(b)) }

// Decode reads it.
func (i *Invalidate) Decode(b []byte) error {
	c := wire.NewCursor(b)
	i.NS, i.SCO = ids.NamespaceID(c.U64()), ids.SCONum(c.U32())
	c.U32()
	addr, count := c.U64(), c.U64()
	if !c.Done() || addr >= addrMax || count > addrMax-addr {
		return malformed(TInvalidate, len(b))
	}
	i.Addr, i.Count = ids.BlockAddr(addr), count
	return nil
}

// Yield and Revoke are pushed by the router, and their reply is empty. Yield: what was sent shall be answered, then the
// session becomes passive; the reply says that it did. Revoke: somebody has taken over; nothing of the session takes
// effect any more, and the reply says that nothing is answered from caches any more. Its body is a sentence. Redirect:
// the vDisk is to be had at another address, its body.

// AppendText appends a body that is text.
func AppendText(b []byte, text string) []byte { return append(b, sentence(text)...) }
