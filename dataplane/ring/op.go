package ring

import "vstor/dataplane/buf"

// Op is one operation under way on a Loop. Its owner embeds it in a state of its own, sets Done once,
// and may start it again only after Done was called. Starting an Op allocates nothing, apart from room
// for the longest list of segments it has ever carried.
type Op struct {
	// Done learns of the end.
	Done Completer
	// Tag is the owner's.
	Tag uint64

	state    opState
	code     opCode
	tries    uint8 // how often in a row it was told to try again
	canceled bool
	res      int32 // result, while deferred
	fd       int32
	slot     int32 // index into the engine's table while flying

	// What is still to be moved. A transfer may come back short, long after the caller's list was
	// reused, so the segments are kept here.
	segs []buf.Seg
	off  int64  // where in the file the next byte belongs
	want uint32 // bytes in all
	got  uint32 // bytes moved
	at   int    // the segment that holds the next byte
	skip uint32 // bytes of it that were moved

	next, prev *Op    // the list it stands in: queue, deferred or held
	hold       uint64 // names this holding of the Op
	sel        []byte // the buffer a RecvSelect landed in
}

type opState uint8

const (
	opIdle     opState = iota
	opQueued           // waits for room in the engine
	opFlying           // the engine has it
	opDeferred         // ended; RingDone is called later in this pass
	opHeld             // its owner will end it, see Hold
)

type opCode uint8

const (
	codeNone opCode = iota
	codeRead
	codeWrite
	codeDatasync
	codeRecvSelect
	codeRecv
	codeSend
)

// Idle reports whether the Op may be started.
func (op *Op) Idle() bool { return op.state == opIdle }

// Completer is told that an Op ended. RingDone runs on the loop, never inside the call that started
// the Op. res is a count of bytes, or a negated errno. It may start the same Op again.
//
// When the loop stops, what is in flight ends with -ECANCELED, and so does whatever is started from
// then on: a RingDone that sees it must not start the Op again.
type Completer interface {
	RingDone(op *Op, res int32)
}

// Message is work for a loop, posted by another goroutine.
type Message interface {
	RunOnLoop()
}

// opList is a FIFO of Ops through their own links: standing in line allocates nothing.
type opList struct {
	head, tail *Op
	n          int
}

func (q *opList) push(op *Op) {
	op.next, op.prev = nil, q.tail
	if q.tail == nil {
		q.head = op
	} else {
		q.tail.next = op
	}
	q.tail = op
	q.n++
}

func (q *opList) remove(op *Op) {
	if op.prev == nil {
		q.head = op.next
	} else {
		op.prev.next = op.next
	}
	if op.next == nil {
		q.tail = op.prev
	} else {
		op.next.prev = op.prev
	}
	op.next, op.prev = nil, nil
	q.n--
}

func (q *opList) pop() *Op {
	op := q.head
	if op != nil {
		q.remove(op)
	}
	return op
}
