package proto

import (
	"fmt"

	"vstor/dataplane/errs"
	"vstor/dataplane/wire"
)

// Print is a message in words, for people. What does not parse says so.
func Print(h *wire.Header, body []byte) string {
	what := fmt.Sprintf("%s id %d, %d bytes of body, %d of data", TypeName(h.Type), h.ID, h.Body, h.Data)
	reply := h.Type&wire.Reply != 0
	if h.Type == TRefuse || reply && h.Kind() != errs.OK {
		return fmt.Sprintf("%s: %v: %q", what, h.Kind(), body)
	}
	text, err := printSession(h, body)
	if text == "" && err == nil {
		text, err = printData(h, body)
	}
	if err != nil {
		return what + ": " + err.Error()
	}
	if text != "" {
		what += ": " + text
	}
	return what
}

func printSession(h *wire.Header, body []byte) (string, error) {
	switch h.Type {
	case THello:
		var m Hello
		err := m.Decode(body)
		return fmt.Sprintf("%q, opener %x, speaks %d to %d, caps %#x, wants vDisk %q of deployment %x", m.Edge,
			m.Opener[:], m.Lowest, m.Highest, m.Caps, m.VDisk, m.Deployment), err
	case TWelcome:
		var m Welcome
		err := m.Decode(body)
		return fmt.Sprintf("version %d, caps %#x", m.Version, m.Caps), err
	case TReady:
		var m Ready
		err := m.Decode(body)
		return fmt.Sprintf("%d requests, %d bytes; deployment %x", m.Requests, m.Bytes, m.Deployment), err
	case TOpen:
		var m Open
		err := m.Decode(body)
		return fmt.Sprintf("%v, takeover %v, was in session %d", m.Mode, m.Takeover, m.Former), err
	case TOpen | wire.Reply, TAcquire | wire.Reply:
		var m Opened
		err := m.Decode(body)
		return fmt.Sprintf("%+v", m), err
	case TRenew | wire.Reply:
		var m Renewed
		err := m.Decode(body)
		return fmt.Sprintf("%+v", m), err
	case TStats:
		var m Stats
		err := m.Decode(body)
		return fmt.Sprintf("%+v", m), err
	case TRevoke, TRedirect:
		return fmt.Sprintf("%q", body), nil
	}
	return "", nil
}

func printData(h *wire.Header, body []byte) (string, error) {
	switch h.Type {
	case TRead, TTrim, TZero, TWarm, TLocations, TExtents:
		var m Range
		err := m.Decode(h.Type, body, addrMax)
		return fmt.Sprintf("%d blocks from %d on", m.Count, m.Addr), err
	case TWrite:
		var m Write
		err := m.Decode(body, h.Data)
		return fmt.Sprintf("%d blocks from %d on, sums %#x", m.Count, m.Addr, m.Sums), err
	case TRead | wire.Reply:
		seq, sums, err := DecodeRead(nil, body, h.Data/4096)
		return fmt.Sprintf("sequence %d, sums %#x", seq, sums), err
	case TWrite | wire.Reply, TFlush | wire.Reply, TTrim | wire.Reply, TZero | wire.Reply, TWarm | wire.Reply,
		TStats | wire.Reply, TRot | wire.Reply, TClose | wire.Reply, TManifest | wire.Reply:
		seq, err := DecodeAck(h.Type&^wire.Reply, body)
		return fmt.Sprintf("sequence %d", seq), err
	case TExtents | wire.Reply:
		seq, es, err := DecodeExtents(nil, body, addrMax)
		return fmt.Sprintf("sequence %d, %+v", seq, es), err
	case TLocations | wire.Reply:
		var m Locations
		err := m.Decode(body, uint64(le.Uint32(append(body[:len(body):len(body)], make([]byte, 12)...)[8:])))
		return fmt.Sprintf("sequence %d, in namespaces %v: %+v", m.Seq, m.Spaces, m.Blocks), err
	case TManifest:
		var m Object
		err := m.Decode(body)
		return fmt.Sprintf("SCO %d of namespace %d", m.SCO, m.NS), err
	case TRot:
		var m Rot
		err := m.Decode(body)
		return fmt.Sprintf("fragment %v on ASD %d: %v", m.Key, m.ASD, m.Kind), err
	case TInvalidate:
		var m Invalidate
		err := m.Decode(body)
		return fmt.Sprintf("SCO %d of namespace %d; %d blocks from %d on", m.SCO, m.NS, m.Count, m.Addr), err
	}
	return "", nil
}
