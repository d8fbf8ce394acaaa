// Package stat counts. Each counter and histogram has one writer, the loop or goroutine that owns it;
// anyone may read at any time, and the metrics page only reads.
//
// The obvious shared counter is an atomic add on a line that all cores fight for. Here every loop has
// its own set, the reader sums them up, and a write is a load and an atomic store of a line that no
// other core writes. The store is atomic so that readers and the race detector are content, not to
// order anything: figures read together may be a few IOs apart.
//
// Histograms are log-linear: 16 steps per power of two, so a quantile is at most 6.25 % too high, from
// 1 ns to 18 minutes in 4.6 KiB. Bounds that are powers of two are bounds of steps too, so the buckets
// that Prometheus is given are exact counts.
//
// Page writes the Prometheus text format. The official client would do, but keeps its own copies of all
// figures and takes locks to change them; what we need of it is the format, which is this one file.
package stat
