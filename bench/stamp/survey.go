package stamp

import (
	"slices"
	"sync"

	"vstor/bench/nbdc"
	"vstor/dataplane/errs"
)

// Damage is what a Survey found.
type Damage struct {
	Unreadable []int // blocks that gave an error
	Last       error // one of these errors
}

// Survey reads the whole volume as Verify does, but blocks may give errors, and nothing is taken over: the
// next Survey checks against the same. An error of kind Corrupt names the blocks that are wrong.
func (c *Checker) Survey() (Damage, error) {
	conn, err := c.opt.Dial()
	if err != nil {
		return Damage{}, err
	}
	defer conn.Close()
	s := surveyor{c: c, conn: conn}
	var wg sync.WaitGroup
	runs := make(chan int)
	for range surveyDepth {
		wg.Go(func() {
			buf := make([]byte, surveyRun*BlockSize)
			for block := range runs {
				s.look(block, min(surveyRun, c.opt.Blocks-block), buf)
			}
		})
	}
	for block := 0; block < c.opt.Blocks; block += surveyRun {
		runs <- block
	}
	close(runs)
	wg.Wait()
	slices.Sort(s.damage.Unreadable)
	if s.lost != nil {
		return s.damage, s.lost
	}
	return s.damage, complain(s.wrong)
}

const (
	surveyRun   = 64 // blocks read at once, and one by one if that fails
	surveyDepth = 16 // runs under way: a read that fails may take its time
	// surveySplit is how many unreadable blocks are told apart from readable neighbours; beyond them a run
	// counts as a whole.
	surveySplit = 2048
)

// surveyor is a Survey under way.
type surveyor struct {
	c    *Checker
	conn *nbdc.Conn

	mu     sync.Mutex
	damage Damage
	wrong  []string
	lost   error // the connection's end
}

func (s *surveyor) look(block, n int, buf []byte) {
	if s.read(block, n, buf) {
		return
	}
	s.mu.Lock()
	split := len(s.damage.Unreadable) < surveySplit
	s.mu.Unlock()
	for i := range n {
		if split && s.read(block+i, 1, buf) {
			continue
		}
		s.mu.Lock()
		s.damage.Unreadable = append(s.damage.Unreadable, block+i)
		s.mu.Unlock()
	}
}

// read reads n blocks and judges them; false: they gave an error.
func (s *surveyor) read(block, n int, buf []byte) bool {
	buf = buf[:n*BlockSize]
	err := s.conn.Read(buf, int64(block)*BlockSize)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if s.damage.Last = err; lostConnection(err) && s.lost == nil {
			s.lost = errs.Wrap(errs.Of(err), err, "stamp: blocks %d to %d", block, block+n-1)
		}
		return false
	}
	o := s.c.oracle
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range n {
		if w, _ := o.check(block+i, buf[i*BlockSize:(i+1)*BlockSize], o.settledMark()); w != "" {
			s.wrong = append(s.wrong, w)
		}
	}
	return true
}
