// Package wire is what protocols between vstor's processes share: the frame header and a bounds-checked
// cursor over a body. Pure: bytes in, structs out.
package wire

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/errs"
)

// Frames stand one behind the other on a stream: header, body, data.
//
//	byte   0  magic     u32   "vsWF"
//	       4  version   u8    of this layout, 1
//	       5  type      u8    of the message; a reply has its request's with bit 7 set
//	       6  flags     u16   zero unless the type says otherwise
//	       8  id        u64   chosen by who asks; the reply carries it back
//	      16  body      u32   bytes of body, at most BodyMax
//	      20  data      u32   bytes of data, at most DataMax
//	      24  arg       u32   request: milliseconds until nobody wants the answer, 0 = no limit;
//	                          reply: the errs.Kind of the outcome
//	      28  checksum  u32   low half of XXH64 of header (with this field zero) and body
//
// The checksum leaves the data out: a message that carries data names the checksum of that in its body,
// in the form in which its reader has or needs it anyway, so that nothing is hashed twice.
const (
	HeaderSize = 32
	// BodyMax lets header and body fit one page.
	BodyMax = 4096 - HeaderSize
	// DataMax is the longest data of a frame: a fragment's payload.
	DataMax = 64 << 20
	// Reply is the bit of a type that makes it the answer.
	Reply = 0x80

	magic   = 0x4657_7376
	version = 1
	sumAt   = 28
)

// Header is the head of a frame.
type Header struct {
	Type  uint8
	Flags uint16
	ID    uint64
	Body  uint32
	Data  uint32
	Arg   uint32
}

// Kind is the outcome that a reply carries; one that no Kind has is IO.
func (h *Header) Kind() errs.Kind {
	if h.Arg > 255 {
		return errs.IO
	}
	return errs.Kind(h.Arg)
}

// Seal writes the header in front of a body that stands at frame[HeaderSize:HeaderSize+h.Body] already, with the
// checksum of both.
func (h *Header) Seal(frame []byte) {
	le := binary.LittleEndian
	frame = frame[:HeaderSize+int(h.Body)]
	le.PutUint32(frame, magic)
	frame[4], frame[5] = version, h.Type
	le.PutUint16(frame[6:], h.Flags)
	le.PutUint64(frame[8:], h.ID)
	le.PutUint32(frame[16:], h.Body)
	le.PutUint32(frame[20:], h.Data)
	le.PutUint32(frame[24:], h.Arg)
	le.PutUint32(frame[sumAt:], 0)
	le.PutUint32(frame[sumAt:], uint32(xxhash.Sum64(frame)))
}

// Decode reads a header and checks all of it but the checksum, for which the body must be there: see
// Verify. REQUIRES: len(b) >= HeaderSize. Errors: Corrupt (this is no frame, or its lengths are beyond the
// bounds), Version.
func (h *Header) Decode(b []byte) error {
	le := binary.LittleEndian
	if m := le.Uint32(b); m != magic {
		return errs.New(errs.Corrupt, "frame: magic %#x, %#x would be right: the peer does not speak this protocol",
			m, magic)
	}
	if b[4] != version {
		return errs.New(errs.Version, "frame: version %d; this build speaks %d", b[4], version)
	}
	*h = Header{Type: b[5], Flags: le.Uint16(b[6:]), ID: le.Uint64(b[8:]), Body: le.Uint32(b[16:]),
		Data: le.Uint32(b[20:]), Arg: le.Uint32(b[24:])}
	if h.Body > BodyMax || h.Data > DataMax {
		return errs.New(errs.Corrupt, "frame: type %#x with %d bytes of body and %d of data; at most %d and %d are allowed",
			h.Type, h.Body, h.Data, BodyMax, DataMax)
	}
	return nil
}

// Verify checks the checksum over header and body. frame is changed for the moment of the call and then as
// it was. REQUIRES: frame is at least header and body long, as Decode found them.
func (h *Header) Verify(frame []byte) error {
	le := binary.LittleEndian
	frame = frame[:HeaderSize+int(h.Body)]
	want := le.Uint32(frame[sumAt:])
	le.PutUint32(frame[sumAt:], 0)
	got := uint32(xxhash.Sum64(frame))
	le.PutUint32(frame[sumAt:], want)
	if got != want {
		return errs.New(errs.Corrupt, "frame: type %#x id %d has checksum %#x, %#x would be right", h.Type,
			h.ID, got, want)
	}
	return nil
}
