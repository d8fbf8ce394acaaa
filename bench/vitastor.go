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
	"then. It neither syncs nor checksums."

// vitastorHead names the columns of its table.
var vitastorHead = []string{"job", "on", "ours to " + qemu, "Vitastor's", "ratio", "goal", ""}

// besideVitastor is a line for each bar that is set by it.
func (r *Report) besideVitastor() (rows [][]string) {
	for _, v := range vitastor {
		them, quiet := r.trusted(v.job, qemu)
		name := v.job
		for _, bar := range []struct {
			target string
			goal   float64
		}{{embedded, v.embedded}, {processes, v.spread}} {
			us, usQuiet := r.trusted(v.job, bar.target)
			if len(us) == 0 || len(them) == 0 {
				continue
			}
			ours, its := ratio(us, them, IOPS.value), v.vitastor/v.qemu
			verdict := "met"
			switch {
			case !quiet || !usQuiet:
				verdict = "disturbed"
			case ours/its < bar.goal:
				verdict = "MISSED"
			}
			rows = append(rows, []string{name, bar.target, fmt.Sprintf("%.2f", ours), fmt.Sprintf("%.3f", its),
				fmt.Sprintf("%.1f", ours/its), fmt.Sprintf(">= %.1f", bar.goal), verdict})
			name = ""
		}
	}
	return rows
}
