package bench

import "time"

// Figure is what a job is judged by.
type Figure string

// The figures.
const (
	IOPS    Figure = "IOPS"
	Latency Figure = "us" // mean, completion as fio sees it
	P99     Figure = "us p99"
	MBps    Figure = "MB/s"
)

// Names of the targets.
const (
	embedded  = "vstor"
	processes = "vstor ASDs"  // the same with a process for each of the six ASDs, all reads through them
	local     = "vstor short" // the same, whose edge reads the drives of the ASDs itself
	cached    = "vstor cache" // embedded, with a block cache that holds all that is read
	overTCP   = "vstor TCP"   // embedded, not through its unix socket but over TCP on loopback
	overTLS   = "vstor TLS"   // the same, encrypted
	single    = "one ASD"     // no vstor around it: the bench is its client
	qemu      = "qemu-nbd"
	rawFile   = "raw file"
)

// Goal is a ratio to reach: of a target's figure to that of another.
type Goal struct {
	Target string
	Base   string // empty: none; the figure is shown
	// BaseJob is the job whose figure of Base counts; empty: the same job.
	BaseJob string
	// Ratio is the least that will do; for Latency, the most. 0: any, it is shown.
	Ratio float64
}

// Job is one job and its goals. RW is fio's name for the pattern, or put: fragments of the block's size, on one
// ASD.
type Job struct {
	Name   string
	RW     string
	Block  string // fio's size
	Depth  int
	Figure Figure
	Goals  []Goal
	// Cold restarts our side before the job, so that reads come from the drives.
	Cold bool
	// Stall stops an ASD's process (SIGSTOP) for the job's middle half.
	Stall bool
	// Span is how much of the volume the job goes over, as one part of so many; 0: all of it.
	Span int64
	// Sustained runs longer, so that what is buffered has to go where it belongs.
	Sustained bool
}

const put = "put"

func (j Job) write() bool { return j.RW == "randwrite" || j.RW == "write" || j.RW == put }

// on says whether a target does the job: those with a goal, and what they should reach.
func (j Job) on(target string) bool {
	for _, g := range j.Goals {
		if g.Target == target || g.Ratio > 0 && g.BaseJob == "" && (target == qemu || target == rawFile) {
			return true
		}
	}
	return false
}

// judged says whether this target's figure in this job has a goal to reach, or a goal of any job is measured
// against it.
func (j Job) judged(target string) bool {
	for _, other := range Jobs() {
		for _, g := range other.Goals {
			base := g.Base == target && (g.BaseJob == j.Name || g.BaseJob == "" && other.Name == j.Name)
			if g.Ratio > 0 && (base || g.Target == target && other.Name == j.Name) {
				return true
			}
		}
	}
	return false
}

// length is how long the job runs on a target. What bears on no goal takes half the time, and a sustained job
// there a short one: it is shown to be seen, and a run is long enough.
func (j Job) length(o *Options, target string) time.Duration {
	switch {
	case !j.judged(target):
		return o.Cell / 2
	case j.Sustained:
		return o.LongCell
	}
	return o.Cell
}

// Met says whether a ratio reaches the goal.
func (j Job) Met(g Goal, ratio float64) bool {
	if j.Figure == Latency || j.Figure == P99 {
		return ratio <= g.Ratio
	}
	return ratio >= g.Ratio
}

const (
	// cachedPart: one part of so many of the volume is read from the block cache, which the default --memory has room for.
	cachedPart = 8

	coldRead        = "4K random read QD32, cold"
	sequentialWrite = "1M sequential write QD8"
)

// Jobs is the set, in the order in which a round does it: reads first, on freshly written and sealed data.
func Jobs() []Job {
	ours := func(r float64) Goal { return Goal{Target: embedded, Base: qemu, Ratio: r} }
	asds := func(r float64) Goal { return Goal{Target: processes, Base: qemu, Ratio: r} }
	short := func(r float64) Goal { return Goal{Target: local, Base: qemu, Ratio: r} }
	stalled := func(target string) Goal { return Goal{Target: target, Base: target, BaseJob: coldRead, Ratio: 5} }
	one := func(r float64) Goal { return Goal{Target: single, Base: qemu, Ratio: r} }
	puts := Goal{Target: single, Base: rawFile, BaseJob: sequentialWrite, Ratio: 0.8}
	// What encryption costs: shown, for how fast the cipher is differs from machine to machine.
	encrypted := []Goal{{Target: overTCP}, {Target: overTLS, Base: overTCP}}
	return []Job{
		{Name: coldRead, RW: "randread", Block: "4k", Depth: 32, Figure: IOPS,
			Goals: []Goal{ours(1.3), short(1.3), asds(0.6), one(0.8)}, Cold: true},
		{Name: "4K random read QD1", RW: "randread", Block: "4k", Depth: 1, Figure: Latency,
			Goals: []Goal{ours(1.2), short(1.2), asds(2.5)}},
		{Name: "4K random read QD32, cached", RW: "randread", Block: "4k", Depth: 32, Figure: IOPS, Span: cachedPart,
			Goals: []Goal{{Target: cached, Base: qemu, BaseJob: coldRead, Ratio: 2.8}}},
		{Name: "4K random read QD32, an ASD stopped", RW: "randread", Block: "4k", Depth: 32, Figure: P99,
			Goals: []Goal{stalled(processes), stalled(local)}, Stall: true},
		{Name: "4K random read QD32", RW: "randread", Block: "4k", Depth: 32, Figure: IOPS, Goals: encrypted},
		{Name: "1M sequential read QD8", RW: "read", Block: "1M", Depth: 8, Figure: MBps,
			Goals: append([]Goal{ours(0.8)}, encrypted...)},
		{Name: sequentialWrite, RW: "write", Block: "1M", Depth: 8, Figure: MBps,
			Goals: append([]Goal{ours(0.35)}, encrypted...)},
		{Name: "1M puts, 8 at a time", RW: put, Block: "1M", Depth: 8, Figure: MBps, Goals: []Goal{puts}},
		{Name: "4K random write QD1", RW: "randwrite", Block: "4k", Depth: 1, Figure: Latency, Goals: []Goal{ours(1.2)}},
		{Name: "4K random write QD32, 30 s", RW: "randwrite", Block: "4k", Depth: 32, Figure: IOPS,
			Goals: []Goal{ours(1.3), asds(1.1)}, Sustained: true},
	}
}

// Options of a run. Defaults fills in what is zero.
type Options struct {
	Vstor string // the command to measure
	Work  string // folder for volumes and results' temporary files; Space bytes free
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

// Defaults fills in what is zero.
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

// Space is how many bytes a run takes: the raw file, six ASDs and a journal twice, the drive of one ASD.
func (o *Options) Space() int64 {
	return o.Size + 2*(6*o.ASDSize+o.Journal) + o.driveSize()
}

// driveSize is that of the one ASD, in bytes: what is read, and room to put and delete in.
func (o *Options) driveSize() int64 { return o.Size + putRoom }

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
