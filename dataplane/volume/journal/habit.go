package journal

// habit finds out whether a client syncs after each so many records: a database that commits, or its file system,
// writes and then flushes, over and over, and between the two the drive is idle while the answer goes up and the flush
// comes down. Whoever does so has the fdatasync begun when the last of the records has ended. His flush finds it under
// way, or done.
//
// A wrong guess costs an fdatasync that nobody asked for, and whoever asks for one meanwhile may wait for it first;
// min commits pass before the next one. It is a step function.
type habit struct {
	min    int    // how often in a row make a habit
	since  uint64 // the record behind the last sync
	period uint64 // how many records came before it
	kept   int    // how often in a row there were as many
}

const habitsMin = 4

// synced is told of a sync before which the next record is to be next. later: it came after the end of the last
// record had been told, as a flush does. A write that is to be durable itself is synced at once: nothing is to be
// gained there, and nothing learned. Syncs between which nothing was written count as one.
func (h *habit) synced(next uint64, later bool) {
	n := next - h.since
	switch {
	case n == 0:
		return
	case n == h.period && later:
		h.kept++
	case n == h.period:
	default:
		h.period, h.kept = n, 0
	}
	h.since = next
}

// expects reports whether a sync is to come before record next.
func (h *habit) expects(next uint64) bool { return h.kept >= h.min && next-h.since == h.period }
