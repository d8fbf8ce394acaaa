package handshake

import (
	"fmt"

	"vstor/asd/proto"
	"vstor/dataplane/ids"
)

// mismatch says how the ASD differs from the one that is wanted, or nothing.
func mismatch(h *proto.Hello, deployment, uuid [16]byte, id ids.ASDID) string {
	var zero [16]byte
	switch {
	case h.Deployment != zero && h.Deployment != deployment:
		return fmt.Sprintf("this ASD belongs to deployment %x, not to %x", deployment, h.Deployment)
	case h.UUID != zero && h.UUID != uuid:
		return fmt.Sprintf("this is ASD %d with UUID %x; wanted was ASD %d with UUID %x: the drive or its folder was "+
			"swapped, or the address is wrong", id, uuid, h.ID, h.UUID)
	case h.UUID != zero && h.ID != id:
		return fmt.Sprintf("the ASD with UUID %x has number %d; wanted was %d", uuid, id, h.ID)
	}
	return ""
}

func versions(h *proto.Hello) string {
	return fmt.Sprintf("this ASD speaks version %d to %d of the protocol, the peer %d to %d", proto.VersionMin,
		proto.Version, h.Lowest, h.Highest)
}
