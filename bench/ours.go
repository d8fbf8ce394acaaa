package bench

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"vstor/dataplane/api"
	"vstor/dataplane/errs"
	"vstor/dataplane/units"
)

// asdCount is how many ASDs a deployment has.
const asdCount = 6

// ours is a deployment of its own: in one process, which serves NBD on TCP too, or with router, edge and ASDs in
// processes of their own.
type ours struct {
	opt     *Options
	spread  bool
	dir     string
	addr    string // of NBD on TCP, another with each start
	p       *process
	running []int // pids, while it runs
	client  *api.Client
}

// newOurs keeps the folder's name short: a socket's path has little room.
func newOurs(opt *Options, spread bool) *ours {
	dir := filepath.Join(opt.Work, "v")
	if spread {
		dir = filepath.Join(opt.Work, "p")
	}
	return &ours{opt: opt, spread: spread, dir: dir, client: api.NewClient(dir)}
}

func (o *ours) name() string {
	if o.spread {
		return processes
	}
	return embedded
}

func (o *ours) start(ctx context.Context) error {
	if o.spread {
		return o.startWith(ctx, "--processes")
	}
	return onFreePort(func(addr string) error {
		o.addr = addr
		return o.startWith(ctx, "--nbd-listen", addr, "--nbd-tls", "optional", "--nbd-tls-dir", tlsDir(o.opt))
	})
}

func (o *ours) startWith(ctx context.Context, flags ...string) error {
	// Reads are to come from the drives: the peer keeps nothing in RAM either.
	args := []string{o.opt.Vstor, "up", "--dir", o.dir, "--block-cache", "0", "--asds", strconv.Itoa(asdCount),
		"--asd-size", units.FormatSize(o.opt.ASDSize), "--journal", units.FormatSize(o.opt.Journal), "--policy", "4,2,5,1"}
	args = append(args, flags...)
	if cpus := serverCPUs(); cpus != "" {
		args = append(args, "--loop-cpus", cpus)
	}
	p, out, err := launch(o.dir+".log", args...)
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
	children := []string{"router-0", "edge-0"}
	for i := range asdCount {
		children = append(children, fmt.Sprintf("asd-%d", i))
	}
	for _, child := range children {
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
	err := o.p.stop()
	o.p, o.running = nil, nil
	return err
}

func (o *ours) run(ctx context.Context, j Job, d time.Duration) (result, error) {
	uri := "nbd+unix:///" + volume + "?socket=" + filepath.Join(o.dir, "nbd.sock")
	return runFio(ctx, nbdArgs(uri), j, o.opt.Size, d)
}

func (o *ours) pids() []int { return o.running }

func (o *ours) rest(ctx context.Context, d time.Duration) error { return quiesce(ctx, o.running, d) }
