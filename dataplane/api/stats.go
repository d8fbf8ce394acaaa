package api

import "vstor/dataplane/stat"

// VDiskStats is what a vDisk's clients got since it was opened: each read counts at the last rung of the read
// ladder that it needed, its bytes where each came from.
type VDiskStats struct {
	Name    string      `json:"name"`
	Reads   []RungStats `json:"reads"` // quickest first; those that never served are left out
	Writes  Latency     `json:"writes"`
	Flushes Latency     `json:"flushes"`
	// WriteBytes and Errors are of all requests.
	WriteBytes uint64 `json:"write_bytes_total"`
	Errors     uint64 `json:"errors_total"`
}

// RungStats is one rung's share of the reads.
type RungStats struct {
	Rung  string `json:"rung"`
	Bytes uint64 `json:"bytes_total"`
	Latency
}

// Latency is a histogram of durations, with the figures that people ask of it.
type Latency struct {
	Count   uint64   `json:"count"`
	Mean    float64  `json:"mean_seconds"`
	P50     float64  `json:"p50_seconds"`
	P99     float64  `json:"p99_seconds"`
	P999    float64  `json:"p999_seconds"`
	Max     float64  `json:"max_seconds"` // since the vDisk was opened, also in what Since gives
	Sum     uint64   `json:"sum_nanoseconds"`
	Buckets []Bucket `json:"buckets,omitempty"`
}

// Bucket counts durations above the bucket before it, up to Le. Empty ones are left out.
type Bucket struct {
	Le    uint64 `json:"le_nanoseconds"`
	Count uint64 `json:"count"`
}

// NewLatency describes a snapshot.
func NewLatency(s *stat.Snapshot) Latency {
	l := Latency{Count: s.Count, Sum: s.Sum, Mean: s.Mean() / 1e9, Max: float64(s.Max) / 1e9,
		P50: quantile(s, 0.5), P99: quantile(s, 0.99), P999: quantile(s, 0.999)}
	s.Each(func(le, n uint64) { l.Buckets = append(l.Buckets, Bucket{le, n}) })
	return l
}

func quantile(s *stat.Snapshot, q float64) float64 { return float64(s.Quantile(q)) / 1e9 }

// Since is what came after an earlier look at the same vDisk. If the vDisk was opened anew in between, it is all.
func (l Latency) Since(earlier Latency) Latency {
	if earlier.Count > l.Count {
		return l
	}
	now, then := l.snapshot(), earlier.snapshot()
	now.Sub(then)
	return NewLatency(now)
}

func (l Latency) snapshot() *stat.Snapshot {
	s := &stat.Snapshot{Sum: l.Sum, Max: uint64(l.Max * 1e9)}
	for _, b := range l.Buckets {
		s.Put(b.Le, b.Count)
	}
	return s
}

// Since is what came after an earlier look.
func (s VDiskStats) Since(earlier VDiskStats) VDiskStats {
	out := VDiskStats{Name: s.Name, Writes: s.Writes.Since(earlier.Writes), Flushes: s.Flushes.Since(earlier.Flushes),
		WriteBytes: since(s.WriteBytes, earlier.WriteBytes), Errors: since(s.Errors, earlier.Errors)}
	for _, r := range s.Reads {
		for _, e := range earlier.Reads {
			if e.Rung == r.Rung {
				r.Bytes, r.Latency = since(r.Bytes, e.Bytes), r.Latency.Since(e.Latency)
			}
		}
		out.Reads = append(out.Reads, r)
	}
	return out
}

func since(now, then uint64) uint64 {
	if then > now {
		return now
	}
	return now - then
}
