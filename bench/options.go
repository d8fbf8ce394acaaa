package bench

import (
	"regexp"
	"time"
)

// Options of a run. Defaults fills in what is zero.
type Options struct {
	Vstor string // the command to measure
	Work  string // folder for volumes and results' temporary files; Space bytes free
	JSON  string // file for the results; empty: none
	Quick bool   // one round of short cells: a smoke test, its ratios mean little
	Keep  bool   // leave the work folder
	Peers bool   // tgt and Ceph too
	// Profile is a folder for profiles of our processes, which take time themselves; empty: none.
	Profile string
	// HTML and Markdown are files for a page and a summary of the results; empty: none.
	HTML, Markdown string
	// Only those "JOB on TARGET" are done that it matches; nil: all.
	Only *regexp.Regexp

	Rounds      int
	Size        int64 // of a volume, in bytes
	Journal     int64
	ASDSize     int64
	Cell        time.Duration // of a job
	Settle      time.Duration // longest wait for our side to come to rest after a job
	MinJournals float64       // journals' worth a sustained write must write to count
}

// Defaults fills in what is zero.
func (o *Options) Defaults() {
	pick(&o.Rounds, 3, 1, o.Quick)
	pick(&o.Size, 2<<30, 512<<20, o.Quick)
	pick(&o.Journal, 1<<30, 128<<20, o.Quick)
	pick(&o.ASDSize, 1536<<20, 384<<20, o.Quick)
	pick(&o.Cell, 8*time.Second, 2*time.Second, o.Quick)
	pick(&o.Settle, 60*time.Second, 15*time.Second, o.Quick)
	if o.MinJournals == 0 {
		o.MinJournals = 4
	}
}

// quickPart: a quick run gives a long job one part of so many of its time.
const quickPart = 15

func (o *Options) shortened(d time.Duration) time.Duration {
	if o.Quick {
		d /= quickPart
	}
	return d
}

// Space is how many bytes a run takes: the raw file, two deployments, the drives of a full deployment and
// of one ASD; and what the peers keep, if they are asked for.
func (o *Options) Space() int64 {
	n := o.Size + asdCount*(o.ASDSize+o.spreadASDSize()) + 2*o.Journal + o.driveSize()
	if !o.Quick || o.Only != nil {
		n += asdCount*o.fullASDSize() + o.Journal
	}
	if o.Peers {
		n += o.cephSpace()
	}
	return n
}

// spreadASDSize is that of ASDs in processes of their own. What is deleted there comes back only when no edge's lease
// can name it any more, 25 s later; there is room for what a fast drive writes meanwhile, or jobs of writes would
// measure that.
func (o *Options) spreadASDSize() int64 { return 2 * o.ASDSize }

// driveSize is that of the one ASD, in bytes: what is read, and room to put and delete in.
func (o *Options) driveSize() int64 { return o.Size + putRoom }

// fullASDSize is that of the ASDs which a volume fills to fullShare: its data are half as much again with parity.
func (o *Options) fullASDSize() int64 {
	const unit = 1 << 20
	return o.Size * 3 / 2 * 100 / (asdCount * fullShare) / unit * unit
}

// fullShare is how full they are, in percent.
const fullShare = 80

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
