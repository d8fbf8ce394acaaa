package pracc

import (
	"sync"

	"vstor/dataplane/errs"
)

// jobs are the decodings that are too large for the loop. At most Options.Workers goroutines do one each;
// the others stand in line, holding their scratch pages, as no worker waits for anything.
type jobs struct {
	busy       int
	head, tail *rebuild // in line, through rebuild.next

	wg   sync.WaitGroup
	mu   sync.Mutex
	done *rebuild // guarded by mu: done, and the loop has not heard of it; through rebuild.next
}

// start hands rb's job to a worker, or puts it in line for one. Loop only.
func (w *jobs) start(c *Client, rb *rebuild) {
	rb.next = nil
	if w.busy < c.opt.Workers {
		w.busy++
		w.wg.Add(1)
		go w.run(c, rb)
		return
	}
	if w.head == nil {
		w.head = rb
	} else {
		w.tail.next = rb
	}
	w.tail = rb
}

// run is a worker: one job, then the loop is told. A goroutine costs nothing beside a job, so none waits
// around for the next. If the loop has stopped the post is refused, and the loop looks by itself.
func (w *jobs) run(c *Client, rb *rebuild) {
	rb.job.run()
	w.mu.Lock()
	rb.next, w.done = w.done, rb
	w.mu.Unlock()
	w.wg.Done()
	c.loop.Post((*jobsDone)(c))
}

// jobsDone is Client as the message that workers post.
type jobsDone Client

// RunOnLoop implements ring.Message.
func (d *jobsDone) RunOnLoop() {
	c := (*Client)(d)
	c.jobs.drain(c)
	c.settle()
}

// drain goes on with the rebuilds whose jobs are done, and gives their workers' places to those in line.
func (w *jobs) drain(c *Client) {
	w.mu.Lock()
	done := w.done
	w.done = nil
	w.mu.Unlock()
	for done != nil {
		rb := done
		done = rb.next
		w.busy--
		rb.decoded()
	}
	for w.head != nil && (c.closing || w.busy < c.opt.Workers) {
		rb := w.head
		w.head = rb.next
		if c.closing {
			rb.over(errs.Closed)
		} else {
			w.start(c, rb)
		}
	}
}
