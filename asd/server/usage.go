package server

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
)

// usage is what the process takes of the machine, read at most once per usageAge: Stat is answered on the loop.
type usage struct {
	mu   sync.Mutex
	at   time.Time
	rss  int64 // bytes
	cpus int64 // ns
}

const usageAge = 500 * time.Millisecond

func (u *usage) read() (rss, cpuNanos int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if time.Since(u.at) < usageAge {
		return u.rss, u.cpus
	}
	u.at = time.Now()
	if b, err := os.ReadFile("/proc/self/statm"); err == nil { // pages: all, resident, ...
		var all, resident int64
		if n, _ := fmt.Sscan(string(b), &all, &resident); n == 2 {
			u.rss = resident * int64(os.Getpagesize())
		}
	}
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) == nil {
		u.cpus = r.Utime.Nano() + r.Stime.Nano()
	}
	return u.rss, u.cpus
}
