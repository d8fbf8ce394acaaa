package bench

import (
	"slices"
	"time"
)

// Report is a whole run.
type Report struct {
	// Format is that of the stored file, see stored.go.
	Format  int       `json:"vstor_bench_format"`
	Started time.Time `json:"started"`
	// Vstor is the version that was measured, Command what repeats the run.
	Vstor   string  `json:"vstor"`
	Command string  `json:"command"`
	Machine machine `json:"machine"`
	Quick   bool    `json:"quick"`
	// Profiled says that profiles were taken meanwhile.
	Profiled bool `json:"profiled,omitempty"`
	// Planned is how many cells a run that was broken off would have had; 0: it is whole.
	Planned int `json:"planned_cells,omitempty"`
	// LeftOut has a sentence for each peer that did not start, or failed meanwhile and was not measured from then on.
	LeftOut []string `json:"left_out,omitempty"`
	Rounds  int      `json:"rounds"`
	// TookSeconds is how long the run was, from its start to its last cell; 0: it was broken off.
	TookSeconds float64 `json:"took_seconds,omitempty"`
	// MinJournals is how many journals' worth a sustained write must write for its figure to count.
	MinJournals  float64 `json:"min_journals"`
	VolumeBytes  int64   `json:"volume_bytes"`
	JournalBytes int64   `json:"journal_bytes"`
	// ASDBytes is the size of each ASD of the deployment in one process, SpreadASDBytes of those in processes of their
	// own; 0: not known.
	ASDBytes       int64  `json:"asd_bytes,omitempty"`
	SpreadASDBytes int64  `json:"spread_asd_bytes,omitempty"`
	Rows           []Row  `json:"rows"`
	Cells          []Cell `json:"cells"`
}

// Cell is one job on one target in one round.
type Cell struct {
	Job    string  `json:"job"`
	Target string  `json:"target"`
	Round  int     `json:"round"`
	IOPS   float64 `json:"iops"`
	MBps   float64 `json:"mb_per_second"`
	MeanUs float64 `json:"mean_us"`
	P50Us  float64 `json:"p50_us"`
	P99Us  float64 `json:"p99_us"`
	P999Us float64 `json:"p999_us"`
	IOs    int64   `json:"ios"`
	Bytes  int64   `json:"bytes"`
	// Percentiles of latency in microseconds, by fio's names: "50.000000". Series is IOPS, a value each second.
	Percentiles map[string]float64 `json:"percentiles_us,omitempty"`
	Series      []float64          `json:"iops_by_second,omitempty"`
	CPUUsPerIO  float64            `json:"server_cpu_us_per_io"`
	// ClientCPU is the share of one core that fio's threads had; 0: not fio, or not known. LateP99Us is how late an open
	// loop started its IOs: the generator's doing, or 1024 of them were waiting for the server.
	ClientCPU float64 `json:"client_cpu,omitempty"`
	LateP99Us float64 `json:"late_p99_us,omitempty"`
	// FromCache is which share of the IOs a cache that was driven alone served itself; 0: it was none.
	FromCache float64 `json:"from_cache,omitempty"`
	// WrittenBytes is what of Bytes the client wrote.
	WrittenBytes int64 `json:"written_bytes"`
	// ServerBytes is what the server's processes wrote, DriveBytes what the drive was written by all.
	ServerBytes   int64   `json:"server_written_bytes"`
	DriveBytes    int64   `json:"drive_written_bytes"`
	ResidentBytes int64   `json:"server_resident_bytes"`
	RestSeconds   float64 `json:"rest_seconds"`
	// CopiedPerByte is how many bytes were copied in user space for each byte served; nil if the target does not tell.
	CopiedPerByte *float64 `json:"copied_per_byte,omitempty"`
	// OtherLoad is the share of all cores that others had just before the job, OtherDuring while it ran. A cell that is
	// Disturbed was so twice, and counts for no ratio.
	OtherLoad   float64 `json:"other_load"`
	OtherDuring float64 `json:"other_load_during"`
	// OtherDriveMBps is what others moved on the drive meanwhile, if it was enough to disturb.
	OtherDriveMBps float64 `json:"other_drive_mb_per_second,omitempty"`
	Disturbed      bool    `json:"disturbed,omitempty"`
}

// Row is one goal: medians of the rounds, and of the rounds' ratios.
type Row struct {
	Job    string `json:"job"`
	Figure Figure `json:"figure"`
	Target string `json:"target"`
	Base   string `json:"base"`
	// BaseJob is the job of Peer and Raw.
	BaseJob string  `json:"base_job"`
	Ours    float64 `json:"ours"`
	Peer    float64 `json:"peer"`
	Raw     float64 `json:"raw"`
	Ratio   float64 `json:"ratio"` // of Ours to the base's figure; 0: none, or disturbed
	Goal    float64 `json:"goal"`  // 0: none
	Met     bool    `json:"met"`
	// Slow: Base is qemu-nbd, in the slow one of its two speeds, see slowFactor.
	Slow bool `json:"slow_yardstick,omitempty"`
	// Disturbed: so many rounds were that there is no ratio.
	Disturbed bool `json:"disturbed"`
	// Writes and Sustained are the job's.
	Writes    bool `json:"writes"`
	Sustained bool `json:"sustained"`
	// SpreadPercent is how far our rounds lie apart, RatioSpreadPercent how far the ratios of its Pairs rounds do:
	// (max-min)/median.
	SpreadPercent      float64 `json:"spread_percent"`
	RatioSpreadPercent float64 `json:"ratio_spread_percent"`
	Pairs              int     `json:"pairs"`
	OursCPU            float64 `json:"ours_cpu_us_per_io"`
	PeerCPU            float64 `json:"peer_cpu_us_per_io"`
	OursMean           float64 `json:"ours_mean_us"`
	PeerMean           float64 `json:"peer_mean_us"`
	OursP99            float64 `json:"ours_p99_us"`
	PeerP99            float64 `json:"peer_p99_us"`
	// Written bytes by the client, by our processes and to the drive, in the rounds that count.
	Bytes       int64 `json:"ours_bytes"`
	ServerBytes int64 `json:"ours_server_written_bytes"`
	DriveBytes  int64 `json:"ours_drive_written_bytes"`
}

func (f Figure) value(c Cell) float64 {
	switch f {
	case Latency:
		return c.MeanUs
	case P99:
		return c.P99Us
	case MBps:
		return c.MBps
	case CPU:
		return c.CPUUsPerIO
	}
	return c.IOPS
}

// seconds is how long a cell's IOs ran; 0: not known.
func (c Cell) seconds() float64 {
	if c.IOPS <= 0 {
		return 0
	}
	return float64(c.IOs) / c.IOPS
}

func (r *Report) of(job, target string) []Cell {
	var out []Cell
	for _, c := range r.Cells {
		if c.Job == job && c.Target == target {
			out = append(out, c)
		}
	}
	return out
}

// trusted leaves out disturbed rounds. Not ok: half of the rounds or more are, and what is left is what luck left;
// then all are given, to be shown and not to be compared.
func (r *Report) trusted(job, target string) (cells []Cell, ok bool) {
	all := r.of(job, target)
	quiet := slices.DeleteFunc(slices.Clone(all), func(c Cell) bool { return c.Disturbed })
	if 2*len(quiet) <= len(all) {
		return all, len(all) == 0
	}
	return quiet, true
}

func median(cells []Cell, f func(Cell) float64) float64 {
	v := make([]float64, len(cells))
	for i, c := range cells {
		v[i] = f(c)
	}
	return middle(v)
}

// middle is the median; it sorts.
func middle(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

// summarize makes a row of each goal. Paths hop by hop have none: they have a table of their own.
func (r *Report) summarize() {
	r.Rows = nil
	for _, j := range Jobs() {
		if j.Hops {
			continue
		}
		for _, g := range j.Goals {
			if r.has(j, g) {
				r.Rows = append(r.Rows, r.row(j, g))
			}
		}
	}
}

// has says whether what a goal speaks of was measured: a quick run does not do all jobs, and not every run has all
// peers.
func (r *Report) has(j Job, g Goal) bool {
	from := j.Name
	if g.BaseJob != "" {
		from = g.BaseJob
	}
	return len(r.of(j.Name, g.Target)) > 0 && (g.Base == "" || len(r.of(from, g.Base)) > 0)
}

func (r *Report) row(j Job, g Goal) Row {
	j = j.by(g)
	from := j.Name
	if g.BaseJob != "" {
		from = g.BaseJob
	}
	us, quiet := r.trusted(j.Name, g.Target)
	ratios, sound := r.paired(j.Name, g.Target, from, g.Base, j.Figure.value)
	them, _ := r.trusted(from, qemu)
	limit, _ := r.trusted(from, rawFile)
	cpu := func(c Cell) float64 { return c.CPUUsPerIO }
	mean := func(c Cell) float64 { return c.MeanUs }
	p99 := func(c Cell) float64 { return c.P99Us }
	value := j.Figure.value
	row := Row{Job: j.Name, Figure: j.Figure, Target: g.Target, Base: g.Base, BaseJob: from, Goal: g.Ratio,
		Writes: j.write(), Sustained: j.Sustained, Disturbed: !quiet || !sound,
		Ours: median(us, value), Peer: median(them, value), Raw: median(limit, value),
		OursCPU: median(us, cpu), PeerCPU: median(them, cpu), OursMean: median(us, mean), PeerMean: median(them, mean),
		OursP99: median(us, p99), PeerP99: median(them, p99)}
	if len(ratios) > 0 && !row.Disturbed {
		row.Ratio, row.RatioSpreadPercent, row.Pairs = middle(ratios), 100*spreadOf(ratios), len(ratios)
		row.Met = g.Ratio > 0 && j.Met(g, row.Ratio)
	}
	row.Slow = g.Base == qemu && r.qemuSlow(from)
	row.SpreadPercent = 100 * spread(us, value)
	for _, c := range us {
		row.Bytes += c.WrittenBytes
		row.ServerBytes += c.ServerBytes
		row.DriveBytes += c.DriveBytes
	}
	return row
}

// paired are the ratios of a target's figure in a job to that of a base in its job, of each round that has both and of
// which nothing was disturbed. The obvious ratio is that of the two medians; but what a machine gives changes from one
// quarter of an hour to the next, a virtual one by a third and more, and the two medians may come from different ones.
// Not sound: half of the pairs or more were disturbed.
func (r *Report) paired(job, target, baseJob, base string, f func(Cell) float64) (ratios []float64, sound bool) {
	pairs := 0
	for _, u := range r.of(job, target) {
		for _, b := range r.of(baseJob, base) {
			if b.Round != u.Round || f(b) <= 0 {
				continue
			}
			if pairs++; !u.Disturbed && !b.Disturbed {
				ratios = append(ratios, f(u)/f(b))
			}
		}
	}
	return ratios, 2*len(ratios) > pairs || pairs == 0
}

// besideQemu is a target's ratio to qemu-nbd in a job; 0: there is none.
func (r *Report) besideQemu(job, target string, f func(Cell) float64) float64 {
	ratios, sound := r.paired(job, target, job, qemu, f)
	if !sound {
		return 0
	}
	return middle(ratios)
}

// spread is how far rounds lie apart, as a share of their median.
func spread(cells []Cell, f func(Cell) float64) float64 {
	v := make([]float64, len(cells))
	for i, c := range cells {
		v[i] = f(c)
	}
	return spreadOf(v)
}

// spreadOf is how far figures lie apart, as a share of their median; it sorts.
func spreadOf(v []float64) float64 {
	m := middle(v)
	if m <= 0 {
		return 0
	}
	return (v[len(v)-1] - v[0]) / m
}
