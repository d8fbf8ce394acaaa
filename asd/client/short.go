package client

import (
	"encoding/binary"
	"time"

	"vstor/asd/proto"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/link"
	"vstor/dataplane/ring"
	"vstor/dataplane/wire"
)

// short is what a Reader asks so that Direct can answer: leases, a quarter of their length after the last was
// granted and only while somebody reads, and the extents of fragments that were looked for in vain, one request
// of each under way. It is the loop's.
type short struct {
	d     *Direct // of this connection; nil: none
	table extentTable
	used  bool // since the last lease was asked for
	boot  func() int64

	lease    link.Frame
	leaseOut bool
	sent     int64 // when it was asked for, on the boot-time clock
	timer    ring.Timer
	told     uint64 // deletes that the ASD told of
	synced   bool   // told is known
	clean    uint64 // deletes that were forgotten, and that no read under way has to do with
	clearing uint64 // will be clean when the reads of the last turn have ended
	said     uint64 // what of it the ASD knows
	forgot   [8]byte

	ask    link.Frame
	body   [proto.LocateMax * layout.FragKeySize]byte
	asked  []layout.FragKey // by the request under way
	wanted []layout.FragKey // by the next
	hook   ring.Hook
	found  []layout.Extent
	forget proto.Forget
}

// IDs of the Reader's own requests, beside pingID.
const (
	leaseID = 2
	askID   = 3
	// ownRequests are what a Reader asks beside reads.
	ownRequests = 3
)

// leaseMax is the longest lease that is believed; noLeasePause is when to ask again after none was granted.
const (
	leaseMax     = time.Minute
	noLeasePause = time.Second
)

func (r *Reader) initShort() {
	s := &r.short
	s.boot = r.loop.BootNow
	s.lease = link.Frame{Type: proto.TLease, ID: leaseID, Done: &r.frames}
	s.ask = link.Frame{Type: proto.TExtents, ID: askID, Done: &r.frames}
	s.timer.Fire = r.leaseDue
	s.hook = ring.Hook{Run: r.askNow, Stage: ring.StageDevice}
}

func (s *short) now() int64 { return s.boot() }

// startDirect begins to use a drive that came with the connection.
func (r *Reader) startDirect(file *dio.Disk) {
	s := &r.short
	if s.table.places == nil {
		s.table.init(r.opt.ExtentBytes)
		s.asked, s.wanted = make([]layout.FragKey, 0, proto.LocateMax), make([]layout.FragKey, 0, proto.LocateMax)
		s.found = make([]layout.Extent, 0, proto.ExtentsMax)
		s.forget.Keys = make([]layout.FragKey, 0, proto.ForgetMax)
	}
	s.table.clear()
	s.d = &Direct{r: r, file: file}
	s.leaseOut, s.synced, s.used = false, false, true
	s.clean, s.clearing, s.said = 0, 0, 0
	s.asked, s.wanted = s.asked[:0], s.wanted[:0]
	r.renew()
	r.showTable()
}

// endDirect is the end of the connection. Its lease is not used any more, although it may not have run out: the
// next process at the other end has promised nothing.
func (r *Reader) endDirect() {
	s := &r.short
	if s.d == nil {
		return
	}
	s.d.leave()
	s.d = nil
	r.loop.StopTimer(&s.timer)
	r.stats.Short.Dropped.Inc()
	s.table.clear()
	r.showTable()
}

// renew asks for a lease, unless an answer is due.
func (r *Reader) renew() {
	s := &r.short
	if s.leaseOut || s.lease.Queued() || r.conn == nil || r.conn.Ended() || r.closing || r.stopped {
		return
	}
	s.leaseOut, s.used = true, false
	s.sent, s.said = s.now(), s.clean
	s.lease.Body = binary.LittleEndian.AppendUint64(s.forgot[:0], s.clean)
	r.conn.Send(&s.lease)
}

// leaseDue is the timer's: those who read keep their lease, those who do not let it run out.
func (r *Reader) leaseDue() {
	if r.short.d != nil && r.short.used {
		r.renew()
	}
}

// leaseCame takes the answer to renew.
func (r *Reader) leaseCame(head *wire.Header, body []byte) {
	s := &r.short
	var l proto.Lease
	if head.Data != 0 || head.Kind() == errs.OK && l.Decode(body) != nil {
		r.nonsense("a lease reply of %d and %d bytes", len(body), head.Data)
		return
	}
	s.leaseOut = false
	if !s.synced {
		s.told, s.synced = l.Told, true
		s.clean, s.clearing, s.said = l.Told, l.Told, l.Told // it knows nothing that was deleted before
	}
	defer r.forgotten()
	if head.Kind() == errs.OK && l.Told != s.told { // something got lost, whatever it was
		s.told = l.Told
		r.forgetAll()
	}
	wait := noLeasePause
	if head.Kind() == errs.OK && l.Nanos > 0 {
		l.Nanos = min(l.Nanos, int64(leaseMax))
		s.d.until = max(s.d.until, s.sent+l.Nanos)
		wait = time.Duration(l.Nanos / 4)
	}
	r.loop.After(&s.timer, wait)
}

// want has a fragment located, soon.
func (r *Reader) want(key layout.FragKey) {
	s := &r.short
	if len(s.wanted) < cap(s.wanted) && !has(s.wanted, key) && !has(s.asked, key) {
		s.wanted = append(s.wanted, key)
	}
	if len(s.asked) == 0 {
		r.loop.AtPassEnd(&s.hook)
	}
}

func has(keys []layout.FragKey, key layout.FragKey) bool {
	for i := range keys {
		if keys[i] == key {
			return true
		}
	}
	return false
}

// askNow sends what was wanted in this pass, or since the last question, in one message.
func (r *Reader) askNow() {
	s := &r.short
	if s.d == nil || len(s.wanted) == 0 || len(s.asked) > 0 || s.ask.Queued() || r.stalled || r.conn.Ended() ||
		r.closing || r.stopped {
		return
	}
	s.asked, s.wanted = s.wanted, s.asked[:0]
	s.ask.Body = proto.AppendKeys(s.body[:0], s.asked)
	r.conn.Send(&s.ask)
	r.stats.Short.Asked.Add(uint64(len(s.asked)))
}

// extentsCame takes the answer to askNow.
func (r *Reader) extentsCame(head *wire.Header, body []byte) {
	s := &r.short
	if head.Data != 0 {
		r.nonsense("an extents reply with %d bytes of data", head.Data)
		return
	}
	if head.Kind() == errs.OK {
		f := proto.NewFound(body)
		for _, key := range s.asked {
			es, k := f.Next(s.found[:0])
			if k == errs.OK && s.d.lieOn(es) {
				s.table.put(key, es)
			}
		}
		if err := f.Done(); err != nil || f.Incarnation != r.life {
			s.table.clear()
			r.nonsense("extents of incarnation %d, this is %d (%v)", f.Incarnation, r.life, err)
			return
		}
	}
	s.asked = s.asked[:0]
	r.showTable()
	r.askNow()
}

// lieOn reports whether extents are on the drive, and not where no fragment lies.
func (d *Direct) lieOn(es []layout.Extent) bool {
	sum := uint64(0)
	for _, e := range es {
		if e.Off < ids.BlockSize || e.Off > d.file.Size()-int64(e.Len) {
			return false
		}
		sum += uint64(e.Len)
	}
	return sum < 1<<32
}

// forgetCame drops what was deleted.
func (r *Reader) forgetCame(head *wire.Header, body []byte) {
	s := &r.short
	f := &s.forget
	if head.Data != 0 || f.Decode(body) != nil {
		r.nonsense("a forget of %d and %d bytes", len(body), head.Data)
		return
	}
	if len(f.Keys) == 0 || s.synced && s.told+uint64(len(f.Keys)) != f.Told {
		r.forgetAll()
	}
	s.told, s.synced = f.Told, true
	for _, k := range f.Keys {
		if s.table.remove(k) {
			r.stats.Short.Forgotten.Inc()
		}
	}
	r.showTable()
	r.forgotten()
}

// forgotten sees to it that the ASD hears what was forgotten, as soon as no read is under way that began before: it
// waits for that, or for the end of the lease, before the space is used again. Without a lease it does not wait.
func (r *Reader) forgotten() {
	s := &r.short
	d := s.d
	if d == nil || !s.synced {
		return
	}
	if d.pins[1-d.turn] == 0 {
		s.clean = s.clearing
		if s.told != s.clean {
			s.clearing = s.told
			d.turn = 1 - d.turn
			if d.pins[1-d.turn] == 0 {
				s.clean = s.clearing
			}
		}
	}
	if s.clean != s.said && d.holds() {
		r.renew()
	}
}

func (r *Reader) forgetAll() {
	s := &r.short
	r.stats.Short.Forgotten.Add(uint64(s.table.n))
	s.table.clear()
	r.showTable()
}

func (r *Reader) showTable() {
	r.stats.Short.Entries.Set(int64(r.short.table.n))
	r.stats.Short.TableBytes.Set(int64(r.short.table.bytes()))
}
