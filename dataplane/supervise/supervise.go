// Package supervise starts child processes, starts them again when they die, and makes sure that none
// outlives its parent.
//
// A child holds the reading end of a pipe, its lifeline, as descriptor 3; the parent holds the other and never
// writes. However the parent ends, kill -9 included, the kernel closes its end and the child reads the end
// of the file. The obvious way, PR_SET_PDEATHSIG, is tied to the thread that forked and not to the
// process, and a Go program's threads come and go.
//
// A child that is stopped (SIGSTOP) cannot hear that. Its pid file tells the next parent, which ends it.
package supervise

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"vstor/dataplane/errs"
)

// LifelineFD is the child's descriptor of its lifeline, FilesFD the first of Options.Files.
const (
	LifelineFD = 3
	FilesFD    = 4
)

// Pauses between a child's end and its next start: they double, and begin anew once it has run for a while.
const (
	pauseMin = 100 * time.Millisecond
	pauseMax = 5 * time.Second
	steady   = 10 * time.Second
)

// Options say what to run.
type Options struct {
	Name    string     // for logs
	Path    string     // of the program
	Args    []string   // without the program's name
	PIDFile string     // holds the pid while the child runs; an absolute path
	Restart bool       // start it again when it dies
	Files   []*os.File // the child's from descriptor FilesFD on; the caller's to close, after Stop
	Output  io.Writer
	Log     *slog.Logger
}

// Child is a process that is watched. Any goroutine may call its methods.
type Child struct {
	opts Options
	done chan struct{} // closed when nothing runs and nothing will
	stop chan struct{}

	mu       sync.Mutex
	proc     *os.Process // nil while none runs
	restarts int
	last     error // why the last one ended
	stopping bool
}

// Start has the child run: what an earlier parent left running under the same pid file is ended first. That and
// the start itself are tried again until they succeed, whatever Restart says; Err tells why they have not yet.
func Start(o Options) *Child {
	c := &Child{opts: o, done: make(chan struct{}), stop: make(chan struct{})}
	go c.watch()
	return c
}

// PID is the process's number, 0 while none runs.
func (c *Child) PID() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.proc == nil {
		return 0
	}
	return c.proc.Pid
}

// Restarts is how often it was started again.
func (c *Child) Restarts() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.restarts
}

// Err is why it ended last, or does not start; nil while neither happened.
func (c *Child) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// running is one life of the child.
type running struct {
	cmd      *exec.Cmd
	lifeline *os.File
	since    time.Time
	said     *lastLine
}

// lastLine passes on what a child says and keeps its last words: most often they are the reason why it ended.
type lastLine struct {
	to   io.Writer
	mu   sync.Mutex
	line []byte
	open bool // line has no end yet
}

const lastLineMax = 400

// Write implements io.Writer.
func (l *lastLine) Write(b []byte) (int, error) {
	l.mu.Lock()
	for _, c := range b {
		if !l.open {
			l.line, l.open = l.line[:0], true
		}
		if c == '\n' {
			l.open = false
		} else if len(l.line) < lastLineMax {
			l.line = append(l.line, c)
		}
	}
	l.mu.Unlock()
	// What cannot be passed on is lost. An error here would close the child's pipe, and its next words would end it by
	// SIGPIPE: a full file system that holds nothing but a log must stop no disk.
	_, _ = l.to.Write(b)
	return len(b), nil
}

func (l *lastLine) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.line)
}

func (c *Child) spawn() (*running, error) {
	theirs, ours, err := os.Pipe()
	if err != nil {
		return nil, errs.Wrap(errs.IO, err, "cannot start %s", c.opts.Name)
	}
	defer theirs.Close()
	cmd := exec.Command(c.opts.Path, c.opts.Args...)
	cmd.Env = append(os.Environ(), pidFileVar+"="+c.opts.PIDFile)
	said := &lastLine{to: c.opts.Output}
	cmd.Stdout, cmd.Stderr = said, said
	cmd.ExtraFiles = append([]*os.File{theirs}, c.opts.Files...)
	// A group of its own: Ctrl-C at the terminal is for the parent, which ends its children in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		ours.Close()
		return nil, errs.Wrap(errs.IO, err, "cannot start %s", c.opts.Name)
	}
	if err := os.WriteFile(c.opts.PIDFile, []byte(strconv.Itoa(cmd.Process.Pid)+"\n"), 0o600); err != nil {
		c.opts.Log.Warn("a child's pid cannot be noted", "child", c.opts.Name, "error", err)
	}
	c.mu.Lock()
	c.proc = cmd.Process
	c.mu.Unlock()
	return &running{cmd: cmd, lifeline: ours, since: time.Now(), said: said}, nil
}

// watch starts the child, waits for its end and starts it again.
func (c *Child) watch() {
	defer close(c.done)
	pause := pauseMin
	for life := 0; ; life++ {
		r, err := c.begin(life)
		if err == nil {
			err = r.cmd.Wait()
			r.lifeline.Close()
			if time.Since(r.since) > steady {
				pause = pauseMin
			}
			err = r.reason(err)
			if !c.ended(err) {
				return
			}
		} else {
			c.opts.Log.Error("a child process cannot be started; it is tried again", "child", c.opts.Name, "error", err)
			life--
		}
		select {
		case <-c.stop:
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, pauseMax)
	}
}

// reason puts a child's last words to how it ended, if it did so by itself: they are not why it was killed.
func (r *running) reason(err error) error {
	var exit *exec.ExitError
	words := r.said.String()
	if errors.As(err, &exit) && exit.Exited() && words != "" {
		return fmt.Errorf("%w: %s", err, words)
	}
	return err
}

// begin is one try to start a life of the child.
func (c *Child) begin(life int) (*running, error) {
	err := endLeftover(c.opts.PIDFile)
	var r *running
	if err == nil {
		r, err = c.spawn()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.last = err
		return nil, err
	}
	c.restarts = life
	if c.stopping { // Stop was called while it started
		terminate(c.proc)
	}
	return r, nil
}

// ended notes a child's end and reports whether to start it again.
func (c *Child) ended(err error) bool {
	os.Remove(c.opts.PIDFile)
	c.mu.Lock()
	c.proc, c.last = nil, err
	stopping := c.stopping
	c.mu.Unlock()
	if stopping {
		return false
	}
	reason := "it exited"
	if err != nil {
		reason = err.Error()
	}
	c.opts.Log.Error("a child process ended", "child", c.opts.Name, "reason", reason, "restart", c.opts.Restart)
	return c.opts.Restart
}

// terminate asks a process to end, also one that is stopped.
func terminate(p *os.Process) {
	_ = p.Signal(syscall.SIGTERM) // it may have ended just now
	_ = p.Signal(syscall.SIGCONT)
}

// Stop ends the child: SIGTERM, and SIGKILL if it has not ended after wait. It returns once it has.
func (c *Child) Stop(wait time.Duration) {
	c.mu.Lock()
	if !c.stopping {
		c.stopping = true
		close(c.stop)
	}
	if c.proc != nil {
		terminate(c.proc)
	}
	c.mu.Unlock()
	select {
	case <-c.done:
		return
	case <-time.After(wait):
	}
	c.mu.Lock()
	if c.proc != nil {
		c.opts.Log.Warn("a child process does not end and is killed", "child", c.opts.Name, "pid", c.proc.Pid)
		_ = c.proc.Kill()
	}
	c.mu.Unlock()
	<-c.done
}

// Lifeline is closed when the parent has ended. For the child; a process that was not started by Start gets
// a channel that is never closed.
func Lifeline() <-chan struct{} {
	gone := make(chan struct{})
	var st syscall.Stat_t
	if err := syscall.Fstat(LifelineFD, &st); err != nil || st.Mode&syscall.S_IFMT != syscall.S_IFIFO {
		return gone
	}
	f := os.NewFile(LifelineFD, "lifeline")
	go func() {
		defer close(gone)
		for {
			if _, err := f.Read(make([]byte, 1)); err != nil && !errors.Is(err, syscall.EINTR) {
				return
			}
		}
	}()
	return gone
}
