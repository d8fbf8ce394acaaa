package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/units"
)

// Report is a whole run.
type Report struct {
	Started      time.Time `json:"started"`
	Machine      machine   `json:"machine"`
	Rounds       int       `json:"rounds"`
	VolumeBytes  int64     `json:"volume_bytes"`
	JournalBytes int64     `json:"journal_bytes"`
	Rows         []Row     `json:"rows"`
	Cells        []Cell    `json:"cells"`
}

// Cell is one job on one target in one round.
type Cell struct {
	Job        string  `json:"job"`
	Target     string  `json:"target"`
	Round      int     `json:"round"`
	IOPS       float64 `json:"iops"`
	MBps       float64 `json:"mb_per_second"`
	MeanUs     float64 `json:"mean_us"`
	P50Us      float64 `json:"p50_us"`
	P99Us      float64 `json:"p99_us"`
	P999Us     float64 `json:"p999_us"`
	IOs        int64   `json:"ios"`
	Bytes      int64   `json:"bytes"`
	CPUUsPerIO float64 `json:"server_cpu_us_per_io"`
	// ServerBytes is what the server's process wrote, DriveBytes what the drive was written by all.
	ServerBytes   int64   `json:"server_written_bytes"`
	DriveBytes    int64   `json:"drive_written_bytes"`
	ResidentBytes int64   `json:"server_resident_bytes"`
	RestSeconds   float64 `json:"rest_seconds"`
	// OtherLoad is the share of all cores that was busy just before the job.
	OtherLoad float64 `json:"other_load"`
}

// Row compares the medians of one job.
type Row struct {
	Job    string  `json:"job"`
	Figure Figure  `json:"figure"`
	Ours   float64 `json:"ours"`
	Peer   float64 `json:"peer"`
	Raw    float64 `json:"raw"`
	Ratio  float64 `json:"ratio"`
	Goal   float64 `json:"goal"`
	Met    bool    `json:"met"`
	// SpreadPercent is how far our rounds lie apart, (max-min)/median.
	SpreadPercent float64 `json:"spread_percent"`
	OursCPU       float64 `json:"ours_cpu_us_per_io"`
	PeerCPU       float64 `json:"peer_cpu_us_per_io"`
	OursP99       float64 `json:"ours_p99_us"`
	PeerP99       float64 `json:"peer_p99_us"`
	// Written bytes by fio and to the drive, of our cells, all rounds.
	Bytes       int64 `json:"ours_bytes"`
	ServerBytes int64 `json:"ours_server_written_bytes"`
	DriveBytes  int64 `json:"ours_drive_written_bytes"`
}

func (j Job) value(c Cell) float64 {
	switch j.Figure {
	case Latency:
		return c.MeanUs
	case MBps:
		return c.MBps
	}
	return c.IOPS
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

func median(cells []Cell, f func(Cell) float64) float64 {
	if len(cells) == 0 {
		return 0
	}
	v := make([]float64, len(cells))
	for i, c := range cells {
		v[i] = f(c)
	}
	slices.Sort(v)
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

// summarize makes a row of each job.
func (r *Report) summarize() {
	r.Rows = nil
	cpu := func(c Cell) float64 { return c.CPUUsPerIO }
	p99 := func(c Cell) float64 { return c.P99Us }
	for _, j := range Jobs() {
		us, them, limit := r.of(j.Name, "vstor"), r.of(j.Name, "qemu-nbd"), r.of(j.Name, "raw file")
		row := Row{Job: j.Name, Figure: j.Figure, Goal: j.Goal,
			Ours: median(us, j.value), Peer: median(them, j.value), Raw: median(limit, j.value),
			OursCPU: median(us, cpu), PeerCPU: median(them, cpu), OursP99: median(us, p99), PeerP99: median(them, p99)}
		if row.Peer > 0 {
			row.Ratio = row.Ours / row.Peer
			row.Met = len(us) > 0 && j.Met(row.Ratio)
		}
		lo, hi := row.Ours, row.Ours
		for _, c := range us {
			lo, hi = min(lo, j.value(c)), max(hi, j.value(c))
			row.Bytes += c.Bytes
			row.ServerBytes += c.ServerBytes
			row.DriveBytes += c.DriveBytes
		}
		if row.Ours > 0 {
			row.SpreadPercent = (hi - lo) / row.Ours * 100
		}
		r.Rows = append(r.Rows, row)
	}
}

// disturbed is the load of others above which a run's ratios are doubtful.
const disturbed = 0.15

func (r *Report) print(out io.Writer, minJournals float64) {
	fmt.Fprintf(out, "\n%s, %d cores, Linux %s, %s, %s; %s; %d rounds, volume %s, journal %s\n\n", r.Machine.CPU,
		r.Machine.Cores,
		r.Machine.Kernel, r.Machine.Fio, r.Machine.Qemu, r.Started.Format(time.DateOnly), r.Rounds,
		units.HumanSize(r.VolumeBytes), units.HumanSize(r.JournalBytes))
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "job\t\tvstor\tqemu-nbd\traw file\tratio\tgoal\t\tspread\tp99 us\tCPU us/IO\t")
	for _, row := range r.Rows {
		sign, verdict := ">=", "met"
		if row.Figure == Latency {
			sign = "<="
		}
		if !row.Met {
			verdict = "MISSED"
		}
		fmt.Fprintf(w, "%s\t%s\t%.0f\t%.0f\t%.0f\t%.2f\t%s %.2f\t%s\t%.0f%%\t%.0f : %.0f\t%.1f : %.1f\t\n", row.Job,
			row.Figure,
			row.Ours, row.Peer, row.Raw, row.Ratio, sign, row.Goal, verdict, row.SpreadPercent, row.OursP99, row.PeerP99,
			row.OursCPU, row.PeerCPU)
	}
	w.Flush()
	r.remarks(out, minJournals)
}

// remarks says what bears on the table: bytes on the drive, cells that count less than they seem to.
func (r *Report) remarks(out io.Writer, minJournals float64) {
	fmt.Fprintln(out)
	for i, j := range Jobs() {
		row := r.Rows[i]
		if !j.write() || row.Bytes == 0 {
			continue
		}
		fmt.Fprintf(out, "%s: %s written, %s by our process (%.2fx), %s on the drive (%.2fx)\n", j.Name,
			units.HumanSize(row.Bytes), units.HumanSize(row.ServerBytes), float64(row.ServerBytes)/float64(row.Bytes),
			units.HumanSize(row.DriveBytes), float64(row.DriveBytes)/float64(row.Bytes))
		for _, c := range r.of(j.Name, "vstor") {
			if n := float64(c.Bytes) / float64(r.JournalBytes); j.Sustained && n < minJournals {
				fmt.Fprintf(out, "  round %d wrote %.1f journals' worth; %.0f are asked for: its figure flatters\n",
					c.Round+1, n, minJournals)
			}
		}
	}
	n, worst := 0, 0.0
	for _, c := range r.Cells {
		if c.OtherLoad > disturbed {
			n++
		}
		worst = max(worst, c.OtherLoad)
	}
	if n > 0 {
		fmt.Fprintf(out, "DISTURBED: before %d of %d cells something else kept up to %.0f %% of the cores busy; "+
			"these ratios mean little, measure again on a quiet machine\n", n, len(r.Cells), worst*100)
	}
}

func (r *Report) save(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = os.WriteFile(path, append(b, '\n'), 0o644)
	}
	if err != nil {
		return errs.Wrap(errs.IO, err, "cannot write the results")
	}
	return nil
}
