package bench

import "fmt"

// Vitastor is not among the peers: Debian has no packages of it. It was measured once, on a machine of the kind that
// these runs are made on: 3.0.8, EC 4+2, six OSDs on loopback, fio at QD32 for 10 s, 2 GiB, beside qemu-nbd. Its ratio
// to that stands for it here, as a ratio moves less from day to day and from machine to machine than a figure does.
var vitastor = []struct {
	job              string
	vitastor, qemu   float64 // IOPS that day
	embedded, spread float64 // how many times its speed is asked for
}{
	{coldRead, 29800, 58000, 2.3, 1.2},
	{randomWrite, 4400, 53000, 20, 15},
}

const vitastorSay = "Vitastor 3.0.8 (EC 4+2, six OSDs) is in no run: it was measured once beside `qemu-nbd` on a " +
	"machine of this kind, and is compared through that: our ratio to `qemu-nbd` in this run, divided by its ratio " +
	"then. It neither syncs nor checksums. `qemu-nbd` wrote 53 thousand blocks a second that day: where it is slower, " +
	"the ratio says more than the figures would."

// vitastorHead names the columns of its table.
var vitastorHead = []string{"job", "on", "ours to " + qemu, "Vitastor's", "ratio", "goal", ""}

// besideVitastor is a line for each bar that is set by it.
func (r *Report) besideVitastor() (rows [][]string) {
	for _, v := range vitastor {
		name := v.job
		for _, bar := range []struct {
			target string
			goal   float64
		}{{embedded, v.embedded}, {processes, v.spread}} {
			ratios, sound := r.paired(v.job, bar.target, v.job, qemu, IOPS.value)
			if sound && len(ratios) == 0 {
				continue // not measured
			}
			if !sound {
				ratios = nil // what is left is what luck left
			}
			ours, its := middle(ratios), v.vitastor/v.qemu
			verdict := "met"
			switch {
			case !sound:
				verdict = "disturbed"
			case ours/its < bar.goal:
				verdict = "MISSED"
			}
			rows = append(rows, []string{name, bar.target, known(ours, 2), fmt.Sprintf("%.3f", its),
				marking(known(ours/its, 1), r.qemuSlow(v.job)), fmt.Sprintf(">= %.1f", bar.goal), verdict})
			name = ""
		}
	}
	return rows
}
