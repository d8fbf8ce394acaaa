package nbd

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"vstor/dataplane/block"
)

// Metadata contexts: what BLOCK_STATUS tells of a range. All we have is what block.Extents says, in two
// forms that clients know. Pure.
//
//	base:allocation          1 = nothing is stored there, 2 = it reads as zeros
//	qemu:allocation-depth    0 = nothing is stored there, 1 = something is
//
// Data of LIST_META_CONTEXT and SET_META_CONTEXT: u32 name length, name of the export, u32 count, then per
// query u32 length, query. Data of a META_CONTEXT reply: u32 id (0 in a LIST), name.
const (
	contextAllocation = iota
	contextDepth
	contextCount
)

var contextNames = [contextCount]string{"base:allocation", "qemu:allocation-depth"}

// contextSet has bit i for context i. On the wire its id is i+1.
type contextSet uint8

const allContexts contextSet = 1<<contextCount - 1

func (s contextSet) has(i int) bool { return s&(1<<i) != 0 }

// contextStatus is what context i says of an extent.
func contextStatus(i int, s block.ExtentState) uint32 {
	if i == contextDepth {
		return uint32(^s & block.Hole)
	}
	return uint32(s & (block.Hole | block.ReadsZero))
}

// metaRequest is the payload of LIST_META_CONTEXT and SET_META_CONTEXT. It lies in the bytes that were
// parsed.
type metaRequest struct {
	name    []byte
	queries [][]byte
}

// parseMetaRequest reads such a payload. An error's text goes to the client.
func parseMetaRequest(b []byte) (metaRequest, error) {
	name, b, err := cutString(b, "the export name")
	if err != nil {
		return metaRequest{}, err
	}
	if len(b) < 4 {
		return metaRequest{}, fmt.Errorf("the payload ends before the number of queries")
	}
	count := binary.BigEndian.Uint32(b)
	b = b[4:]
	if uint64(count) > uint64(len(b)/4) {
		return metaRequest{}, fmt.Errorf("%d queries need at least %d bytes; the payload has %d left", count,
			4*uint64(count), len(b))
	}
	r := metaRequest{name: name, queries: make([][]byte, 0, min(count, 16))}
	for range count {
		var q []byte
		if q, b, err = cutString(b, "a query"); err != nil {
			return metaRequest{}, err
		}
		if bytes.IndexByte(q, ':') <= 0 {
			return metaRequest{}, fmt.Errorf("the query %q has no namespace; an example is base:allocation", q)
		}
		r.queries = append(r.queries, q)
	}
	if len(b) > 0 {
		return metaRequest{}, fmt.Errorf("%d bytes stand behind the last query", len(b))
	}
	return r, nil
}

// cutString takes a string with its length in front from b.
func cutString(b []byte, what string) (s, rest []byte, err error) {
	if len(b) < 4 {
		return nil, nil, fmt.Errorf("the payload ends before the length of %s", what)
	}
	n := binary.BigEndian.Uint32(b)
	b = b[4:]
	switch {
	case uint64(n) > uint64(len(b)):
		return nil, nil, fmt.Errorf("%s is said to have %d bytes; the payload has %d left", what, n, len(b))
	case n > nameMax:
		return nil, nil, fmt.Errorf("%s has %d bytes; at most %d are allowed", what, n, nameMax)
	case bytes.IndexByte(b[:n], 0) >= 0:
		return nil, nil, fmt.Errorf("%s has a zero byte in it", what)
	}
	return b[:n], b[n:], nil
}

// selected is what SET chooses: contexts by their whole names; everything else is ignored, so that a
// client may ask for what only other servers have.
func (r *metaRequest) selected() (s contextSet) {
	for _, q := range r.queries {
		for i, name := range contextNames {
			if string(q) == name {
				s |= 1 << i
			}
		}
	}
	return s
}

// listed is what LIST shows: a namespace and its colon stand for all of it, no query for everything.
func (r *metaRequest) listed() contextSet {
	if len(r.queries) == 0 {
		return allContexts
	}
	s := r.selected()
	for _, q := range r.queries {
		for i, name := range contextNames {
			if q[len(q)-1] == ':' && bytes.HasPrefix([]byte(name), q) {
				s |= 1 << i
			}
		}
	}
	return s
}

// controlMax is the longest payload of a BLOCK_STATUS that can be right, in bytes.
const controlMax = 8 + 4*contextCount

// parseControl reads the payload of a BLOCK_STATUS: the length it is about and what it wants of have.
func parseControl(b []byte, have contextSet) (length uint64, want contextSet, ok bool) {
	if len(b) < 12 || len(b)%4 != 0 {
		return 0, 0, false
	}
	for ids := b[8:]; len(ids) > 0; ids = ids[4:] {
		id := binary.BigEndian.Uint32(ids)
		if id < 1 || id > contextCount || !have.has(int(id-1)) || want.has(int(id-1)) {
			return 0, 0, false
		}
		want |= 1 << (id - 1)
	}
	return binary.BigEndian.Uint64(b), want, true
}

func appendContexts(b []byte, opt Option, s contextSet) []byte {
	for i, name := range contextNames {
		if !s.has(i) {
			continue
		}
		id := uint32(i + 1)
		if opt == OptListMeta {
			id = 0
		}
		b = appendOptionReply(b, opt, RepMetaContext, 4+len(name))
		b = binary.BigEndian.AppendUint32(b, id)
		b = append(b, name...)
	}
	return b
}
