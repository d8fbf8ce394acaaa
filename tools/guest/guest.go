package guest

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Program is the emulator that Boot starts.
const Program = "qemu-system-x86_64"

// bootTimeMax is generous: an idle machine needs three seconds.
const bootTimeMax = 3 * time.Minute

// Options says what to boot.
type Options struct {
	Kernel Kernel
	Initrd string   // the file that Image.WriteFile wrote
	Dir    string   // for the console's log; of this guest alone
	Args   []string // more arguments for qemu: disks, networks
	CPUs   int      // default 2
	Memory int      // MiB, default 512
}

// EnsureDefaults fills in what was left out.
func (o *Options) EnsureDefaults() {
	if o.CPUs == 0 {
		o.CPUs = 2
	}
	if o.Memory == 0 {
		o.Memory = 512
	}
}

// Validate says what is wrong with the options.
func (o *Options) Validate() error {
	if o.Kernel.Image == "" || o.Initrd == "" || o.Dir == "" {
		return fmt.Errorf("a guest needs a Kernel (see Find), an Initrd (see Image.WriteFile) and a Dir")
	}
	return nil
}

// Guest is a running virtual machine. Its methods may be called by any goroutine; scripts run one after the other.
type Guest struct {
	cmd     *exec.Cmd
	console string // file

	mu  sync.Mutex // one script at a time
	in  io.WriteCloser
	out chan string // lines from the second serial port; closed when qemu has ended
}

// Boot starts a guest and returns when it takes scripts. The caller ends it with Kill.
func Boot(ctx context.Context, o Options) (*Guest, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	g := &Guest{console: filepath.Join(o.Dir, "console"), out: make(chan string, 64)}
	// Software emulation also where /dev/kvm exists: what is inside a virtual machine has one that does not work.
	g.cmd = exec.Command(Program, append([]string{"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", "pc", "-accel", "tcg,thread=multi", "-smp", strconv.Itoa(o.CPUs), "-m", strconv.Itoa(o.Memory),
		"-kernel", o.Kernel.Image, "-initrd", o.Initrd,
		"-append", "console=ttyS0 loglevel=6 panic=-1 rdinit=/init net.ifnames=0",
		"-serial", "file:" + g.console, "-chardev", "stdio,id=scripts,signal=off", "-serial", "chardev:scripts"},
		o.Args...)...)
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the test, which then kills the guest
	errs, err := os.Create(filepath.Join(o.Dir, "qemu.err"))
	if err != nil {
		return nil, err
	}
	defer errs.Close()
	g.cmd.Stderr = errs
	if g.in, err = g.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := g.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := g.cmd.Start(); err != nil {
		return nil, fmt.Errorf("guests need the package qemu-system-x86: %w", err)
	}
	go g.lines(out)
	ctx, cancel := context.WithTimeout(ctx, bootTimeMax)
	defer cancel()
	for {
		line, err := g.line(ctx)
		if err != nil {
			g.Kill()
			said, _ := os.ReadFile(errs.Name())
			return nil, fmt.Errorf("the guest does not boot: %w\n%s\n%s", err, said, tail(g.Log(), 20))
		}
		if line == "ready" {
			return g, nil
		}
	}
}

// lines passes on what the guest says until qemu ends.
func (g *Guest) lines(r io.Reader) {
	s := bufio.NewScanner(r)
	for s.Scan() {
		g.out <- strings.TrimRight(s.Text(), "\r")
	}
	close(g.out)
}

func (g *Guest) line(ctx context.Context) (string, error) {
	select {
	case l, ok := <-g.out:
		if !ok {
			return "", fmt.Errorf("qemu has ended")
		}
		return l, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// Run runs a shell script in the guest, with `set -e`, and returns what it printed on stdout and stderr. The error
// says how it failed. After ctx has ended in the middle of a script the guest is of no more use.
func (g *Guest) Run(ctx context.Context, script string) (string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	line := base64.StdEncoding.EncodeToString([]byte("set -e\n"+script)) + "\n"
	if _, err := io.WriteString(g.in, line); err != nil {
		return "", fmt.Errorf("the guest is gone: %w", err)
	}
	var text strings.Builder
	for {
		l, err := g.line(ctx)
		if err != nil {
			return "", fmt.Errorf("the guest does not answer: %w\n%s", err, tail(g.Log(), 20))
		}
		if status, end := strings.CutPrefix(l, ". "); end {
			b, err := base64.StdEncoding.DecodeString(text.String())
			if err != nil {
				return "", fmt.Errorf("the guest answered with something that is not base64: %w", err)
			}
			if status != "0" {
				return string(b), fmt.Errorf("exit status %s in the guest: %s\n%s", status, tail(string(b), 30), tail(g.Log(), 10))
			}
			return string(b), nil
		}
		text.WriteString(l)
	}
}

// Kill ends the guest as a power cut would, and waits for qemu's end. It may be called again.
func (g *Guest) Kill() {
	g.cmd.Process.Kill()
	for range g.out { // lines must end before Wait closes the pipe
	}
	g.in.Close()
	g.cmd.Wait()
}

// Log is what the guest's kernel has said so far.
func (g *Guest) Log() string {
	b, err := os.ReadFile(g.console)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func tail(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
