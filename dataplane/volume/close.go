package volume

import "vstor/dataplane/ring"

// timerFunc is a Timer of its own, for what happens rarely.
type timerFunc struct{ ring.Timer }

// Close stops the vDisk: done runs on the loop once nothing of it is in the journal's queue any more and no
// goroutine works for it. What is not sealed stays in the journal. On the loop.
func (v *Volume) Close(done func()) {
	v.closed = true
	v.cancel()
	v.loop.StopTimer(&v.ageTimer)
	v.idle = append(v.idle, func() {
		v.keeper.Remove(v)
		v.ov.DropAll()
		if v.m == nil {
			done()
			return
		}
		v.m.Close(done)
	})
	v.whenIdle()
}
