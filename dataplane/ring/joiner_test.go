package ring

import (
	"testing"
	"time"

	"vstor/dataplane/buf"
)

// What a loop used is joined, whoever uses it meanwhile, and Stop leaves nothing lent.
func TestJoiner(t *testing.T) {
	pool, err := buf.NewPool(64<<20, 0)
	if err != nil {
		t.Fatal(err)
	}
	l, err := New(Options{Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
	j := Join(l)
	var v buf.Vec
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(time.Millisecond) {
		done := false
		l.Call(func() {
			pool.Alloc(&v, 2048)
			if free := pool.Free() + v.Len()/buf.PageSize; free != pool.Pages() {
				t.Errorf("%d pages of %d are free or in use", free, pool.Pages())
			}
			pool.ReleaseVec(&v)
			done = pool.Joined() >= 4
		})
		if done {
			break
		}
		if time.Now().After(end) {
			t.Fatal("nothing is joined")
		}
	}
	j.Stop()
	l.Stop()
	if pool.Free() != pool.Pages() {
		t.Error("a stretch is lent for ever")
	}
	if s, ok := pool.Lend(); ok { // as nothing else is
		pool.TakeBack(s)
	}
	if err := pool.Close(); err != nil {
		t.Fatal(err)
	}
}
