package bench

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/units"
)

// spareSpace is left free on the file system, in bytes.
const spareSpace = 1 << 30

// Run measures and reports to out. It needs fio and qemu-nbd on the PATH.
func Run(ctx context.Context, opt Options, out io.Writer) error {
	opt.Defaults()
	if err := check(&opt); err != nil {
		return err
	}
	if err := os.MkdirAll(opt.Work, 0o700); err != nil {
		return errs.Wrap(errs.IO, err, "cannot make the work folder")
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
	b := &bench{opt: &opt, out: out, report: Report{Started: time.Now().UTC(), Machine: thisMachine(), Rounds: opt.Rounds,
		VolumeBytes: opt.Size, JournalBytes: opt.Journal}}
	if err := b.checkSpace(); err != nil {
		return err
	}
	them, one := &peer{opt: &opt}, newOneASD(&opt)
	us, spread := newOurs(&opt, false), newOurs(&opt, true)
	b.targets = []target{us, spread, variant{spread, local}, variant{us, cached}, them, raw{them.file(), opt.Size}, one,
		tcp{us, false}, tcp{us, true}}
	defer func() {
		for _, t := range b.targets {
			t.stop()
		}
	}()
	// The loop that drives the one ASD would queue behind goroutines, as any other would.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(runtime.NumCPU() + 1))
	if err := b.prepare(ctx, them, one); err != nil {
		return err
	}
	for round := range opt.Rounds {
		if err := b.round(ctx, round); err != nil {
			return err
		}
	}
	b.report.summarize()
	b.report.print(out, opt.MinJournals)
	if opt.JSON == "" {
		return nil
	}
	return b.report.save(opt.JSON)
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
	opt     *Options
	out     io.Writer
	targets []target
	report  Report
}

func (b *bench) say(format string, args ...any) { fmt.Fprintf(b.out, format+"\n", args...) }

// prepare makes the files of the peer and of the one ASD, every block of them written once, and starts all
// servers.
func (b *bench) prepare(ctx context.Context, p *peer, one *oneASD) error {
	b.say("preparing: a raw file of %s and an ASD's of %s, written through once", units.HumanSize(b.opt.Size),
		units.HumanSize(b.opt.driveSize()))
	if err := writeThrough(ctx, p.file(), b.opt.Size); err != nil {
		return err
	}
	if err := writeThrough(ctx, one.file(), b.opt.driveSize()); err != nil {
		return err
	}
	if err := one.format(ctx); err != nil {
		return err
	}
	if err := makeCertificate(tlsDir(b.opt)); err != nil {
		return err
	}
	for _, t := range b.targets {
		if err := t.start(ctx); err != nil {
			return fmt.Errorf("starting %s: %w", t.name(), err)
		}
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
var fillJob = Job{Name: "fill", RW: "write", Block: "1M", Depth: 8}

// round does every job on all its targets. Each round begins with all blocks of our volumes written anew and
// sealed; the others' are in place since prepare.
func (b *bench) round(ctx context.Context, round int) error {
	b.say("round %d of %d: writing our volumes through", round+1, b.opt.Rounds)
	for _, t := range b.targets {
		if _, is := t.(*ours); !is {
			continue // over TCP it is the same volume
		}
		if _, err := t.run(ctx, fillJob, 0); err != nil {
			return fmt.Errorf("writing %s through: %w", t.name(), err)
		}
		if err := t.rest(ctx, b.opt.Settle); err != nil {
			return err
		}
	}
	for i, j := range Jobs() {
		for k := range b.targets {
			t := b.targets[(i+round+k)%len(b.targets)] // in turns, so that no one is always first
			if !j.on(t.name()) {
				continue
			}
			if err := b.cell(ctx, round, t, j); err != nil {
				return fmt.Errorf("%s on %s: %w", j.Name, t.name(), err)
			}
		}
	}
	return nil
}

// cell measures one job on one target. What the job leaves to be done in the background is waited for,
// and its CPU and bytes counted with the job.
func (b *bench) cell(ctx context.Context, round int, t target, j Job) error {
	if err := t.begin(ctx, j); err != nil {
		return err
	}
	load := otherLoad(300 * time.Millisecond)
	before, err := usageOf(t.pids())
	if err != nil {
		return err
	}
	driveBefore := driveWritten(b.opt.Work)
	r, err := t.run(ctx, j, j.length(b.opt, t.name()))
	if err != nil {
		return err
	}
	ended := time.Now()
	if j.write() {
		if err := t.rest(ctx, b.opt.Settle); err != nil {
			return err
		}
	}
	after, err := usageOf(t.pids())
	if err != nil {
		return err
	}
	c := Cell{Job: j.Name, Target: t.name(), Round: round, IOPS: r.IOPS, MBps: r.MBps, MeanUs: r.Mean,
		P50Us: r.P50, P99Us: r.P99, P999Us: r.P999, IOs: r.IOs, Bytes: r.Bytes,
		DriveBytes: driveWritten(b.opt.Work) - driveBefore, OtherLoad: load,
		RestSeconds: time.Since(ended).Seconds(), ResidentBytes: after.rss, ServerBytes: after.written - before.written}
	if r.IOs > 0 {
		c.CPUUsPerIO = float64((after.cpu - before.cpu).Microseconds()) / float64(r.IOs)
	}
	b.report.Cells = append(b.report.Cells, c)
	b.say("  %-35s %-11s %9.0f IOPS %7.0f MB/s  mean %7.0f us  p99 %7.0f us  %6.1f us CPU/IO", j.Name, t.name(),
		c.IOPS, c.MBps, c.MeanUs, c.P99Us, c.CPUUsPerIO)
	return t.end(ctx)
}

func thisMachine() machine {
	m := machine{Cores: runtime.NumCPU()}
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
