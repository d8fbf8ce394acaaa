package pracc

import (
	"context"

	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/ring"
)

// Drive is an ASD whose drive this process can read itself. It is called on the Client's loop.
type Drive interface {
	// Locate appends to dst where bytes [off, off+n) of the fragment's payload lie on File, in order,
	// each extent a multiple of 4096 bytes. It answers from RAM and never blocks. Kinds: OK; Absent
	// (known not to be here); Invalid (range beyond the fragment); Unreachable (not known here: ask its
	// Remote, if there is one); anything else = cannot say now.
	// With OK comes a pin: the extents keep their content until Unpin, which is called exactly once, after
	// the read. It reports whether they really did: a drive that is read under a lease may have lost it.
	Locate(key layout.FragKey, off, n uint32, dst []layout.Extent) ([]layout.Extent, uint64, errs.Kind)
	Unpin(pin uint64) bool
	// File is what the extents lie on; it stays open until the last Unpin.
	File() dio.File
}

// Remote is an ASD that another process serves, as one loop reaches it: a connection, say. It is called
// on the Client's loop and never blocks.
type Remote interface {
	// Ready reports whether it is worth asking: connected, and answering lately. The Client reads from
	// others at once where it is not.
	Ready() bool
	// ReadRange reads bytes [off, off+n) of the fragment's payload, whole blocks, at most 1 MiB, as they
	// lie on the drive, into the pages of v. v stays as it is, and is the Remote's, until op ends: with n, or
	// with a negated errno of errs.Kind.Errno, and never inside the call. -ENOENT, -EBADMSG, -EINVAL
	// and -EIO are what the ASD said of the fragment; whatever else went wrong must be another. It ends
	// in bounded time. When the loop stops it ends with -ECANCELED.
	ReadRange(op *ring.Op, key layout.FragKey, off, n uint32, v *buf.Vec) (token uint64)
	// Cancel asks that the read of that token ends soon, with -ECANCELED or with what it has. Never inside
	// the call. A token whose read has ended means nothing.
	Cancel(token uint64)
}

// Manifests is the authority on objects. Manifest may block; it is called in at most Options.Lookups
// goroutines at a time, never on a loop, and must return soon after ctx ended. The answer is not
// kept: it may be shared. An object that does not exist is errs.Absent.
type Manifests interface {
	Manifest(ctx context.Context, ns ids.NamespaceID, sco ids.SCONum) (*layout.Manifest, error)
}

// Completer is told of a Fetch's end.
type Completer interface {
	// FetchDone is called exactly once per Fetch, on the loop it was started on, never from inside
	// Client.Fetch. It must not block. It may start the same Fetch again.
	FetchDone(*Fetch)
}

// Fetch is one read of consecutive blocks of an object. The caller pools it and sets the upper half;
// nothing of it, nor the pages of Dst or the array of Sums, may be touched from Client.Fetch until
// FetchDone.
type Fetch struct {
	NS     ids.NamespaceID
	SCO    ids.SCONum
	Off    uint32 // blocks from the object's start
	Blocks uint32 // at least 1
	// Sums holds for each block what the low half of its XXH64 must be.
	Sums []uint32
	// Dst is whole pages of the loop's pool, Blocks of them, every Seg with Off 0; the caller has one reference to
	// each, and nobody has another. FetchDone finds as many in their place, of which the caller has one reference to
	// each: the same ones, or others where a drive still owes an answer into those that were here. After a failure
	// their content is undefined and they are not to be written, as some may be pages of zeros.
	Dst  buf.Vec
	Done Completer

	// Err is the result, set when FetchDone is called:
	//   OK           every block is in Dst and matches its checksum
	//   Absent       there is no such object: what named it is out of date
	//   Invalid      the range lies beyond the object
	//   Unsupported  the object is stored in a form that cannot be read in parts
	//   Corrupt      no combination of fragments gives blocks that match
	//   Unreachable  too few fragments could be asked, or the manifest could not
	//   IO           too few fragments are left, or could be read
	//   Closed       the Client is closed
	Err errs.Kind
	// Via is where the blocks came from, if they came: from a drive, an ASD or a rebuild, the last of those.
	Via block.Rung

	fetchState
}

// fetchState is the Client's share of a Fetch.
type fetchState struct {
	ent       *entry
	next      *Fetch // in whichever list it waits
	cursor    uint32 // blocks handed to parts so far
	flying    int32  // parts under way
	seg       int    // the place in Dst that cursor stands for: Segs[seg], segOff bytes in
	segOff    uint32
	queued    bool  // it is in Client.waiting
	spoiled   bool  // pages of its Dst are gone: it cannot begin anew
	refreshed uint8 // times that the manifest was asked for again after a failure
	parks     uint16
	since     int64 // the Client's time when it was asked for
}

// fetchList is a FIFO through Fetch.next.
type fetchList struct{ head, tail *Fetch }

func (l *fetchList) push(f *Fetch) {
	f.next = nil
	if l.head == nil {
		l.head = f
	} else {
		l.tail.next = f
	}
	l.tail = f
}

func (l *fetchList) pop() *Fetch {
	f := l.head
	if f == nil {
		return nil
	}
	l.head, f.next = f.next, nil
	if l.head == nil {
		l.tail = nil
	}
	return f
}

// take empties the list into the one returned.
func (l *fetchList) take() fetchList {
	t := *l
	*l = fetchList{}
	return t
}
