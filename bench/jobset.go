package bench

import (
	"slices"
	"sync"
	"time"
)

// Names of jobs that others are compared with.
const (
	coldRead        = "4K random read QD32, cold"
	randomWrite     = "4K random write QD32, 30 s"
	sequentialRead  = "1M sequential read QD8, cold"
	sequentialWrite = "1M sequential write QD8"
	syncedWrite     = "1M sequential write QD8, flushed every 8"
)

// cachedPart: one part of so many of the volume is read from the block cache, which the default --memory has room for.
const cachedPart = 8

// Jobs is the set, in the order in which a round does it: reads first, on freshly written and sealed data.
func Jobs() []Job { return slices.Clone(jobSet()) }

var jobSet = sync.OnceValue(func() []Job {
	set := slices.Concat(reads4K(), hopReads(), otherReads(), otherWrites(), writes4K(), hopWrites())
	for i := range set {
		set[i] = set[i].loaded()
	}
	return set
})

// Where two issues set a bar the stricter one stands. What they ask of a ratio to Vitastor follows from the ratio to
// qemu-nbd, by which Vitastor was measured: 4K reads at QD32 1.18 of qemu-nbd, writes 1.66.

func over(target string, r float64) Goal { return Goal{Target: target, Base: qemu, Ratio: r} }
func inOne(r float64) Goal               { return over(embedded, r) }
func short(r float64) Goal               { return over(local, r) }
func asds(r float64) Goal                { return over(processes, r) }
func overRaw(r float64) Goal             { return Goal{Target: embedded, Base: rawFile, Ratio: r} }
func cpu(target string, most float64) Goal {
	return Goal{Target: target, Base: qemu, Ratio: most, Figure: CPU}
}

// ceph is what is asked over Ceph with the same policy; it counts only in runs that have it.
func ceph(inProcess, spread float64) []Goal {
	return []Goal{{Target: embedded, Base: cephEC, Ratio: inProcess}, {Target: processes, Base: cephEC, Ratio: spread}}
}

// shown are targets beside qemu-nbd, without a bar.
func shown(targets ...string) (goals []Goal) {
	for _, t := range targets {
		goals = append(goals, over(t, 0))
	}
	return goals
}

// figures are of targets, beside nothing.
func figures(targets ...string) (goals []Goal) {
	for _, t := range targets {
		goals = append(goals, Goal{Target: t})
	}
	return goals
}

// encrypted is what encryption costs: shown, for how fast the cipher is differs from machine to machine.
func encrypted() []Goal { return []Goal{{Target: overTCP}, {Target: overTLS, Base: overTCP}} }

// ofCold compares a target's reads with its own when nothing is amiss.
func ofCold(target string, ratio float64) Goal {
	return Goal{Target: target, Base: target, BaseJob: coldRead, Ratio: ratio}
}

func reads4K() []Job {
	hot := func(target string) Goal { return Goal{Target: target, Base: qemu, BaseJob: coldRead, Ratio: 3} }
	jobs := []Job{
		{Name: coldRead, File: "4k-randread-qd32", Figure: IOPS, Cold: true,
			Goals: append([]Goal{inOne(1.35), overRaw(0.68), short(1.35), asds(0.65), over(single, 0.8), over(bareServer, 0),
				cpu(embedded, 1), cpu(local, 1), cpu(processes, 2.5)}, ceph(20, 10)...)},
		{Name: "4K random read QD1, cold", File: "4k-randread-qd1", Figure: Latency, Cold: true,
			Goals: []Goal{inOne(1.15), short(1.15), asds(2.3),
				{Target: embedded, Base: cephEC, Ratio: 1 / 7.0}, {Target: processes, Base: cephEC, Ratio: 1 / 3.5}}},
		{Name: "4K random read QD32, cached", File: "4k-randread-qd32", Figure: IOPS, Span: cachedPart,
			Goals: []Goal{hot(cached), hot(cachedASDs)}},
		{Name: "4K random read QD32, an ASD stopped", File: "4k-randread-qd32", Figure: P99, Stall: true,
			Goals: []Goal{ofCold(processes, 5), ofCold(local, 5)}},
		{Name: "4K random read QD32, degraded", File: "4k-randread-qd32", Figure: IOPS, Cold: true, Down: true,
			Goals: []Goal{ofCold(embedded, 0), ofCold(processes, 0), ofCold(local, 0)}},
		{Name: "4K random read QD32", File: "4k-randread-qd32", Figure: IOPS, Goals: encrypted()},
		{Name: "4K random read QD32, 4 connections", File: "4k-randread-qd32-4c", Figure: IOPS,
			Goals: shown(embedded, processes)},
		{Name: "4K random read QD128", File: "4k-randread-qd128", Figure: IOPS, Goals: shown(embedded, processes)},
		{Name: "4K random read QD128, 4 connections", File: "4k-randread-qd128-4c", Figure: IOPS,
			Goals: shown(embedded, processes)},
	}
	for _, percent := range []string{"25", "50", "75"} {
		jobs = append(jobs, open("randread", percent, coldRead))
	}
	return jobs
}

// open is a job whose IOs start at a fixed rate, whether those before have ended or not.
func open(rw, percent, of string) Job {
	share := map[string]float64{"25": 0.25, "50": 0.5, "75": 0.75}[percent]
	name := map[string]string{"randread": "read", "randwrite": "write"}[rw]
	return Job{Name: "4K random " + name + ", open loop at " + percent + " %", RW: rw, Block: "4k", Conns: 1, Figure: P99,
		Share: share, Of: of, Goals: shown(embedded, processes)}
}

// Parts of the paths, the lowest first: what an IO costs more on one than on the one before is what that hop costs.
// With processes there are two hops more: edge and router between NBD and the drives, and the ASDs behind them.
var (
	readHops  = []string{rawFile, driveAlone, praccAlone, edgeAlone, embedded}
	writeHops = []string{rawFile, driveAlone, logAlone, edgeAlone, embedded, processes}
)

func hop(name, file string, figure Figure, targets []string) Job {
	return Job{Name: name + ", hop by hop", File: file, Figure: figure, Hops: true, Goals: figures(targets...)}
}

func hopReads() []Job {
	hit := hop("4K random read QD32, cached", "4k-randread-qd32", IOPS, []string{ramAlone, edgeAlone, cached})
	caches := Job{Name: "4K random read QD32, other caches alone", File: "4k-randread-qd32", Figure: IOPS, Hops: true,
		Apart: true, Goals: figures(ssdAlone, fragsAlone)}
	hit.Span, caches.Span = cachedPart, cachedPart
	return []Job{
		hop("4K random read QD1", "4k-randread-qd1", Latency,
			slices.Concat(readHops[:2], []string{bareServer}, readHops[2:], []string{local, processes})),
		hop("4K random read QD32", "4k-randread-qd32", IOPS, readHops),
		hit, caches,
	}
}

func hopWrites() []Job {
	return []Job{
		hop("4K random write QD1", "4k-randwrite-qd1", Latency, writeHops),
		hop("4K random write QD32", "4k-randwrite-qd32", IOPS, writeHops),
		hop("16K random write QD8", "16k-randwrite-qd8", IOPS, writeHops),
		hop("1M sequential write QD8", "1m-write-qd8", MBps, writeHops),
	}
}

func otherReads() []Job {
	return []Job{
		{Name: "16K random read QD8", File: "16k-randread-qd8", Figure: IOPS, Goals: shown(embedded, processes)},
		{Name: sequentialRead, File: "1m-read-qd8", Figure: MBps, Cold: true,
			Goals: append([]Goal{inOne(0.9), asds(0.7)}, encrypted()...)},
		{Name: "4M sequential read QD4", File: "4m-read-qd4", Figure: MBps, Goals: shown(embedded, processes)},
	}
}

func otherWrites() []Job {
	// A put is durable when it is answered, and the bar is of writes that the drive's cache has: beside it stands what the
	// drive does if it is flushed as often.
	puts := []Goal{{Target: single, Base: rawFile, BaseJob: sequentialWrite, Ratio: 0.8},
		{Target: single, Base: rawFile, BaseJob: syncedWrite}}
	return []Job{
		// The bar is 0.8 once the journal skips payload that is sealed anyway.
		{Name: sequentialWrite, File: "1m-write-qd8", Figure: MBps, For: 15 * time.Second, Sustained: true,
			Goals: slices.Concat([]Goal{inOne(0.5), asds(0.4), over(bareServer, 0)}, ceph(20, 10), encrypted())},
		{Name: syncedWrite, File: "1m-write-qd8-sync", Figure: MBps, Goals: []Goal{inOne(0), overRaw(0)}},
		{Name: "4M sequential write QD4", File: "4m-write-qd4", Figure: MBps, Goals: shown(embedded, processes)},
		{Name: "1M puts, 8 at a time", RW: put, Block: "1M", Depth: 8, Figure: MBps, Goals: puts},
		{Name: "16K random write QD8", File: "16k-randwrite-qd8", Figure: IOPS,
			Goals: append([]Goal{inOne(1.5), asds(1.2), over(bareServer, 0)}, ceph(20, 10)...)},
	}
}

func writes4K() []Job {
	return []Job{
		{Name: "4K random write QD1", File: "4k-randwrite-qd1", Figure: Latency, Goals: []Goal{inOne(1.2)}},
		{Name: "4K write + fsync QD1", File: "4k-randwrite-fsync-qd1", Figure: IOPS,
			Goals: append([]Goal{inOne(1), asds(1)}, ceph(20, 10)...)},
		{Name: "70/30 4K QD32", File: "4k-mixed-qd32", Figure: IOPS,
			Goals: append([]Goal{inOne(1.3), short(1.3), asds(0.8), over(bareServer, 0)}, ceph(20, 10)...)},
		{Name: randomWrite, File: "4k-randwrite-qd32", Figure: IOPS, For: 30 * time.Second, Sustained: true,
			Goals: append([]Goal{inOne(1.7), overRaw(0.9), asds(1.3), over(bareServer, 0), cpu(embedded, 1.2),
				cpu(processes, 2.5)}, ceph(20, 10)...)},
		{Name: "1M sequential read QD8, after random writes", File: "1m-read-qd8", Figure: MBps, Cold: true,
			Goals: shown(embedded, processes)},
		{Name: "4K random write QD32, 4 connections", File: "4k-randwrite-qd32-4c", Figure: IOPS,
			Goals: shown(embedded, processes)},
		{Name: "4K random write QD128", File: "4k-randwrite-qd128", Figure: IOPS, Goals: shown(embedded, processes)},
		{Name: "4K random write QD128, 4 connections", File: "4k-randwrite-qd128-4c", Figure: IOPS,
			Goals: shown(embedded, processes)},
		open("randwrite", "50", randomWrite),
		{Name: "4K random write QD32, degraded", File: "4k-randwrite-qd32", Figure: IOPS, Down: true,
			Goals: []Goal{{Target: processes}}}, // no ratio to the 30 s without: it is too short to seal as much
		{Name: "4K random write QD32, 30 s, drives 80 % full", File: "4k-randwrite-qd32", Figure: IOPS,
			For: 30 * time.Second, Sustained: true, Goals: crowdedGoals(randomWrite)},
		{Name: "1M sequential read QD8, drives 80 % full, after random writes", File: "1m-read-qd8", Figure: MBps,
			Cold: true, Goals: crowdedGoals(sequentialRead)},
		{Name: "4K random write QD32, 120 s", File: "4k-randwrite-qd32", Figure: IOPS, For: 2 * time.Minute,
			Sustained: true, Soak: true, Goals: []Goal{inOne(1.2), asds(0.9)}},
	}
}

// crowdedGoals set drives that are nearly full beside qemu-nbd, whose file never is.
func crowdedGoals(of string) []Goal {
	return []Goal{{Target: full, Base: qemu, BaseJob: of}, {Target: fullASDs, Base: qemu, BaseJob: of}}
}
