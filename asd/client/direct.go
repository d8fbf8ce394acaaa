package client

import (
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
)

// Direct is the drive of an ASD of this host, which this process reads itself: on the loop of the Reader that it came
// by, under a lease of that Reader's connection. Each connection has its own. All of it is the loop's.
//
// # Why no read sees space that was used again
//
// An ASD gives space to another fragment only when it has rested for a lease since it was located last, and
// since the last lease whose holder had not been told to forget it (proto/short.go). So bytes that were read are
// those of the fragment if they all had been read before the end of the lease that held when the fragment was
// found here. That end is the pin, but for its last bit: Locate hands it out, and Unpin looks at the clock once
// the read has ended. A lease that was renewed meanwhile does not count, for it need not hold for this fragment
// any more. The clock is the boot-time clock, so a machine that was suspended and a process that was stopped
// find their leases run out. Behind all that stands the checksum of each block.
type Direct struct {
	r    *Reader
	file *dio.Disk
	pins [2]int // reads under way that began before a Forget and behind it, by turns
	turn uint64 // where those that begin now are counted
	gone bool   // its connection has ended: no read begins any more
	// until is the end of the lease, 0 before the first, on the boot-time clock.
	until int64
}

// Direct is the drive, if this process can read it now: it was given it, and a lease holds. Whatever it does
// not know where to find, Locate asks for, and answers Unreachable meanwhile: then ReadRange is the way.
func (r *Reader) Direct() *Direct {
	d := r.short.d
	if d == nil || d.gone {
		return nil
	}
	r.short.used = true
	if !r.short.timer.Armed() {
		r.renew() // it was not used for long
	}
	if !d.holds() {
		return nil
	}
	return d
}

func (d *Direct) holds() bool { return d.r.short.now() < d.until }

// Locate finds a range of a fragment, as pracc.Drive has it. Kinds: OK, Invalid (beyond the fragment's end),
// Unreachable (not known here). It allocates nothing if dst has room.
func (d *Direct) Locate(key layout.FragKey, off, n uint32, dst []layout.Extent) ([]layout.Extent, uint64, errs.Kind) {
	s := &d.r.short
	if d.gone || !d.holds() {
		return dst, 0, errs.Unreachable
	}
	p := s.table.find(key)
	if p == nil {
		d.r.stats.Short.Misses.Inc()
		d.r.want(key)
		return dst, 0, errs.Unreachable
	}
	dst, ok := s.table.locate(p, off, n, dst)
	if !ok {
		return dst, 0, errs.Invalid
	}
	d.pins[d.turn]++
	st := &d.r.stats.Short
	st.Reads.Inc()
	st.Bytes.Add(uint64(n))
	return dst, uint64(d.until)&^1 | d.turn, errs.OK
}

// Unpin ends a read, and reports whether the bytes that it brought are sure to be the fragment's.
func (d *Direct) Unpin(pin uint64) bool {
	turn := pin & 1
	d.pins[turn]--
	switch {
	case d.gone:
		d.closeFile()
	case turn != d.turn && d.pins[turn] == 0:
		d.r.forgotten()
	}
	if d.r.short.now() < int64(pin&^1) {
		return true
	}
	d.r.stats.Short.Late.Inc()
	return false
}

// File is the drive; it stays open until the last Unpin.
func (d *Direct) File() dio.File { return d.file }

// leave ends the use of the drive: what is being read ends.
func (d *Direct) leave() {
	d.gone = true
	d.closeFile()
}

func (d *Direct) closeFile() {
	if d.pins == [2]int{} {
		d.file.Close()
	}
}
