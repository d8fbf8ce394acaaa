package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/units"
)

// spareSpace is left free on the file system, in bytes.
const spareSpace = 1 << 30

// Run measures and reports to out. It needs fio and qemu-nbd on the PATH. If it fails, or ctx ends, it reports what it
// has until then, see salvage.
func Run(ctx context.Context, opt Options, out io.Writer) error {
	opt.Defaults()
	if err := check(&opt); err != nil {
		return err
	}
	if err := os.MkdirAll(opt.Work, 0o700); err != nil {
		return errs.Wrap(errs.IO, err, "cannot make the work folder")
	}
	if err := checkFiles(&opt); err != nil { // the results may lie beside the work folder, in one that was just made
		return err
	}
	if err := beginProfiles(opt.Profile); err != nil {
		return err
	}
	work, err := os.MkdirTemp(opt.Work, "bench-")
	if err == nil {
		opt.Work, err = filepath.Abs(work)
	}
	if err != nil {
		return errs.Wrap(errs.IO, err, "cannot make the work folder")
	}
	if !opt.Keep {
		defer os.RemoveAll(opt.Work)
	}
	b := &bench{opt: &opt, left: map[string]bool{}, report: Report{Started: time.Now().UTC(),
		Machine: thisMachine(opt.Work), Rounds: opt.Rounds, VolumeBytes: opt.Size, JournalBytes: opt.Journal,
		ASDBytes: opt.ASDSize, SpreadASDBytes: opt.spreadASDSize()}}
	if err := b.checkSpace(); err != nil {
		return err
	}
	b.progress = newProgress(out)
	defer b.progress.tick()()
	if err := b.all(ctx); err != nil {
		if ctx.Err() != nil { // what the signal did to fio is no news
			err = errs.New(errs.Canceled, "the bench was broken off")
		}
		if !opt.Keep { // a full file system may be what broke it off
			os.RemoveAll(opt.Work)
		}
		return errors.Join(err, b.report.salvage(&opt, out))
	}
	return b.report.publish(&opt, out)
}

// targets are those of a run, in the order in which they are started and, but for the turns, measured.
func targets(opt *Options) (list []target, one *oneASD) {
	one = newOneASD(opt)
	us, spread := newOurs(opt, false), newOurs(opt, true)
	list = []target{us, spread, variant{spread, local}, variant{us, cached}, variant{spread, cachedASDs}, newQemu(opt),
		guest{newNbdkit(opt)}, guest{newBare(opt)}, raw{opt}, one,
		tcp{us, false}, tcp{us, true}, newCrowded(opt, false), newCrowded(opt, true)}
	for _, name := range parts {
		list = append(list, &part{us: us, as: name})
	}
	if opt.Peers {
		list = append(list, heavyPeers(opt)...)
	}
	return list, one
}

// all starts everything, does the plan, and stops everything.
func (b *bench) all(ctx context.Context) error {
	list, one := targets(b.opt)
	b.targets = slices.Clone(list)
	defer func() {
		for _, t := range slices.Backward(list) { // what leans on another comes behind it
			t.stop()
		}
	}()
	steps := plan(b.opt, b.names())
	b.targets = slices.DeleteFunc(b.targets, func(t target) bool { return !needed(t, steps) })
	if len(steps) == 0 {
		return errs.New(errs.Invalid, "no job on any target fits %s", b.opt.Only)
	}
	b.progress.say("%d cells, about %s", len(steps), minutes(b.opt.total(steps)))
	// The loop that drives the one ASD would queue behind goroutines, as any other would.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(runtime.NumCPU() + 1))
	if err := b.prepare(ctx, one); err != nil {
		return err
	}
	steps = plan(b.opt, b.names()) // without those that were left out
	left := time.Duration(b.opt.Rounds) * b.opt.between()
	for _, s := range steps {
		left += b.opt.cost(s)
	}
	b.progress.plan(len(steps), left)
	b.report.Planned = len(steps)
	round := -1
	for _, s := range steps {
		if s.round != round {
			round = s.round
			if err := b.begin(ctx, round); err != nil {
				return err
			}
		}
		if b.left[s.target] {
			b.progress.step(1, b.opt.cost(s))
			continue
		}
		if err := b.measure(ctx, s); err != nil && !b.leaveOut(ctx, s, err) {
			return fmt.Errorf("%s on %s: %w", s.job.Name, s.target, err)
		}
	}
	b.report.Planned = 0
	b.report.TookSeconds = time.Since(b.report.Started).Seconds()
	return nil
}

// leaveOut has the run go on without a guest that failed: an hour's work is not lost for it. The guest is stopped: one
// that hangs may keep a core busy, or the drive, and so disturb all cells that follow.
func (b *bench) leaveOut(ctx context.Context, s step, err error) bool {
	g, is := b.target(s.target).(guest)
	if !is || ctx.Err() != nil {
		return false
	}
	g.lost(err)
	b.left[s.target] = true
	if e := errors.Join(g.end(ctx), g.stop()); e != nil {
		err = fmt.Errorf("%w; and as it was stopped: %w", err, e)
	}
	line := fmt.Sprintf("%s is left out from round %d on: %s: %v", s.target, s.round+1, s.job.Name, err)
	b.report.LeftOut = append(b.report.LeftOut, line)
	b.progress.say("%s", line)
	return true
}

func (b *bench) target(name string) target {
	for _, t := range b.targets {
		if t.name() == name {
			return t
		}
	}
	return nil
}

// needed says whether a target has anything to do, itself or for another that leans on it.
func needed(t target, steps []step) bool {
	return slices.ContainsFunc(steps, func(s step) bool {
		switch s.target {
		case local, cachedASDs:
			return t.name() == s.target || t.name() == processes
		case cached, overTCP, overTLS:
			return t.name() == s.target || t.name() == embedded
		}
		return t.name() == s.target || t.name() == embedded && slices.Contains(parts, s.target)
	})
}

func (b *bench) names() []string {
	names := make([]string, len(b.targets))
	for i, t := range b.targets {
		names[i] = t.name()
	}
	return names
}

func check(opt *Options) error {
	for tool, pkg := range map[string]string{"fio": "fio", "qemu-nbd": "qemu-utils"} {
		if _, err := exec.LookPath(tool); err != nil {
			return errs.New(errs.Unsupported, "the bench needs %s: install the package %s", tool, pkg)
		}
	}
	help, _ := exec.Command("fio", "--enghelp").CombinedOutput()
	if !strings.Contains(string(help), "\tnbd\n") {
		return errs.New(errs.Unsupported, "this fio has no nbd engine: install one that was built with libnbd")
	}
	if opt.Vstor == "" || opt.Work == "" {
		return errs.New(errs.Invalid, "the bench needs the vstor command and a work folder")
	}
	if opt.Rounds < 1 {
		return errs.New(errs.Invalid, "--rounds %d: there must be one at least", opt.Rounds)
	}
	return nil
}

func (b *bench) checkSpace() error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(b.opt.Work, &fs); err != nil {
		return errs.Wrap(errs.IO, err, "cannot learn how much space %s has", b.opt.Work)
	}
	need := b.opt.Space() + spareSpace
	if free := int64(fs.Bavail) * fs.Bsize; free < need {
		return errs.New(errs.Full, "the bench needs %s below %s and there are %s: name another folder with --dir",
			units.HumanSize(need), b.opt.Work, units.HumanSize(free))
	}
	return nil
}

type bench struct {
	opt      *Options
	targets  []target
	left     map[string]bool // guests that failed, by name
	report   Report
	progress *progress
}

// prepare makes the files of the peers and of the one ASD, every block of them written once, and starts all
// servers.
func (b *bench) prepare(ctx context.Context, one *oneASD) error {
	b.progress.say("preparing: a raw file of %s, written through once, and the servers", units.HumanSize(b.opt.Size))
	if err := writeThrough(ctx, rawPath(b.opt), b.opt.Size); err != nil {
		return err
	}
	alone := slices.Contains(b.names(), single)
	if alone {
		if err := writeThrough(ctx, one.file(), b.opt.driveSize()); err != nil {
			return err
		}
		if err := one.format(ctx); err != nil {
			return err
		}
	}
	if err := makeCertificate(tlsDir(b.opt)); err != nil {
		return err
	}
	var up []target
	for _, t := range b.targets {
		err := t.start(ctx)
		switch {
		case err == nil:
			up = append(up, t)
		case leftOut(t, err):
			b.report.LeftOut = append(b.report.LeftOut, err.Error())
			b.progress.say("%v", err)
		default:
			return fmt.Errorf("starting %s: %w", t.name(), err)
		}
	}
	b.targets = up
	if !alone {
		return nil
	}
	return one.fill(ctx)
}

// writeThrough makes a file whose blocks are all written, so that no write has to tell the file system.
func writeThrough(ctx context.Context, path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return errs.Wrap(errs.IO, err, "cannot make a file")
	}
	err = syscall.Fallocate(int(f.Fd()), 0, 0, size)
	f.Close()
	if err != nil {
		return errs.Wrap(errs.IO, err, "cannot allocate a file")
	}
	_, err = runFio(ctx, rawArgs(path), fillJob, size, 0)
	return err
}

// fillJob writes every block once.
var fillJob = Job{Name: "fill", File: "1m-write-qd8", RW: "write"}

// begin begins a round: all blocks of the raw file, of our volumes and of the one ASD are written anew, and sealed, so
// that nobody reads what is older than what others read: a drive that is virtual may know the difference. Those of tgt
// and Ceph are in place since they started.
func (b *bench) begin(ctx context.Context, round int) error {
	b.progress.start(fmt.Sprintf("round %d of %d: writing all volumes through", round+1, b.opt.Rounds))
	if round > 0 {
		if err := writeThrough(ctx, rawPath(b.opt), b.opt.Size); err != nil {
			return err
		}
	}
	for _, t := range b.targets {
		if one, is := t.(*oneASD); is && round > 0 {
			if err := one.fill(ctx); err != nil {
				return fmt.Errorf("filling %s: %w", t.name(), err)
			}
		}
		if _, is := t.(*ours); !is {
			continue // over TCP it is the same volume
		}
		if err := t.begin(ctx, fillJob); err != nil {
			return err
		}
		if _, err := t.run(ctx, fillJob, 0); err != nil {
			return fmt.Errorf("writing %s through: %w", t.name(), err)
		}
		if err := t.rest(ctx, b.opt.Settle); err != nil {
			return err
		}
	}
	b.progress.step(0, b.opt.between())
	return nil
}

// measure does a step. One that is disturbed is done once more, and marked if that was no better.
func (b *bench) measure(ctx context.Context, s step) error {
	t := b.target(s.target)
	for _, other := range b.targets {
		if g, is := other.(guest); is {
			g.freeze(true)
		}
	}
	if g, is := t.(guest); is {
		g.freeze(false)
	}
	if s.job.Share > 0 {
		s.job.rate = s.job.Share * median(b.report.of(s.job.Of, qemu), func(c Cell) float64 { return c.IOPS })
	}
	b.progress.start(s.job.Name + " on " + s.target)
	c, err := b.cell(ctx, s, t)
	if err == nil && c.Disturbed {
		b.progress.say("  disturbed, once more: %s on %s: %s", s.job.Name, s.target, c.disturbance())
		c, err = b.cell(ctx, s, t)
	}
	if err != nil {
		return err
	}
	b.report.Cells = append(b.report.Cells, c)
	b.progress.step(1, b.opt.cost(s))
	mark := ""
	if c.Disturbed {
		mark = "  DISTURBED: " + c.disturbance()
	}
	b.progress.say("[%s] %-42s %-11s %8.0f IOPS %6.0f MB/s  mean %6.0f us  p99 %6.0f us  %6.1f us CPU/IO%s",
		b.progress.where(), s.job.Name, s.target, c.IOPS, c.MBps, c.MeanUs, c.P99Us, c.CPUUsPerIO, mark)
	return nil
}

// cell measures one job on one target. What the job leaves to be done in the background is waited for,
// and its CPU and bytes counted with the job.
func (b *bench) cell(ctx context.Context, s step, t target) (Cell, error) {
	if err := t.begin(ctx, s.job); err != nil {
		return Cell{}, err
	}
	load := calm()
	before, err := usageOf(t.pids())
	if err != nil {
		return Cell{}, err
	}
	copied, counts := copiedBy(ctx, t)
	driveBefore := driveWritten(b.opt.Work)
	from, err := look(t.pids(), b.opt.Work)
	if err != nil {
		return Cell{}, err
	}
	length := s.job.length(b.opt, s.target)
	keep := b.profile(ctx, s, t, length)
	r, err := t.run(ctx, s.job, length)
	if err != nil {
		return Cell{}, errors.Join(err, lastWords(t))
	}
	to, err := look(t.pids(), b.opt.Work)
	if err = errors.Join(err, keep()); err != nil {
		return Cell{}, err
	}
	ended := time.Now()
	if s.job.write() {
		if err := t.rest(ctx, b.opt.Settle); err != nil {
			return Cell{}, err
		}
	}
	after, err := usageOf(t.pids())
	if err != nil {
		return Cell{}, err
	}
	w := to.since(from)
	c := Cell{Job: s.job.Name, Target: s.target, Round: s.round, IOPS: r.IOPS, MBps: r.MBps, MeanUs: r.Mean,
		P50Us: r.P50, P99Us: r.P99, P999Us: r.P999, IOs: r.IOs, Bytes: r.Bytes, Percentiles: r.Percentiles, Series: r.Series,
		WrittenBytes: s.job.writes(r.Bytes), DriveBytes: driveWritten(b.opt.Work) - driveBefore,
		LateP99Us: r.Late, ClientCPU: r.ClientCPU, FromCache: r.FromCache,
		OtherLoad: load, OtherDuring: w.others(), OtherDriveMBps: w.driven() / 1e6,
		RestSeconds: time.Since(ended).Seconds(), ResidentBytes: after.rss, ServerBytes: after.written - before.written}
	c.Disturbed = isDisturbed(c.OtherLoad, c.OtherDuring, c.OtherDriveMBps)
	if r.IOs > 0 {
		c.CPUUsPerIO = float64((after.cpu - before.cpu).Microseconds()) / float64(r.IOs)
	}
	if now, still := copiedBy(ctx, t); counts && still && r.Bytes > 0 {
		perByte := (now - copied) / float64(r.Bytes)
		c.CopiedPerByte = &perByte
	}
	return c, t.end(ctx)
}

// copiedBy is how many bytes of payload a target has copied so far, if it counts them and tells.
func copiedBy(ctx context.Context, t target) (n float64, counts bool) {
	c, counts := t.(interface {
		copied(context.Context) (n float64, known bool)
	})
	if !counts {
		return 0, false
	}
	return c.copied(ctx)
}

// thisMachine describes it, with the drive below path.
func thisMachine(path string) machine {
	m := machine{Cores: runtime.NumCPU(), Drive: driveOf(path)}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		_, rest, _ := strings.Cut(string(b), "model name")
		line, _, _ := strings.Cut(rest, "\n")
		m.CPU = strings.TrimLeft(line, "\t :")
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(b))
	}
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		m.RAM = field(string(b), "MemTotal:") << 10
	}
	if b, err := exec.Command("fio", "--version").Output(); err == nil {
		m.Fio = strings.TrimSpace(string(b))
	}
	if b, err := exec.Command("qemu-nbd", "--version").Output(); err == nil {
		m.Qemu, _, _ = strings.Cut(string(b), "\n")
	}
	return m
}
