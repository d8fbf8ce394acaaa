package bench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"vstor/dataplane/api"
	"vstor/dataplane/errs"
	"vstor/dataplane/units"
)

const (
	startTimeout = 2 * time.Minute
	stopTimeout  = time.Minute
	volume       = "bench"
)

// target is something that fio can be aimed at.
type target interface {
	name() string
	start(ctx context.Context) error
	stop() error
	fio() []string
	pid() int // 0: no server
	// rest waits until nothing is left to do in the background, at most d.
	rest(ctx context.Context, d time.Duration) error
}

// process is a server of ours to start and stop.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	log  *os.File
}

// launch starts a command whose output goes to a log, and which dies with us.
func launch(log string, args ...string) (*process, io.ReadCloser, error) {
	f, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, errs.Wrap(errs.IO, err, "cannot write the log of %s", args[0])
	}
	p := &process{cmd: exec.Command(args[0], args[1:]...), done: make(chan struct{}), log: f}
	p.cmd.Stderr = f
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		f.Close()
		return nil, nil, errs.Wrap(errs.IO, err, "cannot start %s", args[0])
	}
	return p, out, nil
}

// reap waits for the end; called once, on a goroutine of its own, when stdout was read to its end.
func (p *process) reap() {
	p.cmd.Wait()
	p.log.Close()
	close(p.done)
}

func (p *process) stop() error {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return nil
	case <-time.After(stopTimeout):
		p.cmd.Process.Kill()
		<-p.done
		return errs.New(errs.IO, "%s did not end within %v of SIGTERM", p.cmd.Args[0], stopTimeout)
	}
}

// ours is a deployment of its own.
type ours struct {
	opt    *Options
	dir    string
	p      *process
	client *api.Client
}

func newOurs(opt *Options) *ours {
	dir := filepath.Join(opt.Work, "v")
	return &ours{opt: opt, dir: dir, client: api.NewClient(dir)}
}

func (o *ours) name() string { return "vstor" }

func (o *ours) start(ctx context.Context) error {
	p, out, err := launch(filepath.Join(o.opt.Work, "vstor.log"), o.opt.Vstor, "up", "--dir", o.dir, "--asds", "6",
		"--asd-size", units.FormatSize(o.opt.ASDSize), "--journal", units.FormatSize(o.opt.Journal), "--policy", "4,2,5,1")
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
	_, err = o.client.CreateVDisk(ctx, volume, o.opt.Size)
	if errs.Of(err) == errs.Exists {
		return nil
	}
	return err
}

func (o *ours) stop() error {
	o.client.Close()
	if o.p == nil {
		return nil
	}
	err := o.p.stop()
	o.p = nil
	return err
}

func (o *ours) fio() []string {
	return nbdArgs("nbd+unix:///" + volume + "?socket=" + filepath.Join(o.dir, "nbd.sock"))
}

func (o *ours) pid() int { return o.p.cmd.Process.Pid }

// rest waits until our process neither works nor writes: sealing and cleaning have caught up.
func (o *ours) rest(ctx context.Context, d time.Duration) error {
	const step = 500 * time.Millisecond
	quiet := 0
	for end := time.Now().Add(d); time.Now().Before(end) && quiet < 3; {
		before, err := processUsage(o.pid())
		if err != nil {
			return err
		}
		select {
		case <-time.After(step):
		case <-ctx.Done():
			return ctx.Err()
		}
		after, err := processUsage(o.pid())
		if err != nil {
			return err
		}
		quiet++
		if after.cpu-before.cpu > step/20 || after.written-before.written > 1<<20 {
			quiet = 0
		}
	}
	return nil
}

// peer is qemu-nbd on a raw file.
type peer struct {
	opt *Options
	p   *process
}

func (q *peer) name() string   { return "qemu-nbd" }
func (q *peer) file() string   { return filepath.Join(q.opt.Work, "raw.img") }
func (q *peer) socket() string { return filepath.Join(q.opt.Work, "q.sock") }

func (q *peer) start(ctx context.Context) error {
	os.Remove(q.socket())
	p, out, err := launch(filepath.Join(q.opt.Work, "qemu.log"), "qemu-nbd", "--aio=io_uring", "--cache=none", "-f", "raw",
		"-k", q.socket(), "-t", "-e", "16", "-x", volume, q.file())
	if err != nil {
		return err
	}
	q.p = p
	go func() {
		io.Copy(io.Discard, out)
		p.reap()
	}()
	for end := time.Now().Add(startTimeout); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(q.socket()); err == nil {
			return nil
		}
		select {
		case <-p.done:
			return errs.New(errs.IO, "qemu-nbd ended: %s", tail(p.log.Name()))
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
	}
	return errs.New(errs.IO, "qemu-nbd does not listen after %v", startTimeout)
}

func (q *peer) stop() error {
	if q.p == nil {
		return nil
	}
	err := q.p.stop()
	q.p = nil
	return err
}

func (q *peer) fio() []string                             { return nbdArgs(q.uri()) }
func (q *peer) uri() string                               { return "nbd+unix:///" + volume + "?socket=" + q.socket() }
func (q *peer) pid() int                                  { return q.p.cmd.Process.Pid }
func (q *peer) rest(context.Context, time.Duration) error { return nil }

// raw is the peer's file without a server: the limit.
type raw struct{ path string }

func (r raw) name() string                              { return "raw file" }
func (r raw) start(context.Context) error               { return nil }
func (r raw) stop() error                               { return nil }
func (r raw) fio() []string                             { return rawArgs(r.path) }
func (r raw) pid() int                                  { return 0 }
func (r raw) rest(context.Context, time.Duration) error { return nil }

func tail(log string) string {
	b, err := os.ReadFile(log)
	if err != nil {
		return fmt.Sprintf("(its log cannot be read: %v)", err)
	}
	return lastLine(string(b))
}
