package server

import (
	"sync"

	"vstor/asd/proto"
	"vstor/asd/store"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ring"
)

// work is the queues between the loop and the workers. They are bounded by requestsMax.
//
//	puts     two workers to a put buffer; they write and do not wait for the sync, which all that were
//	         written share
//	urgent   deletes and fences: one worker has nothing else to do, all others but those of puts do them
//	         first, so that a drive full of puts and scrubs still deletes
//	other    the rest
type work struct {
	mu     sync.Mutex // never held across IO
	wake   [3]sync.Cond
	queues [3]requestQueue
	closed bool
	done   sync.WaitGroup
}

const (
	workPut = iota
	workUrgent
	workOther
)

// worker is what a worker goroutine needs.
type worker struct {
	srv   *Server
	loop  *ring.Loop
	pool  *buf.Pool
	store *store.Store
	buf   []byte // of lists, deletes and descriptors; kept
}

// classOf is the queue for a type.
func classOf(t uint8) int {
	switch t {
	case proto.TPut:
		return workPut
	case proto.TDelete, proto.TFence:
		return workUrgent
	}
	return workOther
}

// start begins the workers; stop ends them.
func (w *work) start(s *Server) {
	for i := range w.wake {
		w.wake[i].L = &w.mu
	}
	run := func(n int, classes ...int) {
		for range n {
			w.done.Add(1)
			go w.run(&worker{srv: s, loop: s.loop, pool: s.pool, store: s.opts.Store}, classes)
		}
	}
	run(2*s.opts.PutBuffers, workPut)
	run(1, workUrgent)
	run(s.opts.Workers-1, workOther, workUrgent)
}

// stop waits for what is queued and under way.
func (w *work) stop() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	for i := range w.wake {
		w.wake[i].Broadcast()
	}
	w.done.Wait()
}

// add queues a request, from the loop.
func (w *work) add(r *request) {
	class := classOf(r.typ)
	w.mu.Lock()
	w.queues[class].push(r)
	w.mu.Unlock()
	w.wake[class].Signal()
	if class == workUrgent {
		w.wake[workOther].Signal()
	}
}

// run serves the first of classes, and before it those that are named after it.
func (w *work) run(k *worker, classes []int) {
	defer w.done.Done()
	for r := w.next(classes); r != nil; r = w.next(classes) {
		r.kind, r.text = errs.OK, r.text[:0]
		switch {
		case r.over():
			r.failed(gone)
		case r.typ == proto.TPut:
			r.runPut(k) // it posts
			continue
		default:
			r.carryOut(k)
		}
		k.loop.Post(r)
	}
}

// next waits for a request; nil: stopped, and nothing is left.
func (w *work) next(classes []int) *request {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		for i := len(classes) - 1; i >= 0; i-- {
			if q := &w.queues[classes[i]]; q.head != nil {
				return q.pop()
			}
		}
		if w.closed {
			return nil
		}
		w.wake[classes[0]].Wait()
	}
}

// carryOut does the work; its outcome is in r.kind, r.text and r.frame.Data.
func (r *request) carryOut(k *worker) {
	switch r.typ {
	case proto.TDelete:
		r.runDelete(k)
	case proto.TGet:
		r.runGet(k)
	case proto.TList:
		r.runList(k)
	case proto.TDescribe:
		r.runDescribe(k)
	case proto.TVerify:
		r.runVerify(k)
	case proto.TFence:
		if err := k.store.Fence(r.ns, r.epoch); err != nil {
			r.failed(err)
		}
	case proto.TFault:
		if err := k.srv.opts.SetFaults(r.fault); err != nil {
			r.failed(err)
		}
	}
}

// failed is the outcome of a request on a worker.
func (r *request) failed(err error) {
	r.setError(err)
	r.kind = errs.Of(err)
}

// RunOnLoop takes a request back from a worker (ring.Message).
func (r *request) RunOnLoop() {
	if r.typ == proto.TPut || r.typ == proto.TDelete {
		r.release() // others need it, and the peer may be slow to take the reply
	}
	r.answer(r.kind)
}

// requestQueue is a FIFO through request.queued.
type requestQueue struct{ head, tail *request }

func (q *requestQueue) push(r *request) {
	r.queued = nil
	if q.tail == nil {
		q.head = r
	} else {
		q.tail.queued = r
	}
	q.tail = r
}

func (q *requestQueue) pop() *request {
	r := q.head
	if q.head = r.queued; q.head == nil {
		q.tail = nil
	}
	r.queued = nil
	return r
}
