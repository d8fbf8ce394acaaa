package bench

import (
	"slices"
	"time"
)

// step is a cell to be measured.
type step struct {
	round  int
	job    Job
	target string
}

// plan is what a run does, in order: the jobs go round, and each round begins with another target, so that no one is
// always first.
func plan(o *Options, targets []string) (steps []step) {
	for round := range o.Rounds {
		for i, j := range Jobs() {
			if round >= j.rounds(o) {
				continue
			}
			for k := range targets {
				if t := targets[(i+round+k)%len(targets)]; j.on(t) && o.wants(j, t) && (round == 0 || !once(t)) {
					steps = append(steps, step{round, j, t})
				}
			}
		}
	}
	return steps
}

// once says that one round is enough of a target: what it shows is the cost of a cipher.
func once(target string) bool { return target == overTCP || target == overTLS }

// wants says whether Only lets a job on a target through. With an open loop comes what sets its rate.
func (o *Options) wants(j Job, target string) bool {
	if o.Only == nil || o.Only.MatchString(j.Name+" on "+target) {
		return true
	}
	return target == qemu && slices.ContainsFunc(Jobs(), func(k Job) bool {
		return k.Of == j.Name && slices.ContainsFunc(k.Goals, func(g Goal) bool {
			return o.Only.MatchString(k.Name+" on "+g.Target) || o.Only.MatchString(k.Name+" on "+g.Base)
		})
	})
}

// What steps of a full run take beside the job itself, as it was on two cores and a virtio drive that writes 2.5 GB/s;
// those of a quick one, with a quarter of the volume and less to seal, take half as long. A plan is an estimate: the
// time left is corrected by how the steps before kept to it.
const (
	costAny       = time.Second // to look, to be calm, to start fio
	costRestart   = 4 * time.Second
	costWrite     = 3 * time.Second // until our side is at rest
	costSustained = 5 * time.Second
	costCeph      = 7 * time.Second
	fillRate      = 400 << 20 // bytes per second, of a volume, until it is at rest
)

// cost is how long a step takes.
func (o *Options) cost(s step) time.Duration {
	d := o.aside(s)
	if o.Quick {
		d /= 2
	}
	return d + s.job.length(o, s.target)
}

// aside is what a step of a full run takes beside the job.
func (o *Options) aside(s step) time.Duration {
	d := costAny
	switch s.target {
	case rawFile, qemu, nbdkitFile, bareServer, tgtISCSI:
		return d
	case cephRep, cephEC:
		return d + costCeph
	case local, cached, cachedASDs:
		d += 2 * costRestart
	case driveAlone, logAlone, praccAlone, edgeAlone, ramAlone:
		d += costRestart
	case ssdAlone, fragsAlone: // and the cache is filled
		d += 2 * costRestart
	case full, fullASDs:
		d += costRestart + fillTime(o.Size)
		if !s.job.write() {
			d += o.Cell + costSustained
		}
	default:
		if s.job.Cold {
			d += costRestart
		}
	}
	switch {
	case s.job.Sustained:
		d += costSustained
	case s.job.write():
		d += costWrite
	}
	return d
}

func fillTime(size int64) time.Duration { return time.Duration(size) * time.Second / fillRate }

// total is how long a run of these steps takes, with all that comes before them.
func (o *Options) total(steps []step) time.Duration {
	d := startAll + 2*fillTime(o.Size) + time.Duration(o.Rounds)*o.between()
	for _, s := range steps {
		d += o.cost(s)
	}
	if o.Peers {
		d += startPeers + 2*fillTime(o.Size)
	}
	return d
}

// between is what a round needs before its first step: two volumes are written through, and the raw file.
func (o *Options) between() time.Duration {
	return 2*fillTime(o.Size) + 2*costWrite + fillTime(o.Size)/5
}

const (
	startAll   = 10 * time.Second
	startPeers = 90 * time.Second
)
