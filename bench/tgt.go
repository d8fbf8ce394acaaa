package bench

import (
	"context"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"

	"vstor/dataplane/errs"
)

// tgt is tgtd, with its aio backing store on the raw file. fio reaches it through a qemu-nbd of its own, whose iSCSI
// initiator runs in user space: Debian's fio has no engine for iSCSI, and the kernel's initiator is not everywhere. The
// hop costs it some latency, and CPU that is counted with tgtd's.
type tgt struct {
	*peer
	daemon *process
}

const tgtName = "iqn.2000-01.test.vstor:bench"

func newTgt(opt *Options) *tgt { return &tgt{peer: newPeer(opt, tgtISCSI, "qemu-nbd", "t")} }

// control is an environment that keeps tgtd's control socket apart from that of a tgtd of the machine's own.
func (t *tgt) control(args ...string) []string {
	return append([]string{"env", "TGT_IPC_SOCKET=" + filepath.Join(t.opt.Work, "tgtd")}, args...)
}

func (t *tgt) start(ctx context.Context) error {
	for _, tool := range []string{"tgtd", "tgtadm"} {
		if _, err := exec.LookPath(tool); err != nil {
			return errs.New(errs.Unsupported, "%s is not installed (package tgt)", tool)
		}
	}
	return onFreePort(func(addr string) error {
		if err := t.serve(ctx, addr); err != nil {
			return err
		}
		t.args = apart([]string{"qemu-nbd", "--cache=none", "-f", "raw", "-k", t.socket, "-t", "-e", "16", "-x", volume,
			"iscsi://" + addr + "/" + tgtName + "/1"})
		return t.peer.start(ctx)
	})
}

// serve starts tgtd, and gives it the raw file as a LUN.
func (t *tgt) serve(ctx context.Context, addr string) error {
	args := t.control("tgtd", "-f", "-C", "0", "--iscsi", "portal="+addr)
	p, out, err := launch(filepath.Join(t.opt.Work, "tgtd.log"), args...)
	if err != nil {
		return err
	}
	t.daemon = p
	go func() {
		io.Copy(io.Discard, out)
		p.reap()
	}()
	err = waitFor(ctx, p, "tgtd", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	for _, words := range [][]string{
		{"--op", "new", "--mode", "target", "--tid", "1", "-T", tgtName},
		{"--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "--bstype", "aio", "-b", rawPath(t.opt)},
		{"--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL"},
	} {
		if err == nil {
			args := append([]string{"tgtadm", "-C", "0", "--lld", "iscsi"}, words...)
			err = command(ctx, t.control(args...)...)
		}
	}
	return err
}

func (t *tgt) stop() error {
	err := t.peer.stop()
	if t.daemon == nil {
		return err
	}
	// It takes a SIGTERM for a wish while it has targets.
	t.daemon.cmd.Process.Kill()
	<-t.daemon.done
	t.daemon = nil
	return err
}

func (t *tgt) pids() []int { return append(t.peer.pids(), t.daemon.cmd.Process.Pid) }

// command runs a command to its end.
func command(ctx context.Context, args ...string) error {
	if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
		return errs.Wrap(errs.IO, err, "%s failed: %s", strings.Join(args, " "), lastLine(string(out)))
	}
	return nil
}
