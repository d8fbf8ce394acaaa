package node

import (
	"fmt"
	"testing"
	"time"

	"vstor/dataplane/block"
)

// A machine that dies while a put waits for its last fragment leaves no object that lacks it: the killed process
// does not take the silence of its drive for a fault and commit with the others. What was written is in the journal,
// and is read after the start though two more drives are gone by then.
func TestKillIsNoFault(t *testing.T) {
	m := newFsckModel(t, 9)
	last := m.host.files["/d/asd-0/data"]
	last.mu.Lock()
	last.slow = make(chan struct{})
	last.mu.Unlock()
	o := &op{req: block.Request{Op: block.Write, Len: 256 << 10}, data: make([]byte, 256<<10)} // a SCO of one chunk
	fill(o.data, m.rng)
	m.submit(o)
	o.wait()
	m.note([]*op{o})
	m.d.rig.loop.Call(m.d.vol.Seal)
	for m.n.proxy.Counters().FragsWritten < 5 { // good enough
		time.Sleep(time.Millisecond)
	}
	m.host.frozen.Store(true)
	close(last.slow)
	for last.hung.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(100 * time.Millisecond) // for what an error would lead to
	m.kill(false)
	for i := 1; i <= 2; i++ {
		m.host.hidden[fmt.Sprintf("/d/asd-%d/data", i)] = true
	}
	m.start(false)
	m.check()
	if err := m.n.Close(); err != nil {
		t.Fatal(err)
	}
}
