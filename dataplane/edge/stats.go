package edge

import (
	"vstor/dataplane/block"
	"vstor/dataplane/errs"
	"vstor/dataplane/stat"
)

// Stats counts what a Disk did. The loop writes, anyone reads.
type Stats struct {
	Reads, Writes, Trims, Flushes stat.Counter // requests
	Extents, Caches               stat.Counter // requests
	ReadBytes, WriteBytes         stat.Counter
	Errors                        stat.Counter // requests that ended with an error
	Corrupt                       stat.Counter // of them, because data is damaged
	Partials                      stat.Counter // writes that read and merged a block
	Waits                         stat.Counter // mutations that waited for one that overlaps
	Retries                       stat.Counter // reads that looked their range up anew
	LeaseLost                     stat.Counter // of reads whose lease had run out when they were to be answered
	PageWaits                     stat.Counter // reads that waited for a page of memory
	Unknown                       stat.Counter // pages of the map, told as data because they cannot be read

	Rungs                      [block.Rungs]RungStats // reads that gave data
	WriteLatency, FlushLatency stat.Histogram         // of requests without an error
}

// RungStats is of the reads for which a rung of the ladder was the last that was needed, so that the requests of
// all rungs are all reads; bytes are counted where each block came from.
//
// Times are from the begin of the pass that took a request to the begin of the one that ended it: the clock is
// read once per pass, and what a pass does within itself counts as nothing.
type RungStats struct {
	Bytes   stat.Counter
	Latency stat.Histogram
}

// note counts the end of a request.
func (x *io) note() {
	s, r := &x.d.Stats, x.r
	if r.Err != errs.OK {
		if r.Err != errs.Unsupported {
			s.Errors.Add(1)
		}
		if r.Err == errs.Corrupt {
			s.Corrupt.Add(1)
		}
		return
	}
	took := x.d.loop.Now() - x.began
	switch r.Op {
	case block.Read:
		s.Rungs[x.via].Latency.Record(took)
	case block.Write:
		s.WriteLatency.Record(took)
	case block.Flush:
		s.FlushLatency.Record(took)
	}
}

// gave counts bytes that a rung gave.
func (x *io) gave(via block.Rung, n int) {
	x.via = max(x.via, via)
	x.d.Stats.Rungs[via].Bytes.Add(uint64(n))
}
