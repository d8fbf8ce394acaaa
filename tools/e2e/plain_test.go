//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"vstor/bench/stamp"
	"vstor/dataplane/ring/ringtest"
)

// TestMain is also what starts vstor where io_uring is forbidden: filters outlive exec.
func TestMain(m *testing.M) {
	if ringtest.ForbidIfAsked() {
		fmt.Fprintln(os.Stderr, syscall.Exec(os.Getenv("VSTOR"), os.Args, os.Environ()))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// What TestFioVerify and TestKilledUnderLoad show holds without io_uring too.
func TestPlainFioVerify(t *testing.T) { t.Parallel(); fioVerify(t, "--plain-io") }

func TestPlainKilledUnderLoad(t *testing.T) { t.Parallel(); killedUnderLoad(t, 6, "--plain-io") }

// rings is how many io_urings the deployment's processes have.
func (d *deployment) rings() (n int) {
	pids := []int{d.cmd.Process.Pid}
	for i := range 6 {
		if pid := d.pid(i); pid > 1 {
			pids = append(pids, pid)
		}
	}
	for _, pid := range pids {
		fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil || len(fds) == 0 {
			d.t.Fatalf("process %d has no descriptors: %v", pid, err)
		}
		for _, fd := range fds {
			if to, err := os.Readlink(fd); err == nil && strings.Contains(to, "io_uring") {
				n++
			}
		}
	}
	return n
}

// stamps writes stamped blocks for a while, and until one is acknowledged: on a busy machine a second may bring none.
func stamps(c *stamp.Checker, span time.Duration) (st stamp.Stats, err error) {
	for range 100 {
		ctx, cancel := context.WithTimeout(context.Background(), span)
		st, err = c.Run(ctx)
		cancel()
		if err != nil || st.Acked+st.Refused+st.Lost > 0 {
			break
		}
	}
	return st, err
}

// loadAndVerify writes stamped blocks for a while and reads them all back.
func (d *deployment) loadAndVerify(c *stamp.Checker, span time.Duration) {
	d.t.Helper()
	st, err := stamps(c, span)
	if err == nil {
		err = c.Verify()
	}
	if err != nil || st.Refused+st.Lost > 0 || st.Acked == 0 {
		d.t.Fatalf("%+v: %v", st, err)
	}
	d.t.Logf("%d requests acknowledged, %d MiB", st.Acked, st.Written>>20)
}

func (d *deployment) stamped(name string, volume uint64) *stamp.Checker {
	d.t.Helper()
	const size = 64 << 20
	d.vstor("vdisk", "create", name, "--size", strconv.Itoa(size))
	c, err := stamp.New(stamp.Options{Dial: d.dial(name), Blocks: size / stamp.BlockSize, MaxRun: 64, Volume: volume,
		Seed: uint64(time.Now().UnixNano())})
	if err != nil {
		d.t.Fatal(err)
	}
	return c
}

// --plain-io holds for the daemons too, and can be taken back; vstor says which it is.
func TestPlainProcesses(t *testing.T) {
	t.Parallel()
	d := newDeployment(t, append(small, "--processes", "--plain-io")...)
	d.start()
	c := d.stamped("demo", 7)
	for i, on := range []bool{true, false, true} {
		if i > 0 {
			d.stop()
			d.args = append(d.args, "--plain-io="+strconv.FormatBool(on))
			d.start()
			d.untilUp(6)
		}
		if n := d.rings(); on != (n == 0) {
			t.Errorf("with --plain-io=%v there are %d rings", on, n)
		}
		s := d.status()
		if says := strings.Contains(strings.Join(s.Warnings, "\n"), "--plain-io"); says != on || s.State != "up" {
			t.Errorf("with --plain-io=%v the status is %s, with the warnings %q", on, s.State, s.Warnings)
		}
		d.loadAndVerify(c, 2*time.Second)
	}
	d.kill()
	d.start()
	d.untilUp(6)
	if err := c.Verify(); err != nil {
		t.Fatal(err)
	}
	d.stop()
}

// Where io_uring is forbidden, as in most containers, vstor says so and goes on without: nobody has to tell it.
func TestForbiddenURing(t *testing.T) {
	t.Parallel()
	d := newDeployment(t, append(small, "--processes")...)
	d.start()
	if d.rings() == 0 {
		t.Skip("SKIPPED: there is no io_uring here that could be forbidden; all other tests have run without")
	}
	c := d.stamped("demo", 8)
	d.loadAndVerify(c, time.Second)
	d.stop()
	d.env = []string{ringtest.Env()}
	d.start()
	d.untilUp(6)
	if n := d.rings(); n != 0 {
		t.Errorf("%d rings exist where none may", n)
	}
	if err := c.Verify(); err != nil {
		t.Fatal(err)
	}
	d.loadAndVerify(c, 2*time.Second)
	out := d.vstor("status")
	if !strings.Contains(out, "warning") || !strings.Contains(out, "no io_uring") || !strings.Contains(out, "seccomp") {
		t.Errorf("status:\n%s", out)
	}
	d.mu.Lock()
	log := d.errs.String()
	d.mu.Unlock()
	// A word of the parent's loops, and one of each of six daemons.
	if n := strings.Count(log, "no io_uring"); n < 7 || !strings.Contains(log, "level=WARN") {
		t.Errorf("it is said %d times in the log:\n%s", n, tail(log, 20))
	}
	d.stop()
	d.env = nil
	d.start()
	if err := c.Verify(); err != nil {
		t.Fatal(err)
	}
	d.stop()
}
