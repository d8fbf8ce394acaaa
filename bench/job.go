package bench

import (
	"slices"
	"strings"
	"time"
)

// Figure is what a job is judged by.
type Figure string

// The figures.
const (
	IOPS    Figure = "IOPS"
	Latency Figure = "us" // mean, completion as fio sees it
	P99     Figure = "us p99"
	MBps    Figure = "MB/s"
	CPU     Figure = "us CPU/IO" // of all server processes; as many CPU seconds in a million IOs
)

// less says whether less of it is better.
func (f Figure) less() bool { return f == Latency || f == P99 || f == CPU }

// Names of the targets.
const (
	embedded   = "vstor"
	processes  = "vstor ASDs"  // the same with a process for each of the six ASDs, all reads through them
	local      = "vstor short" // the same, whose edge reads the drives of the ASDs itself
	cached     = "vstor cache" // embedded, with a block cache that holds all that is read
	cachedASDs = "ASDs cache"  // the same with processes
	overTCP    = "vstor TCP"   // embedded, not through its unix socket but over TCP on loopback
	overTLS    = "vstor TLS"   // the same, encrypted
	full       = "vstor 80 %"  // embedded, on drives so small that the volume fills 80 % of them
	fullASDs   = "ASDs 80 %"   // the same with processes
	single     = "one ASD"     // no vstor around it: the bench is its client
	driveAlone = "drive alone" // a loop and the raw file; this and the next six by RunPart
	logAlone   = "log alone"   // the same, as a log with 4+2 behind it writes: see driveLog
	praccAlone = "PRACC alone" // embedded, the part and what is below it
	edgeAlone  = "Edge alone"
	ramAlone   = "block cache"      // its RAM, which is asked for one block after the other
	ssdAlone   = "block cache file" // the Edge on the second tier: hardly any RAM before it
	fragsAlone = "fragment cache"   // PRACC on fragments that the cache has
	qemu       = "qemu-nbd"
	nbdkitFile = "nbdkit file"
	rawFile    = "raw file"
	bareServer = "bare server" // our NBD and loop on the raw file and a log, and nothing between: see BareServer
	tgtISCSI   = "tgt iSCSI"   // the last three only when asked for
	cephRep    = "Ceph 3x"
	cephEC     = "Ceph 4+2"
)

// Goal is a ratio to reach: of a target's figure to that of another.
type Goal struct {
	Target string
	Base   string // empty: none; the figure is shown
	// BaseJob is the job whose figure of Base counts; empty: the same job.
	BaseJob string
	// Ratio is the least that will do; for figures where less is better, the most. 0: any, it is shown.
	Ratio float64
	// Figure counts instead of the job's; empty: the job's.
	Figure Figure
}

// Job is one job and its goals.
type Job struct {
	Name   string
	File   string // of fio's, without folder and ending; empty: fio does not do it
	Figure Figure
	Goals  []Goal
	// What File says, or what the job is without one. RW is fio's name for the pattern, or put: fragments of the
	// block's size, on one ASD.
	RW, Block string
	Depth     int // of each connection
	Conns     int
	Mix       int           // percent of reads, of those that read and write
	Cold      bool          // restarts our side before the job, so that reads come from the drives
	Stall     bool          // stops an ASD's process (SIGSTOP) for the job's middle half
	Down      bool          // stops an ASD's process before the job, and lets it go on behind it
	Span      int64         // how much of the volume the job goes over, as one part of so many; 0: all of it
	For       time.Duration // in a full run; 0: Options.Cell
	Sustained bool          // what is buffered has to go where it belongs: a remark says if that was little
	Hops      bool          // its targets are parts of one path, the lowest first
	Apart     bool          // of Hops, but each is by itself: none stands on the one before
	Soak      bool          // too long to be done in every round, and by those that only stand beside
	Share     float64       // open loop, at this share of the IOPS that qemu-nbd had in the job Of; 0: closed loop
	Of        string
	rate      float64 // IOs per second, of an open loop
}

const put = "put"

func (j Job) write() bool { return strings.Contains(j.RW, "write") || j.RW == "randrw" || j.RW == put }

// writes are how many of a job's bytes are written.
func (j Job) writes(bytes int64) int64 {
	switch {
	case j.RW == "randrw":
		return bytes * int64(100-j.Mix) / 100
	case j.write():
		return bytes
	}
	return 0
}

// barred says whether the job has a bar to reach. Jobs without one are done once, and in a quick run only when they are
// asked for.
func (j Job) barred() bool {
	return slices.ContainsFunc(j.Goals, func(g Goal) bool { return g.Ratio > 0 })
}

// rounds is in how many rounds of a run it is done, the first ones.
func (j Job) rounds(o *Options) int {
	switch {
	case j.barred() && !j.Soak:
		return o.Rounds
	case o.Quick && o.Only == nil:
		return 0
	}
	return 1
}

// on says whether a target does the job: those with a goal, those they are compared to, and, where qemu-nbd is the
// yardstick, the raw file, which fio cannot drive by the clock; where there is a bar, the other peers too.
func (j Job) on(target string) bool {
	beside := !j.Soak && (target == rawFile || target == nbdkitFile || target == tgtISCSI)
	for _, g := range j.Goals {
		switch {
		case g.Target == target, g.Base == target && g.BaseJob == "":
			return true
		case g.BaseJob != "":
		case g.Base == qemu && target == rawFile && beside && j.Share == 0:
			return true
		case g.Ratio == 0:
		case g.Base == qemu && beside, g.Base == cephEC && target == cephRep:
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

// length is how long the job runs on a target. What bears on no goal takes half the time of a cell: it is shown to be
// seen, and a run is long enough. What it is worth to run longer runs longer all the same where it has a base. The bare
// server takes a whole one: what it owes behind its log comes late, and a short run would be without.
func (j Job) length(o *Options, target string) time.Duration {
	d := o.Cell
	if j.For > 0 && (j.judged(target) || !j.barred()) {
		return max(d, o.shortened(j.For))
	}
	if !j.judged(target) && (target != bareServer || j.Hops) {
		d /= 2
	}
	return d
}

// by is the job as a goal looks at it.
func (j Job) by(g Goal) Job {
	if g.Figure != "" {
		j.Figure = g.Figure
	}
	return j
}

// Met says whether a ratio reaches the goal.
func (j Job) Met(g Goal, ratio float64) bool {
	if j.by(g).Figure.less() {
		return ratio <= g.Ratio
	}
	return ratio >= g.Ratio
}
