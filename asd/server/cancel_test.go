package server

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"vstor/asd/proto"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
)

// hang makes all of some kind of access wait until the drive is released.
func (w *world) hang(on uint8) { w.drive.Set(dio.Rule{On: on, Do: dio.Stall, Chance: 1}) }

func (w *world) heal() {
	w.drive.Set()
	w.drive.Release()
}

// until polls.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not in a minute", what)
		}
	}
}

func (p *peer) answers(n int) map[uint64]answer {
	p.t.Helper()
	out := map[uint64]answer{}
	for range n {
		a, err := p.recv()
		must(p.t, err)
		if _, twice := out[a.ID]; twice {
			p.t.Fatalf("request %d has two replies", a.ID)
		}
		out[a.ID] = a
	}
	return out
}

// While the drive hangs: what takes no IO is answered, replies overtake, what waits for a worker can be
// canceled or runs out of time, and each request has one reply.
func TestHangingDrive(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Workers = 3 })
	p := w.dial()
	for i := range 4 {
		must(t, p.put(i, 8192))
	}
	w.hang(dio.Reads)
	read := p.send(proto.TReadRanges, 0, rangesBody(rng(1, 0, 4096)), nil)
	var busy, late, canceled []uint64
	for range 2 { // both workers that are not for deletes alone
		busy = append(busy, p.send(proto.TVerify, 0, rangeBody(1, 0, 0), nil))
	}
	until(t, "stalled reads", func() bool { return w.drive.Stalled() == 3 })
	for range 5 {
		late = append(late, p.send(proto.TVerify, 1, rangeBody(1, 0, 0), nil))
		canceled = append(canceled, p.send(proto.TVerify, 0, rangeBody(1, 0, 0), nil))
	}
	for _, id := range canceled {
		p.send(proto.TCancel, 0, binary.LittleEndian.AppendUint64(nil, id), nil)
	}
	p.send(proto.TCancel, 0, binary.LittleEndian.AppendUint64(nil, 99999), nil)
	ping, stat := p.send(proto.TPing, 0, nil, nil), p.send(proto.TStat, 0, nil, nil)
	keys := key(3).Append(nil)
	del := p.send(proto.TDelete, 0, proto.AppendSum(nil, xxhash.Sum64(keys)), keys)
	first := p.answers(3)
	for _, id := range []uint64{ping, stat, del} {
		if a, ok := first[id]; !ok || a.err() != nil {
			t.Errorf("request %d waits for the drive, or fails: %v", id, a.err())
		}
	}
	time.Sleep(5 * time.Millisecond)
	w.heal()
	rest := p.answers(13)
	for _, id := range append(busy, read) {
		if a := rest[id]; a.err() != nil || a.Type == 0 {
			t.Errorf("request %d: %v", id, a.err())
		}
	}
	for _, id := range slices.Concat(late, canceled) {
		if a := rest[id]; a.Kind() != errs.Canceled {
			t.Errorf("request %d: %v", id, a.err())
		}
	}
}

// A connection that closes cancels what has not begun; puts that have are carried through.
func TestCloseCancels(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.PutBuffers = 2; o.Workers = 2 })
	p := w.dial()
	must(t, p.put(9, 8192))
	w.hang(dio.Writes | dio.Reads)
	for i := range 2 {
		data := payload(i, 8192)
		p.send(proto.TPut, 0, putBody(i, data, nil), data)
	}
	p.send(proto.TVerify, 0, rangeBody(9, 0, 0), nil) // begun
	for range 2 {
		p.send(proto.TGet, 0, rangeBody(9, 0, 4096), nil)
	}
	until(t, "stalled puts", func() bool { return w.drive.Stalled() == 3 })
	p.nc.Close()
	canceled := 0
	until(t, "the connection's end", func() bool {
		canceled = 0
		w.srv.loop.Call(func() {
			for r := w.srv.core.conns.requests; r != nil; r = r.next {
				if r.canceled.Load() {
					canceled++
				}
			}
		})
		return canceled == 5
	})
	w.heal()
	until(t, "no connection", func() bool { return w.srv.Stats().Connections == 0 })
	if gets := w.store.Stat().Gets; gets != 0 {
		t.Errorf("%d reads were begun", gets)
	}
	q := w.dial()
	for i := range 2 {
		must(t, q.call(proto.TVerify, rangeBody(i, 0, 0), nil).err())
	}
}

// A put whose data ends in the middle leaves nothing behind; its buffer serves the next.
func TestHalfPuts(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.PutBuffers = 1 })
	data := payload(1, 512<<10)
	whole := message(proto.TPut, 1, 0, putBody(1, data, nil), data)
	for _, n := range []int{40, 300, 5000, 100 << 10, 400 << 10, len(whole) - 1} {
		p := w.dial()
		_, err := p.nc.Write(whole[:n])
		must(t, err)
		p.nc.Close()
	}
	p := w.dial()
	if a := p.call(proto.TVerify, rangeBody(1, 0, 0), nil); a.Kind() != errs.Absent {
		t.Errorf("half a put: %v", a.err())
	}
	must(t, p.put(1, 512<<10))
}
