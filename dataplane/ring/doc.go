// Package ring is the loop that owns the hot path: one locked OS thread with one io_uring, which runs
// every callback of its sockets, drives and timers to completion. Where io_uring is forbidden it has a plain
// engine instead, of blocking workers and epoll, which does the same more slowly.
//
// State that a loop owns needs no lock: it is touched by callbacks of that loop alone. Other goroutines
// reach it through Post. Nothing that may block runs on a loop.
//
// The thread goes round in passes:
//
//	take completions > run the inbox > fire timers > deferred completions
//	  > hooks of stage 0 (devices: a journal writes what the pass collected)
//	  > hooks of stage 1 (sockets: all replies of the pass leave in one send)
//	  > one io_uring_enter, which submits and waits
//
// It waits only when nothing is left to do, and where reads of drives come back fast not even then (spin.go). What a
// callback starts reaches the kernel at the end of the pass, together with all the rest: the batch saves system calls.
// Reads of drives do not wait for it unless the loop has much to do (uring.go: lightMost).
//
// Layers, from the top: loop.go (the pass), op.go and transfer.go (an operation and what happens when it
// comes back short), inbox.go, timer.go, hook.go, held.go; engine.go is the seam to whatever carries the
// operations; uring*.go carry them by io_uring, plain*.go without. Beside them joiner.go has the pool's pages come to
// lie in big pages.
package ring
