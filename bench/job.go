package bench

import "time"

// Figure is what a job is judged by.
type Figure string

// The figures.
const (
	IOPS    Figure = "IOPS"
	Latency Figure = "us" // mean, completion as fio sees it
	MBps    Figure = "MB/s"
)

// Job is one fio job and its goal: the ratio of our figure to the peer's.
type Job struct {
	Name   string
	RW     string // fio's name for the pattern
	Block  string // fio's size
	Depth  int
	Figure Figure
	// Goal is the ratio to reach, at least; for Latency, at most.
	Goal float64
	// Cold restarts our side before the job, so that reads come from the drives.
	Cold bool
	// Sustained runs longer, so that what is buffered has to go where it belongs.
	Sustained bool
}

func (j Job) write() bool { return j.RW == "randwrite" || j.RW == "write" }

// Met says whether a ratio reaches the goal.
func (j Job) Met(ratio float64) bool {
	if j.Figure == Latency {
		return ratio <= j.Goal
	}
	return ratio >= j.Goal
}

// Jobs is the set, in the order in which a round does it: reads first, on freshly written and sealed data.
func Jobs() []Job {
	return []Job{
		{Name: "4K random read QD32, cold", RW: "randread", Block: "4k", Depth: 32, Figure: IOPS, Goal: 1.2, Cold: true},
		{Name: "4K random read QD1", RW: "randread", Block: "4k", Depth: 1, Figure: Latency, Goal: 1.3},
		{Name: "1M sequential read QD8", RW: "read", Block: "1M", Depth: 8, Figure: MBps, Goal: 0.8},
		{Name: "1M sequential write QD8", RW: "write", Block: "1M", Depth: 8, Figure: MBps, Goal: 0.35},
		{Name: "4K random write QD1", RW: "randwrite", Block: "4k", Depth: 1, Figure: Latency, Goal: 1.2},
		{Name: "4K random write QD32, 30 s", RW: "randwrite", Block: "4k", Depth: 32, Figure: IOPS, Goal: 1.3,
			Sustained: true},
	}
}

// Options of a run. Defaults fills in what is zero.
type Options struct {
	Vstor string // the command to measure
	Work  string // folder for volumes and results' temporary files; at least 15 GB free
	JSON  string // file for the results; empty: none
	Quick bool   // one round of short cells: a smoke test, its ratios mean little
	Keep  bool   // leave the work folder

	Rounds      int
	Size        int64 // of a volume, in bytes
	Journal     int64
	ASDSize     int64
	Cell        time.Duration // of a job
	LongCell    time.Duration // of a sustained job
	Settle      time.Duration // longest wait for our side to come to rest after a job
	MinJournals float64       // journals' worth a sustained write must write to count
}

// Defaults fills in what is zero. Disk space: volume (raw) + 6 ASDs + journal, below 15 GB.
func (o *Options) Defaults() {
	pick(&o.Rounds, 3, 1, o.Quick)
	pick(&o.Size, 2<<30, 512<<20, o.Quick)
	pick(&o.Journal, 1<<30, 128<<20, o.Quick)
	pick(&o.ASDSize, 1536<<20, 768<<20, o.Quick)
	pick(&o.Cell, 8*time.Second, 3*time.Second, o.Quick)
	pick(&o.LongCell, 30*time.Second, 5*time.Second, o.Quick)
	pick(&o.Settle, 60*time.Second, 15*time.Second, o.Quick)
	if o.MinJournals == 0 {
		o.MinJournals = 4
	}
}

func pick[T comparable](v *T, full, quick T, isQuick bool) {
	var zero T
	if *v != zero {
		return
	}
	*v = full
	if isQuick {
		*v = quick
	}
}
