package bench

import (
	"fmt"
	"strings"
)

// slowFactor parts the two speeds that qemu-nbd has at 4K writes at a depth on a virtual drive. In the fast one a write
// costs it 1.2 times the CPU of a read of that size; in the slow one, in which each goes to the drive alone and is
// answered alone, 2.1 to 2.4 times. A run cannot choose which it gets. Its IOPS do not tell which it was, for they are
// the machine's as well; CPU does. A ratio to the slow one is true for whoever gets that one and flatters beside the
// other, so it is marked.
const slowFactor = 1.7

// qemuSlow says whether qemu-nbd had the slow one in a job.
func (r *Report) qemuSlow(job string) bool {
	deep := strings.HasPrefix(job, "4K random write QD32") || strings.HasPrefix(job, "4K random write QD128")
	return deep && r.writeByRead(job) > slowFactor
}

// writeByRead is qemu-nbd's CPU for an IO of a job, by that of a cold read; 0: not measured.
func (r *Report) writeByRead(job string) float64 {
	writes, _ := r.trusted(job, qemu)
	reads, _ := r.trusted(coldRead, qemu)
	if read := median(reads, CPU.value); read > 0 {
		return median(writes, CPU.value) / read
	}
	return 0
}

// slowMark is what stands behind a ratio to the slow one.
const slowMark = " slow"

// marking adds it, or not.
func marking(ratio string, slow bool) string {
	if slow {
		return ratio + slowMark
	}
	return ratio
}

// ratioText is a row's ratio, marked; a dash: none.
func (row *Row) ratioText() string { return marking(known(row.Ratio, 2), row.Slow) }

// slowSay says that ratios are marked, and what that means; empty: none is.
func (r *Report) slowSay() string {
	for i := range r.Rows {
		if row := &r.Rows[i]; row.Slow {
			return fmt.Sprintf("`%s` has two speeds at 4K writes at a depth, and had the slow one: a write cost it %.1f us "+
				"of CPU, %.1f times a read, as each went to the drive and was answered alone. Ratios to it are marked "+
				"\"slow\". In the fast one, where that is 1.2 times, it writes up to 1.9 times as many for half the CPU; "+
				"ratios of IOPS are as much lower then, and those of CPU as much higher.",
				qemu, row.PeerCPU, r.writeByRead(row.BaseJob))
		}
	}
	return ""
}

// writeSpeed names the speed that qemu-nbd had; empty: not measured.
func (r *Report) writeSpeed() string {
	switch {
	case r.writeByRead(randomWrite) == 0:
		return ""
	case r.qemuSlow(randomWrite):
		return "slow"
	}
	return "fast"
}
