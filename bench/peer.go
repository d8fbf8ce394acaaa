package bench

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"vstor/dataplane/errs"
)

// rawPath is the file of the peers that serve one: qemu-nbd, nbdkit, tgt, and fio without any.
func rawPath(opt *Options) string { return filepath.Join(opt.Work, "raw.img") }

// peer is an NBD server on the raw file.
type peer struct {
	opt    *Options
	as     string
	tool   string // its command: ours, or the name of its package or nearly so
	socket string
	args   []string // of its command
	p      *process
}

func newPeer(opt *Options, as, tool, short string) *peer {
	return &peer{opt: opt, as: as, tool: tool, socket: filepath.Join(opt.Work, short+".sock")}
}

func newQemu(opt *Options) *peer {
	q := newPeer(opt, qemu, "qemu-nbd", "q")
	q.args = apart([]string{"qemu-nbd", "--aio=io_uring", "--cache=none", "-f", "raw", "-k", q.socket, "-t", "-e", "16",
		"-x", volume, rawPath(opt)})
	return q
}

func (q *peer) name() string    { return q.as }
func (q *peer) logFile() string { return q.socket + ".log" }

func (q *peer) start(ctx context.Context) error {
	os.Remove(q.socket)
	if _, err := exec.LookPath(q.tool); err != nil {
		return errs.New(errs.Unsupported, "%s is not installed", q.tool)
	}
	p, out, err := launch(q.logFile(), q.args...)
	if err != nil {
		return err
	}
	q.p = p
	go func() {
		io.Copy(io.Discard, out)
		p.reap()
	}()
	return waitFor(ctx, p, q.tool, func() bool {
		_, err := os.Stat(q.socket)
		return err == nil
	})
}

// apart is a command that leaves fio's CPU to fio, where there is another: for a server with one thread, which it would
// otherwise share a CPU with for seconds. Those with many find their places themselves, and would lack the second.
func apart(args []string) []string {
	if cpus := serverCPUs(); cpus != "" {
		return append([]string{"taskset", "-c", cpus}, args...)
	}
	return args
}

// waitFor waits until a server that was launched is ready.
func waitFor(ctx context.Context, p *process, name string, ready func() bool) error {
	for end := time.Now().Add(startTimeout); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ready() {
			return nil
		}
		select {
		case <-p.done:
			return errs.New(errs.IO, "%s ended: %s", name, tail(p.log.Name()))
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
	}
	return errs.New(errs.IO, "%s is not ready after %v", name, startTimeout)
}

func (q *peer) stop() error {
	if q.p == nil {
		return nil
	}
	err := q.p.stop()
	q.p = nil
	return err
}

func (q *peer) begin(context.Context, Job) error          { return nil }
func (q *peer) end(context.Context) error                 { return nil }
func (q *peer) pids() []int                               { return []int{q.p.cmd.Process.Pid} }
func (q *peer) rest(context.Context, time.Duration) error { return nil }

func (q *peer) run(ctx context.Context, j Job, d time.Duration) (result, error) {
	if j.Share > 0 {
		return runOpen(ctx, door{"unix", q.socket}, j, d)
	}
	return runFio(ctx, nbdArgs("nbd+unix:///"+volume+"?socket="+q.socket), j, q.opt.Size, d)
}

// nbdkit is nbdkit's file plugin, which goes through the page cache. It holds whatever was read or written lately, so
// reads that are not cold come from RAM; writes reach the drive when the kernel likes, or a flush says so.
type nbdkit struct{ *peer }

func newNbdkit(opt *Options) nbdkit {
	k := nbdkit{newPeer(opt, nbdkitFile, "nbdkit", "k")}
	k.args = []string{"nbdkit", "-f", "-U", k.socket, "file", rawPath(opt)}
	return k
}

func (k nbdkit) begin(_ context.Context, j Job) error {
	if !j.Cold {
		return nil
	}
	return k.flush(true)
}

// end leaves nothing in the cache that would be written beside the next target's job.
func (k nbdkit) end(context.Context) error { return k.flush(true) }

func (k nbdkit) rest(context.Context, time.Duration) error { return k.flush(false) }

// flush writes the file's dirty pages, and has the page cache forget it.
func (k nbdkit) flush(forget bool) error {
	f, err := os.Open(rawPath(k.opt))
	if err != nil {
		return errs.Wrap(errs.IO, err, "cannot open the raw file")
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return errs.Wrap(errs.IO, err, "cannot flush the raw file")
	}
	const dontNeed = 4 // POSIX_FADV_DONTNEED
	if !forget {
		return nil
	}
	if _, _, e := syscall.Syscall6(syscall.SYS_FADVISE64, f.Fd(), 0, 0, dontNeed, 0, 0); e != 0 {
		return errs.Wrap(errs.IO, e, "the page cache does not forget the raw file")
	}
	return nil
}

// bare is a BareServer: how fast vstor's NBD is on this drive, with a log and no storage.
type bare struct{ *peer }

func newBare(opt *Options) bare {
	b := newPeer(opt, bareServer, opt.Vstor, "n")
	b.args = []string{opt.Vstor, "bench", "bare", "--socket", b.socket, "--file", rawPath(opt)}
	if serverCPUs() != "" {
		b.args = append(b.args, "--cpu", strconv.Itoa(fioCPU+1))
	}
	return bare{b}
}

// rest waits until what it owes is written: as ours, it is charged with that.
func (b bare) rest(ctx context.Context, d time.Duration) error { return quiesce(ctx, b.pids(), d) }

// raw is the peers' file without a server: the limit.
type raw struct{ opt *Options }

func (r raw) name() string                              { return rawFile }
func (r raw) start(context.Context) error               { return nil }
func (r raw) stop() error                               { return nil }
func (r raw) begin(context.Context, Job) error          { return nil }
func (r raw) end(context.Context) error                 { return nil }
func (r raw) pids() []int                               { return nil }
func (r raw) rest(context.Context, time.Duration) error { return nil }

func (r raw) run(ctx context.Context, j Job, d time.Duration) (result, error) {
	return runFio(ctx, rawArgs(rawPath(r.opt)), j, r.opt.Size, d)
}

// guest is a target that is left out, with a sentence, where it cannot run.
type guest struct{ target }

func (g guest) start(ctx context.Context) error {
	if err := g.target.start(ctx); err != nil {
		g.target.stop()
		return errs.Wrap(errs.Unsupported, err, "%s is left out", g.name())
	}
	return nil
}

// freeze stops a target that is heavy even if it does nothing, or has it go on.
func (g guest) freeze(on bool) {
	if t, is := g.target.(interface{ freeze(bool) }); is {
		t.freeze(on)
	}
}

// lost tells a target that it is left out from now on.
func (g guest) lost(why error) {
	if t, is := g.target.(interface{ lost(error) }); is {
		t.lost(why)
	}
}

// leftOut says whether an error of start means that the run goes on without.
func leftOut(t target, err error) bool {
	_, is := t.(guest)
	return is && errs.Of(err) == errs.Unsupported
}
