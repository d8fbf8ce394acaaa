package node

import (
	"strings"
	"testing"
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/errs"
)

// The newest manifests are lost with their commits, and the map's checkpoint is past them, so that the vDisk opens:
// what lay there cannot be read and is not taken for garbage, which is said, and a repair brings it back.
func TestLostManifestsAreNoGarbage(t *testing.T) {
	m := newFsckModel(t, 4)
	m.rounds(150)
	m.flushMap()
	m.down(true, false)
	if n := m.harmNewest(5); n != 5 {
		t.Fatalf("%d commits", n)
	}
	m.start(false)
	for end := time.Now().Add(time.Minute); !strings.Contains(m.log.(*lastWords).String(), "lost manifests"); {
		if time.Now().After(end) {
			t.Fatal("nobody said that manifests are lost")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := m.unreadable(); n == 0 {
		t.Fatal("all can be read: no block lay in what was lost")
	}
	m.down(true, false)
	r := m.fsck(FsckOptions{Repair: true})
	if r.Found == 0 || r.Found != r.Repaired {
		t.Fatalf("%+v", r)
	}
	m.mustBeWhole("after the repair")
	m.start(false)
	m.check()
	m.rounds(20)
	m.check()
	m.down(true, false)
}

// flushMap brings the map's checkpoint to the last commit.
func (m *model) flushMap() {
	flushed := make(chan error, 2)
	m.d.rig.loop.Call(func() {
		m.d.m.FlushAll(func(err error) {
			flushed <- err
			m.d.m.Sync(func(err error) { flushed <- err })
		})
	})
	for range 2 {
		if err := <-flushed; err != nil {
			m.fatalf("%v", err)
		}
	}
}

// unreadable is how many blocks cannot be read; the others are as they should be.
func (m *model) unreadable() (n int) {
	for b := range m.size / 4096 {
		o := &op{req: block.Request{Op: block.Read, Off: b * 4096, Len: 4096}}
		m.submit(o)
		<-o.done
		switch o.req.Err {
		case errs.OK:
			m.compare(b, o.data, nil)
		case errs.Absent, errs.IO: // EIO to a client
			n++
		default:
			m.fatalf("block %d: %v", b, o.req.Err)
		}
	}
	return n
}
