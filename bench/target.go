package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"vstor/dataplane/errs"
)

const (
	startTimeout = 2 * time.Minute
	stopTimeout  = time.Minute
	startTries   = 3       // a port that was free a moment ago may be taken
	volume       = "bench" // name of the vDisk
)

// target is something to measure.
type target interface {
	name() string
	start(ctx context.Context) error
	stop() error
	// begin makes it ready for a job, and end undoes what that changed.
	begin(ctx context.Context, j Job) error
	end(ctx context.Context) error
	// run does a job for a time.
	run(ctx context.Context, j Job, d time.Duration) (result, error)
	pids() []int // of all its processes; none: no server
	// rest waits until nothing is left to do in the background, at most d.
	rest(ctx context.Context, d time.Duration) error
}

// serverCPUs are the CPUs for loops, as taskset writes them: all but fio's. Empty: there are none.
func serverCPUs() string {
	if n := runtime.NumCPU(); n > 1 {
		return fmt.Sprintf("%d-%d", fioCPU+1, n-1)
	}
	return ""
}

// process is a server of ours to start and stop.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	log  *os.File
}

// launch starts a command whose output goes to a log, and which dies with us.
func launch(log string, args ...string) (*process, io.ReadCloser, error) {
	return launchWith(nil, log, args...)
}

// launchWith gives it something to read, which stays the caller's.
func launchWith(stdin *os.File, log string, args ...string) (*process, io.ReadCloser, error) {
	f, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, errs.Wrap(errs.IO, err, "cannot write the log of %s", args[0])
	}
	p := &process{cmd: exec.Command(args[0], args[1:]...), done: make(chan struct{}), log: f}
	p.cmd.Stderr = f
	if stdin != nil {
		p.cmd.Stdin = stdin
	}
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

// onFreePort starts a server on a port of this machine, and on another one if someone else took it meanwhile.
func onFreePort(start func(addr string) error) (err error) {
	for range startTries {
		var addr string
		if addr, err = freePort(); err != nil {
			return err
		}
		if err = start(addr); err == nil || !strings.Contains(err.Error(), "address already in use") {
			return err
		}
	}
	return err
}

// freePort is an address of this machine on which nobody listens.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", errs.Wrap(errs.IO, err, "there is no port for a server")
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// quiesce waits, at most d, until processes neither work nor write: sealing and cleaning have caught up. A process that
// has nothing to do wakes for its timers all the same, and eight of them together took more than what one may take.
func quiesce(ctx context.Context, pids []int, d time.Duration) error {
	const step = 500 * time.Millisecond
	idle := step/20 + time.Duration(len(pids))*step/100
	quiet := 0
	for end := time.Now().Add(d); time.Now().Before(end) && quiet < 3; {
		before, err := usageOf(pids)
		if err != nil {
			return err
		}
		select {
		case <-time.After(step):
		case <-ctx.Done():
			return ctx.Err()
		}
		after, err := usageOf(pids)
		if err != nil {
			return err
		}
		quiet++
		if after.cpu-before.cpu > idle || after.written-before.written > 1<<20 {
			quiet = 0
		}
	}
	return nil
}

// lastWords is why a target's job failed if that was because a process of it ended; nil: all are there.
func lastWords(t target) error {
	if g, is := t.(guest); is {
		t = g.target
	}
	_, err := usageOf(t.pids())
	if l, is := t.(interface{ logFile() string }); is && err != nil {
		return errs.Wrap(errs.Of(err), err, "the log of %s ends with %q", t.name(), tail(l.logFile()))
	}
	return err
}

func tail(log string) string {
	b, err := os.ReadFile(log)
	if err != nil {
		return fmt.Sprintf("(its log cannot be read: %v)", err)
	}
	return lastLine(string(b))
}
