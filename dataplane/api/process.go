package api

import (
	"bytes"
	"os"
	"runtime/metrics"
	"strconv"
	"syscall"
	"time"

	"vstor/dataplane/stat"
)

// processMetrics adds what every process of any program shows, under the names that Prometheus'
// own clients use, so that existing dashboards fit.
func processMetrics(p *stat.Page) {
	var ru syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &ru) == nil {
		cpu := time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
		p.Counter("process_cpu_seconds_total", "User and system CPU time in seconds.", cpu.Seconds())
	}
	p.Gauge("process_resident_memory_bytes", "Resident memory in bytes.", float64(ResidentBytes()))
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		p.Gauge("process_open_fds", "Open file descriptors.", float64(len(fds)))
	}
	samples := []metrics.Sample{
		{Name: "/sched/goroutines:goroutines"},
		{Name: "/gc/cycles/total:gc-cycles"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/total:bytes"},
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/gc/heap/allocs:objects"},
	}
	metrics.Read(samples)
	v := func(i int) float64 {
		if samples[i].Value.Kind() != metrics.KindUint64 {
			return 0
		}
		return float64(samples[i].Value.Uint64())
	}
	p.Gauge("go_goroutines", "Goroutines that exist.", v(0))
	p.Counter("go_gc_cycles_total", "Completed garbage collections.", v(1))
	p.Gauge("go_memstats_alloc_bytes", "Bytes of live and unswept heap objects.", v(2))
	p.Gauge("go_memstats_sys_bytes", "Bytes that the Go runtime has mapped.", v(3))
	p.Counter("go_memstats_alloc_bytes_total", "Bytes allocated on the heap, ever.", v(4))
	p.Counter("go_memstats_mallocs_total", "Heap objects allocated, ever.", v(5))
}

// ResidentBytes is this process's resident memory; 0 if /proc does not say.
func ResidentBytes() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	f := bytes.Fields(b)
	if len(f) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(string(f[1]), 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
