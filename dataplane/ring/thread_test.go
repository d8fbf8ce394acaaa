package ring

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
)

// A loop keeps to its CPU, and gives its thread back as it was.
func TestCPUs(t *testing.T) {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	last := 0
	for c := range 1024 {
		if all.IsSet(c) {
			last = c
		}
	}
	pool, err := buf.NewPool(1<<20, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	l, err := New(Options{Pool: pool, CPUs: []int{last}})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan unix.CPUSet)
	go func() {
		var after unix.CPUSet
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := l.Run(); err != nil {
			t.Error(err)
		}
		unix.SchedGetaffinity(0, &after)
		ended <- after
	}()
	var within unix.CPUSet
	l.Call(func() { unix.SchedGetaffinity(0, &within) })
	l.Stop()
	if within.Count() != 1 || !within.IsSet(last) {
		t.Errorf("the loop ran on %d CPUs, CPU %d among them: %v", within.Count(), last, within.IsSet(last))
	}
	if after := <-ended; after != all {
		t.Errorf("the thread has %d CPUs after the loop, %d before", after.Count(), all.Count())
	}
}

// A loop goes before the other threads of its process where that is allowed, and gives its thread back as it was.
func TestFavoured(t *testing.T) {
	pool, err := buf.NewPool(1<<20, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	l, err := New(Options{Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	prio := func() int {
		raw, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
		if err != nil {
			t.Error(err)
		}
		return 20 - raw
	}
	type nice struct{ before, after int }
	ended := make(chan nice)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		n := nice{before: prio()}
		if err := l.Run(); err != nil {
			t.Error(err)
		}
		n.after = prio()
		ended <- n
	}()
	var within int
	l.Call(func() { within = prio() })
	l.Stop()
	n := <-ended
	if n.after != n.before {
		t.Errorf("nice %d after the loop, %d before", n.after, n.before)
	}
	switch want := max(-20, n.before-favoured); {
	case within == n.before:
		t.Skip("NOT TESTED: priorities may not be raised here")
	case within != want:
		t.Errorf("the loop ran at nice %d, not %d", within, want)
	}
}

// A CPU that is none is refused.
func TestNoSuchCPU(t *testing.T) {
	pool, err := buf.NewPool(1<<20, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	l, err := New(Options{Pool: pool, CPUs: []int{1023}})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Start(); errs.Of(err) != errs.Invalid {
		t.Errorf("CPU 1023: %v", err)
	}
	l.Stop()
}
