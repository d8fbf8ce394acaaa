package link

import (
	"time"

	"vstor/dataplane/buf"
	"vstor/dataplane/stat"
	"vstor/dataplane/wire"
)

// Verdict is a Handler's answer to a frame that came in.
type Verdict uint8

const (
	// Next: the frame is taken. Its data, if it has any, goes to the pages that FrameIn named, and
	// FrameData tells when it is there; the next frame is read after that.
	Next Verdict = iota
	// Skip: the frame is taken, its data is received and dropped.
	Skip
	// Stall: there is no room for the frame. The connection does not read its socket until Resume;
	// then FrameIn is called with the same frame again.
	Stall
)

// Handler is who understands the frames of one connection. All methods run on the loop, one at a time, and
// never inside a call of a Conn's method. They may call any method of the Conn.
type Handler interface {
	// FrameIn: a header and its body have arrived and their checksum is right. h and body are valid
	// during the call. If h.Data > 0 and the verdict is Next, the Handler has appended exactly h.Data
	// bytes of pages of the loop's pool to in, at any offset and in any pieces; it keeps them referenced
	// and does not read them until FrameData. If h.Data is 0, Next and Skip are the same.
	// A frame that should not be is answered with Abort, whatever the verdict.
	FrameIn(h *wire.Header, body []byte, in *buf.Vec) Verdict
	// FrameData: the data of the frame that FrameIn took last is in its pages, unverified. whole is
	// false if the connection ended first: the pages are the Handler's again all the same, with anything
	// in them. Exactly once for each Next with data.
	FrameData(whole bool)
	// Ended: nothing will be received any more, and why: the peer closed between two frames (Closed), the
	// socket failed or the peer was silent (Unreachable), it broke the protocol (Corrupt, Version), or
	// what End or Abort were given. Exactly once, before Closed. Replies may still be sent unless Abort
	// was called or the socket failed; then each Send ends at once.
	Ended(reason error)
	// Closed: no operation is under way any more, all frames and pages are back, the descriptor is
	// closed. Exactly once and last. It comes after Ended, once all frames are sent and Retain and
	// Release are even.
	Closed()
}

// Sent is told that a frame is the sender's again.
type Sent interface {
	// FrameSent: exactly once for each Send, on the loop, never inside it. A frame without data is back
	// when its bytes are in the batch, before any reply can have come; one with data when the kernel has
	// taken the last byte of it. sent is false if the connection was aborted; then the peer may have seen
	// all of it, some or nothing.
	FrameSent(f *Frame, sent bool)
}

// Frame is a message to send. Its owner embeds it in a state of its own and sets Done once; it belongs to the
// Conn from Send until FrameSent.
type Frame struct {
	Type  uint8
	Flags uint16
	ID    uint64
	Arg   uint32
	// Body has at most wire.BodyMax bytes. It is the owner's and does not change until FrameSent.
	Body []byte
	// Data lies in pages of the loop's pool. They stay referenced until FrameSent, which releases
	// them or not: the Conn does not.
	Data buf.Vec
	// Done is told. Required.
	Done Sent

	parts      int // what of it is in batches: 1 for header and body, + 1 for each segment of Data
	queued     bool
	next, prev *Frame
}

// Queued reports whether the frame is the Conn's.
func (f *Frame) Queued() bool { return f.queued }

// Options of a Conn. The zero value of a field means its default.
type Options struct {
	// Timeout: a peer that has sent a part of a frame, or has not taken all of ours, and moves nothing for
	// so long, is cut off. A connection between frames may be silent for ever. Data that is received
	// straight into its pages counts as one move. Default 30 s.
	Timeout time.Duration
}

const defaultTimeout = 30 * time.Second

// HubOptions of a Hub. The zero value of a field means its default.
type HubOptions struct {
	// StashBytes bounds what stalled connections keep of what they had received, over all connections of
	// the hub. One above it is closed. Default 16 MiB.
	StashBytes int64
}

const defaultStash = 16 << 20

// Counts are what the connections of a Hub did. Written on its loop, read anywhere.
type Counts struct {
	FramesIn    stat.Counter
	FramesOut   stat.Counter // those that left whole
	BytesIn     stat.Counter // headers and bodies apart: data
	BytesOut    stat.Counter
	CopiedBytes stat.Counter // of data and stashes, in user space
	Stalls      stat.Counter
	Overloaded  stat.Counter // closed: StashBytes
	Silent      stat.Counter // closed: Timeout
	BadPeers    stat.Counter // closed: no frame, a bad checksum, an end in the middle of a frame
}
