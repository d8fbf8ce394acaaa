package bench

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// progress tells how far a run is: on a terminal a line that is kept up to date below what was said, elsewhere only a
// prefix to what is said.
type progress struct {
	mu          sync.Mutex // guards all below, and keeps what two goroutines write apart
	out         io.Writer
	live        bool
	done, all   int
	spent, left time.Duration // by plan: of the steps done, of those to do
	took        time.Duration // for what is spent
	began       time.Time     // of the first step
	since       time.Time     // of what is under way
	doing       string
}

func newProgress(out io.Writer) *progress {
	p := &progress{out: out}
	if f, is := out.(*os.File); is {
		st, err := f.Stat()
		p.live = err == nil && st.Mode()&os.ModeCharDevice != 0
	}
	return p
}

// plan is told what is to come.
func (p *progress) plan(all int, left time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all, p.left, p.began = all, left, time.Now()
}

// say writes a line.
func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
	fmt.Fprintf(p.out, format+"\n", args...)
	p.draw()
}

// start says what is under way.
func (p *progress) start(doing string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.doing, p.since = doing, time.Now()
	p.draw()
}

// step is told that something that was planned is done.
func (p *progress) step(cells int, cost time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += cells
	p.spent += cost
	p.left -= cost
	p.took = time.Since(p.began)
	p.doing = ""
}

// remaining is how long it takes yet: what is planned, at the pace so far. The first steps say little of the pace, so
// the plan counts as much as a minute of them.
func remaining(took, spent, left time.Duration) time.Duration {
	const trust = time.Minute
	return time.Duration(float64(left) * float64(took+trust) / float64(spent+trust))
}

// where is how far it is: cells done, and the time left.
func (p *progress) where() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.position()
}

func (p *progress) position() string {
	left := remaining(p.took, p.spent, p.left)
	if !p.began.IsZero() {
		left = max(left-(time.Since(p.began)-p.took), 0)
	}
	return fmt.Sprintf("%d/%d, %s left", p.done, p.all, minutes(left))
}

func minutes(d time.Duration) string {
	d = d.Round(time.Second)
	if d < time.Minute {
		return fmt.Sprintf("%d s", d/time.Second)
	}
	return fmt.Sprintf("%d min %02d s", d/time.Minute, d%time.Minute/time.Second)
}

// draw writes the line that is kept up to date, and erase takes it away; both with mu held.
func (p *progress) draw() {
	if p.live && p.doing != "" {
		fmt.Fprintf(p.out, "\r\x1b[K[%s] %s, %d s", p.position(), p.doing, time.Since(p.since)/time.Second)
	}
}

func (p *progress) erase() {
	if p.live {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

// tick keeps the line up to date until it is stopped.
func (p *progress) tick() (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for t := time.NewTicker(time.Second); ; {
			select {
			case <-t.C:
				p.mu.Lock()
				p.draw()
				p.mu.Unlock()
			case <-end:
				t.Stop()
				return
			}
		}
	}()
	return func() {
		close(end)
		<-ended
		p.mu.Lock()
		defer p.mu.Unlock()
		p.erase()
	}
}
