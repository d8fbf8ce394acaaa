package bench

import (
	"fmt"
	"strings"
)

// slowFactor parts the two speeds that qemu-nbd has at 4K writes at a depth on a virtual drive. In the fast one a write
// costs it 1.2 times the CPU of a read of that size; in the slow one, in which each goes to the drive alone and is
// answered alone, 2.1 to 2.4 times. A run cannot choose which it gets. Its IOPS do not tell which it was, for they are
// the machine's as well; CPU does. A ratio to the slow one is true for whoever gets that one and flatters beside the
// other, so its verdict says so.
const slowFactor = 1.7

// againstSlow says whether a row's ratio is to a qemu-nbd that writes slowly.
func (r *Report) againstSlow(row *Row) bool {
	if row.Base != qemu || !strings.HasPrefix(row.Job, "4K random write QD32") {
		return false
	}
	read := median(r.of(coldRead, qemu), CPU.value)
	return read > 0 && row.PeerCPU > slowFactor*read
}

// slowSay says which of its two speeds the yardstick had; empty: the fast one, or none was measured.
func (r *Report) slowSay() string {
	for i := range r.Rows {
		if row := &r.Rows[i]; row.Slow {
			return fmt.Sprintf("`%s` has two speeds at 4K writes at a depth, and had the slow one: a write cost it %.1f us "+
				"of CPU, %.1f times a read, as each went to the drive and was answered alone. Of the fast one, where "+
				"that is 1.2 times, it writes up to 1.9 times as many, and the ratios marked \"slow\" are that much less.",
				qemu, row.PeerCPU, row.PeerCPU/median(r.of(coldRead, qemu), CPU.value))
		}
	}
	return ""
}
