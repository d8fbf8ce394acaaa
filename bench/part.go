package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/units"
)

// part is a part of the embedded deployment with all that is below it and nothing before it, driven on the part's own
// loop by a process that has opened the deployment for that: see RunPart. What an IO costs more on the next part up is
// what that hop costs.
type part struct {
	us *ours
	as string
	// While a job runs:
	p     *process
	stdin io.WriteCloser // a line of which begins the job
	says  chan string    // the lines of its stdout; closed when it has ended
}

// parts are what can be driven so, the lowest of the path first; then the caches, each by itself.
var parts = []string{driveAlone, logAlone, praccAlone, edgeAlone, ramAlone, ssdAlone, fragsAlone}

func (p *part) name() string                                    { return p.as }
func (p *part) start(context.Context) error                     { return nil }
func (p *part) pids() []int                                     { return []int{p.p.cmd.Process.Pid} }
func (p *part) rest(ctx context.Context, d time.Duration) error { return quiesce(ctx, p.pids(), d) }

func (p *part) stop() error {
	if p.p == nil {
		return nil
	}
	p.stdin.Close()
	err := p.p.stop()
	p.p = nil
	return err
}

// begin has a process open the deployment. Blocks that a job reads from the cache are in it when it is ready.
func (p *part) begin(ctx context.Context, j Job) error {
	if err := p.us.stop(); err != nil {
		return err
	}
	if err := p.launch(j); err != nil {
		return err
	}
	if line, err := p.line(ctx, startTimeout); err != nil {
		return err
	} else if line != partReady {
		return errs.New(errs.IO, "%s says %q and not that it is ready", p.as, line)
	}
	return p.rest(ctx, p.us.opt.Settle)
}

func (p *part) launch(j Job) error {
	args := []string{p.us.opt.Vstor, "bench", "part", p.as, "--dir", p.us.dir, "--file", rawPath(p.us.opt),
		"--bytes", units.FormatSize(p.us.opt.Size / max(j.Span, 1)), "--block", j.Block,
		"--depth", strconv.Itoa(j.Depth), "--for", j.length(p.us.opt, p.as).String()}
	if j.write() {
		args = append(args, "--write")
	}
	if !strings.HasPrefix(j.RW, "rand") {
		args = append(args, "--sequential")
	}
	args = append(args, p.caches(j)...)
	r, w, err := os.Pipe()
	if err != nil {
		return errs.Wrap(errs.IO, err, "cannot make a pipe")
	}
	defer r.Close()
	proc, out, err := launchWith(r, p.us.dir+".part.log", args...)
	if err != nil {
		w.Close()
		return err
	}
	p.p, p.stdin, p.says = proc, w, make(chan string, partLines)
	go listen(proc, out, p.says)
	return nil
}

// caches are the flags for the caches that a job is to find.
func (p *part) caches(j Job) []string {
	size := units.FormatSize(p.us.cacheSize())
	switch {
	case p.as == ssdAlone:
		return []string{"--block-cache", units.FormatSize(ssdFront), "--block-cache-ssd", size}
	case p.as == fragsAlone:
		return []string{"--fragment-cache", size}
	case j.Span > 0:
		return []string{"--block-cache", size}
	}
	return nil
}

// ssdFront is the RAM before the second tier, in bytes: little, so that nearly all is read from the file.
const ssdFront = 16 << 20

// partLines are as many as RunPart says.
const partLines = 2

// listen takes down what the process says and buries it at its end: one that died must not be taken for one at rest.
func listen(proc *process, out io.Reader, says chan<- string) {
	for s := bufio.NewScanner(out); s.Scan(); {
		select {
		case says <- s.Text():
		default: // nobody asked for that
		}
	}
	close(says)
	proc.reap()
}

// line is the next that the process says.
func (p *part) line(ctx context.Context, limit time.Duration) (string, error) {
	select {
	case line, more := <-p.says:
		if !more {
			return "", errs.New(errs.IO, "%s has ended: %s", p.as, tail(p.p.log.Name()))
		}
		return line, nil
	case <-ctx.Done():
		return "", ctx.Err()
	case <-time.After(limit):
		return "", errs.New(errs.IO, "%s says nothing for %v", p.as, limit)
	}
}

func (p *part) run(ctx context.Context, _ Job, d time.Duration) (r result, err error) {
	fmt.Fprintln(p.stdin)
	line, err := p.line(ctx, d+time.Minute)
	if err != nil {
		return r, err
	}
	if err := json.NewDecoder(strings.NewReader(line)).Decode(&r); err != nil {
		return r, errs.Wrap(errs.IO, err, "%s answers nonsense", p.as)
	}
	return r, nil
}

// end leaves the deployment closed: the next job is likely another part's. Who needs it running starts it.
func (p *part) end(context.Context) error { return p.stop() }
