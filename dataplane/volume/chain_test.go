package volume

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// SCOs that end in any order commit in the order of their turns, without gaps, also where some are given up.
func TestChainOrder(t *testing.T) {
	var c chain
	rng := rand.New(rand.NewPCG(1, 1))
	var got []int
	var wg sync.WaitGroup
	given := 0
	for i := range 200 {
		turn := c.enter()
		giveUp := i%7 == 3
		if giveUp {
			given++
		}
		pause := time.Duration(rng.IntN(300)) * time.Microsecond
		wg.Go(func() {
			time.Sleep(pause)
			if err := turn.wait(context.Background()); err != nil {
				t.Error(err)
			}
			c.next(func(n ids.CommitNum) errs.Kind {
				if giveUp {
					return errs.Canceled
				}
				if want := ids.CommitNum(len(got) + 1); n != want {
					t.Errorf("commit %d, want %d", n, want)
				}
				return errs.OK
			}, func(ids.CommitNum) { got = append(got, i) })
			turn.pass()
		})
	}
	wg.Wait()
	for i := 1; i < len(got); i++ {
		if got[i] < got[i-1] {
			t.Fatalf("%d committed after %d", got[i], got[i-1])
		}
	}
	if len(got)+given != 200 || c.commit != ids.CommitNum(len(got)) {
		t.Errorf("%d committed, %d given up, number %d", len(got), given, c.commit)
	}
}

// A turn whose wait is cancelled holds up all behind it: what was to come before them is not there.
func TestChainCancel(t *testing.T) {
	var c chain
	first, second := c.enter(), c.enter()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if second.wait(ctx) == nil {
		t.Fatal("the second went before the first")
	}
	_ = first
}

type countingObjects struct {
	Objects
	next ids.SCONum
	asks int
}

func (o *countingObjects) ReserveSCOs(_ context.Context, _ ids.NamespaceID, _ ids.Epoch, n int) (ids.SCONum, error) {
	o.asks++
	first := o.next
	o.next += ids.SCONum(n)
	return first, nil
}

func TestSCONumbersAreUnique(t *testing.T) {
	o := &countingObjects{next: 1}
	var s scoNumbers
	s.init(o, 1, 1)
	seen := map[ids.SCONum]bool{}
	for range 3 * scoRange {
		n, err := s.take(context.Background())
		if err != nil || seen[n] || n == 0 {
			t.Fatalf("number %d: %v, seen %v", n, err, seen[n])
		}
		seen[n] = true
	}
	if o.asks != 3 {
		t.Errorf("asked %d times for %d numbers", o.asks, 3*scoRange)
	}
}
