package layout

import (
	"encoding/binary"
	"fmt"

	"vstor/dataplane/ids"
)

// TargetKind says what a Target names.
type TargetKind uint8

const (
	TargetNone   TargetKind = 0 // nobody yet: the slot's fragments are missing
	TargetASD    TargetKind = 1
	TargetObject TargetKind = 2 // an object of another backend, for stacked backends
)

// Target is where the fragments of a slot lie, as a tagged id.
//
//	byte   0      1          4                8
//	       kind   zeros (3)  ASD or backend   object (0 for an ASD)     little endian, 16 bytes
type Target struct {
	Kind    TargetKind
	ASD     ids.ASDID // TargetASD
	Backend uint32    // TargetObject
	Object  uint64    // TargetObject
}

// TargetSize is the encoded size of a Target in bytes.
const TargetSize = 16

// ASDTarget names an ASD.
func ASDTarget(id ids.ASDID) Target { return Target{Kind: TargetASD, ASD: id} }

// ObjectTarget names an object of another backend.
func ObjectTarget(backend uint32, object uint64) Target {
	return Target{Kind: TargetObject, Backend: backend, Object: object}
}

func (t Target) String() string {
	switch t.Kind {
	case TargetNone:
		return "none"
	case TargetASD:
		return fmt.Sprintf("asd %d", t.ASD)
	case TargetObject:
		return fmt.Sprintf("backend %d object %d", t.Backend, t.Object)
	}
	return fmt.Sprintf("target of kind %d", t.Kind)
}

func (t Target) append(b []byte) []byte {
	id, obj := uint32(t.ASD), uint64(0)
	if t.Kind == TargetObject {
		id, obj = t.Backend, t.Object
	}
	b = append(b, byte(t.Kind), 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, id)
	return binary.LittleEndian.AppendUint64(b, obj)
}

// parseTarget decodes TargetSize bytes; false if they are not what append writes.
func parseTarget(b []byte) (Target, bool) {
	id, obj := binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint64(b[8:])
	if b[1]|b[2]|b[3] != 0 {
		return Target{}, false
	}
	switch TargetKind(b[0]) {
	case TargetNone:
		return Target{}, id == 0 && obj == 0
	case TargetASD:
		return ASDTarget(ids.ASDID(id)), obj == 0
	case TargetObject:
		return ObjectTarget(id, obj), true
	}
	return Target{}, false
}
