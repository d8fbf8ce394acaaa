package volume

import (
	"context"
	"sync"

	"vstor/dataplane/ids"
)

// scoRange is how many SCO numbers are reserved at once: 2^32 numbers are plenty, a metadata write per
// SCO is not needed.
const scoRange = 64

// scoNumbers gives out SCO numbers from ranges that are durably reserved before use: a number that a
// crash left half used is never used again. Any goroutine.
type scoNumbers struct {
	objects Objects
	ns      ids.NamespaceID
	epoch   ids.Epoch

	mu        sync.Mutex
	next, end ids.SCONum
}

func (s *scoNumbers) init(o Objects, ns ids.NamespaceID, e ids.Epoch) {
	s.objects, s.ns, s.epoch = o, ns, e
}

func (s *scoNumbers) take(ctx context.Context) (ids.SCONum, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == s.end {
		first, err := s.objects.ReserveSCOs(ctx, s.ns, s.epoch, scoRange)
		if err != nil {
			return 0, err
		}
		s.next, s.end = first, first+scoRange
	}
	s.next++
	return s.next - 1, nil
}
