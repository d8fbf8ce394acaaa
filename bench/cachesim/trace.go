package cachesim

// Access is one request of a trace.
type Access struct {
	Disk  uint32
	Write bool
	Addr  uint64 // in blocks of 4 KiB
	Count uint32 // blocks
}

// read is a run of blocks that lie together, by location.
type read struct {
	at uint64
	n  uint32
}

// Trace is the reads of a trace by location, in order.
type Trace struct {
	Name   string
	reads  []read
	Reads  int   // requests
	Blocks int64 // read by them
	Unique int64 // different ones
}

// diskShift makes the locations of each disk a range of their own; what was written lies above all of them.
const (
	diskShift = 40
	logStart  = uint64(1) << 62
)

// NewTrace turns requests into a trace: next returns false at the end. Writes append to one log, as a Volume Driver's
// do.
func NewTrace(name string, next func(*Access) bool) *Trace {
	t := &Trace{Name: name}
	moved := map[uint64]uint64{}
	seen := map[uint64]struct{}{}
	log := logStart
	var a Access
	for next(&a) {
		base := uint64(a.Disk)<<diskShift + a.Addr
		if a.Write {
			for i := range uint64(a.Count) {
				moved[base+i] = log
				log++
			}
			continue
		}
		t.Reads++
		t.Blocks += int64(a.Count)
		first := true
		for i := range uint64(a.Count) {
			at := base + i
			if len(moved) > 0 {
				if m, ok := moved[at]; ok {
					at = m
				}
			}
			seen[at] = struct{}{}
			if last := len(t.reads) - 1; !first && t.reads[last].at+uint64(t.reads[last].n) == at {
				t.reads[last].n++
			} else {
				t.reads = append(t.reads, read{at, 1})
			}
			first = false
		}
	}
	t.Unique = int64(len(seen))
	return t
}
