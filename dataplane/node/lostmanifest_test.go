package node

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/errs"
)

// The newest manifests are lost with their commits, and the map's checkpoint is past them, so that the vDisk opens:
// what lay there cannot be read and is not taken for garbage, which is said, and a repair brings it back.
func TestLostManifestsAreNoGarbage(t *testing.T) {
	m := lostBelowCheckpoint(t, 4)
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
	m.mustBeRepaired()
}

// lostBelowCheckpoint is a model that lost its newest commits and opens all the same. What is sealed between flushMap
// and the end lies behind the checkpoint and is missed; then it is another seed's turn.
func lostBelowCheckpoint(t *testing.T, seed uint64) *model {
	for range 20 {
		m := newFsckModel(t, seed)
		m.rounds(150)
		m.flushMap()
		m.down(true, false)
		if n := m.harmNewest(5); n != 5 {
			t.Fatalf("%d commits", n)
		}
		log := slog.New(slog.NewTextHandler(m.log, nil))
		n, err := Start(Options{Config: m.config(), Log: log, Host: m.host, NoNBD: true})
		if err != nil {
			t.Fatal(err)
		}
		opens := n.failed["v"] == nil
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		if opens {
			return m
		}
		seed += 100
	}
	t.Fatal("what was sealed last was always behind the checkpoint")
	return nil
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
