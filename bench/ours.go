package bench

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"vstor/dataplane/api"
	"vstor/dataplane/config"
	"vstor/dataplane/errs"
	"vstor/dataplane/node"
	"vstor/dataplane/units"
)

// asdCount is how many ASDs a deployment has.
const asdCount = 6

// ours is a deployment of its own: in one process, which serves NBD on TCP too, or with router, edge and ASDs in
// processes of their own.
type ours struct {
	opt     *Options
	spread  bool
	asdSize int64 // bytes
	dir     string
	addr    string // of NBD on TCP, another with each start
	p       *process
	running []int // pids, while it runs
	client  *api.Client
}

// newOurs keeps the folder's name short: a socket's path has little room.
func newOurs(opt *Options, spread bool) *ours {
	dir, size := filepath.Join(opt.Work, "v"), opt.ASDSize
	if spread {
		dir, size = filepath.Join(opt.Work, "p"), opt.spreadASDSize()
	}
	return &ours{opt: opt, spread: spread, asdSize: size, dir: dir, client: api.NewClient(dir)}
}

func (o *ours) name() string {
	if o.spread {
		return processes
	}
	return embedded
}

// start starts it to read from the drives, through the ASDs where those are processes: the peer keeps nothing in
// RAM either.
func (o *ours) start(ctx context.Context) error {
	settings := []string{"--block-cache", "0", "--short-circuit", "off"}
	if o.spread {
		settings = append(settings, "--edge-memory", units.FormatSize(config.Default().EdgeMemory))
	}
	return o.startWith(ctx, settings...)
}

// startWith starts it with some settings. Those of the start before, which it remembers, count where none is given.
func (o *ours) startWith(ctx context.Context, settings ...string) error {
	if o.spread {
		return o.launch(ctx, append(settings, "--processes")...)
	}
	return onFreePort(func(addr string) error {
		o.addr = addr
		settings := append(settings, "--nbd-listen", addr, "--nbd-tls", "optional", "--nbd-tls-dir", tlsDir(o.opt))
		return o.launch(ctx, settings...)
	})
}

// restartWith starts it again and waits until it is at rest.
func (o *ours) restartWith(ctx context.Context, start func(context.Context) error) error {
	if err := o.stop(); err != nil {
		return err
	}
	if err := start(ctx); err != nil {
		return err
	}
	return o.rest(ctx, o.opt.Settle)
}

func (o *ours) logFile() string { return o.dir + ".log" }

func (o *ours) launch(ctx context.Context, flags ...string) error {
	args := []string{o.opt.Vstor, "up", "--dir", o.dir, "--asds", strconv.Itoa(asdCount),
		"--asd-size", units.FormatSize(o.asdSize), "--journal", units.FormatSize(o.opt.Journal), "--policy", "4,2,5,1"}
	args = append(args, flags...)
	if cpus := serverCPUs(); cpus != "" && !slices.Contains(flags, "--loop-cpus") {
		args = append(args, "--loop-cpus", cpus)
	}
	p, out, err := launch(o.logFile(), args...)
	if err != nil {
		return err
	}
	o.p = p
	ready := make(chan bool, 1)
	go func() {
		s := bufio.NewScanner(out)
		for s.Scan() {
			if strings.HasPrefix(s.Text(), "ready ") {
				ready <- true
			}
		}
		p.reap()
	}()
	select {
	case <-ready:
	case <-p.done:
		return errs.New(errs.IO, "`vstor up` ended: %s", tail(p.log.Name()))
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(startTimeout):
		return errs.New(errs.IO, "`vstor up` is not ready after %v: %s", startTimeout, tail(p.log.Name()))
	}
	if o.running, err = o.findProcesses(); err != nil {
		return err
	}
	_, err = o.client.CreateVDisk(ctx, volume, o.opt.Size)
	if errs.Of(err) == errs.Exists {
		return nil
	}
	return err
}

// findProcesses is the parent, and its children by their pid files. A child that is restarted later has a pid
// that is not among them: its end fails the job under way, as it should.
func (o *ours) findProcesses() ([]int, error) {
	pids := []int{o.p.cmd.Process.Pid}
	if !o.spread {
		return pids, nil
	}
	for _, child := range children() {
		b, err := os.ReadFile(filepath.Join(o.dir, "run", child+".pid"))
		if err != nil {
			return nil, errs.Wrap(errs.IO, err, "%s runs in no process", child)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			return nil, errs.Wrap(errs.IO, err, "the pid file of %s", child)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

func (o *ours) stop() error {
	o.client.Close()
	if o.p == nil {
		return nil
	}
	o.revive()
	err := o.p.stop()
	o.p, o.running = nil, nil
	return err
}

func (o *ours) begin(ctx context.Context, j Job) error {
	if j.Down && !o.spread { // there is no process to stop
		return o.restartWith(ctx, o.startLacking)
	}
	if j.Cold || o.p == nil { // a part of it had a job
		if err := o.restartWith(ctx, o.start); err != nil {
			return err
		}
	}
	return o.degrade(ctx, j)
}

// end undoes what begin did to an ASD.
func (o *ours) end(ctx context.Context) error {
	o.revive()
	if _, err := os.Stat(o.hidden()); err != nil {
		return nil
	}
	if err := o.stop(); err != nil {
		return err
	}
	if err := os.Rename(o.hidden(), o.lastDrive()); err != nil {
		return errs.Wrap(errs.IO, err, "cannot put a drive back")
	}
	return o.restartWith(ctx, o.start)
}

// lastDrive is the folder of the last ASD, and hidden what it is called while a job goes without.
func (o *ours) lastDrive() string { return filepath.Join(o.dir, asdName(asdCount-1)) }
func (o *ours) hidden() string    { return o.lastDrive() + ".away" }

// startLacking starts it as after the loss of a drive.
func (o *ours) startLacking(ctx context.Context) error {
	if err := os.Rename(o.lastDrive(), o.hidden()); err != nil {
		return errs.Wrap(errs.IO, err, "cannot take a drive away")
	}
	return o.start(ctx)
}

func (o *ours) socket() string { return filepath.Join(o.dir, "nbd.sock") }

func (o *ours) run(ctx context.Context, j Job, d time.Duration) (result, error) {
	if j.Stall && d > 0 {
		defer o.stall(d/4, d/2)()
	}
	if j.Share > 0 {
		return runOpen(ctx, door{"unix", o.socket()}, j, d)
	}
	return runFio(ctx, nbdArgs("nbd+unix:///"+volume+"?socket="+o.socket()), j, o.opt.Size, d)
}

// lastASD is the process of one ASD, which the jobs that want one stopped stop.
func (o *ours) lastASD() int { return o.running[len(o.running)-1] }

// stall stops the last ASD's process after some time, for some time. The function that it returns waits until the
// process goes on.
func (o *ours) stall(after, during time.Duration) (wait func()) {
	pid, done := o.lastASD(), make(chan struct{})
	go func() {
		defer close(done)
		time.Sleep(after)
		syscall.Kill(pid, syscall.SIGSTOP)
		time.Sleep(during)
		syscall.Kill(pid, syscall.SIGCONT)
	}()
	return func() { <-done }
}

// degrade stops the last ASD's process, if the job says so, and lets everybody find out: how long that takes is
// another job's figure.
func (o *ours) degrade(ctx context.Context, j Job) error {
	if !j.Down {
		return nil
	}
	syscall.Kill(o.lastASD(), syscall.SIGSTOP)
	_, err := o.run(ctx, j, time.Second)
	return err
}

// revive lets an ASD's process go on that was stopped; it does nothing to one that was not.
func (o *ours) revive() {
	if o.spread && len(o.running) > 0 {
		syscall.Kill(o.lastASD(), syscall.SIGCONT)
	}
}

// copied is how many bytes of payload were copied in user space since the start, as the deployment counts them.
func (o *ours) copied(ctx context.Context) (n float64, known bool) {
	page, err := o.client.Metrics(ctx)
	if err != nil {
		return 0, false
	}
	return sumOf(string(page), "vstor_copied_bytes_total"), true
}

// sumOf adds up the samples of a metric, one from each process.
func sumOf(page, metric string) (sum float64) {
	for line := range strings.Lines(page) {
		fields := strings.Fields(line)
		if len(fields) != 2 || fields[0] != metric && !strings.HasPrefix(fields[0], metric+"{") {
			continue
		}
		v, _ := strconv.ParseFloat(fields[1], 64)
		sum += v
	}
	return sum
}

func (o *ours) pids() []int { return o.running }

// faces are its processes: the parent, and its children if it has any, but for the one that the job stops.
func (o *ours) faces(j Job) []face {
	list := []face{{"vstor", api.NewClient(o.dir)}}
	if !o.spread {
		return list
	}
	run := filepath.Join(o.dir, "run")
	for _, child := range roles {
		list = append(list, face{child, api.NewClient(filepath.Join(run, child))})
	}
	answer := asdCount
	if j.Stall || j.Down {
		answer-- // the last one
	}
	for i := range answer {
		list = append(list, face{asdName(i), api.NewProcessClient(node.DebugSock(filepath.Join(run, asdName(i)+".sock")))})
	}
	return list
}

// roles are the processes below the parent that are no ASDs.
var roles = []string{"router-0", "edge-0"}

func asdName(i int) string { return fmt.Sprintf("asd-%d", i) }

func children() []string {
	names := slices.Clone(roles)
	for i := range asdCount {
		names = append(names, asdName(i))
	}
	return names
}

func (o *ours) rest(ctx context.Context, d time.Duration) error { return quiesce(ctx, o.running, d) }
