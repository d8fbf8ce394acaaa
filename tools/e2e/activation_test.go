//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"vstor/bench/nbdc"
)

// unit is a socket unit: listening sockets that outlive the service behind them.
type unit struct {
	t     *testing.T
	files []*os.File
	names []string
	tcp   string
}

// newUnit makes DIR/nbd.sock before the deployment's first start, a TCP port, and a socket for the API.
func newUnit(t *testing.T, d *deployment) *unit {
	t.Helper()
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	u := &unit{t: t}
	for _, l := range []struct{ name, network, addr string }{
		{"nbd", "unix", d.socket()}, {"vstor-tcp.socket", "tcp", "127.0.0.1:0"}, {"vstor-api.socket", "unix", d.dir + "-api"},
	} {
		ln, err := net.Listen(l.network, l.addr)
		if err != nil {
			t.Fatal(err)
		}
		var f *os.File
		if x, ok := ln.(*net.UnixListener); ok {
			x.SetUnlinkOnClose(false)
			f, err = x.File()
		} else {
			u.tcp = ln.Addr().String()
			f, err = ln.(*net.TCPListener).File()
		}
		if err != nil {
			t.Fatal(err)
		}
		ln.Close()
		t.Cleanup(func() { f.Close() })
		u.files, u.names = append(u.files, f), append(u.names, l.name)
	}
	return u
}

// command runs vstor as a service manager would: it becomes the process whose number LISTEN_PID gives.
func (u *unit) command(args ...string) *exec.Cmd {
	cmd := exec.Command("/bin/sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, binary(u.t)}, args...)...)
	cmd.Env = append(os.Environ(), "LISTEN_FDS="+strconv.Itoa(len(u.files)), "LISTEN_FDNAMES="+strings.Join(u.names, ":"))
	cmd.ExtraFiles = u.files
	return cmd
}

// heard waits for a message to the service manager.
func heard(t *testing.T, l *net.UnixConn, want string) {
	t.Helper()
	b := make([]byte, 1024)
	l.SetReadDeadline(time.Now().Add(3 * time.Minute))
	for {
		n, err := l.Read(b)
		if err != nil {
			t.Fatalf("waiting for %s: %v", want, err)
		}
		if strings.Contains(string(b[:n]), want) {
			return
		}
	}
}

// Sockets that somebody else opened are served, beside the deployment's own, and stay when it ends: who connects
// while it is down is served by the next start. The service manager hears when. Children inherit none of it.
func TestInheritedSockets(t *testing.T) {
	t.Parallel()
	need(t, "nbdinfo")
	d := newDeployment(t)
	u := newUnit(t, d)
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: d.dir + "-notify", Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	start := func() {
		t.Helper()
		d.cmd = u.command(append([]string{"up", "--dir", d.dir, "--processes"}, small...)...)
		d.cmd.Env = append(d.cmd.Env, "NOTIFY_SOCKET="+d.dir+"-notify")
		d.cmd.Stderr, d.cmd.Stdout = d, d
		if err := d.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		heard(t, notify, "READY=1")
	}
	start()
	d.vstor("vdisk", "create", "demo", "--size", "16M")
	for _, uri := range []string{d.uri("demo"), "nbd://" + u.tcp + "/demo"} {
		if got := strings.TrimSpace(client(t, "nbdinfo", "--size", uri)); got != "16777216" {
			t.Errorf("%s has %s bytes", uri, got)
		}
	}
	api := http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", d.dir+"-api")
	}}}
	if r, err := api.Get("http://vstor/readyz"); err != nil || r.StatusCode != 200 {
		t.Errorf("the API: %v %v", r, err)
	} else {
		r.Body.Close()
	}
	api.CloseIdleConnections()
	if s := d.vstor("status"); !strings.Contains(s, "nbd://"+u.tcp+"/") {
		t.Errorf("the status does not say where NBD is:\n%s", s)
	}
	inheritsNothing(t, d)
	d.cmd.Process.Signal(syscall.SIGTERM)
	heard(t, notify, "STOPPING=1")
	if err := d.cmd.Wait(); err != nil {
		t.Fatal(err)
	}

	early := make(chan error, 1)
	go func() { // nobody is there to answer, but somebody listens
		c, err := nbdc.Dial("tcp", u.tcp, "demo")
		if err == nil {
			err = c.Write(make([]byte, 4096), 0, 0)
			c.Close()
		}
		early <- err
	}()
	time.Sleep(100 * time.Millisecond)
	start()
	if err := <-early; err != nil {
		t.Errorf("who connected while it was down: %v", err)
	}
	d.stop()
	if st, err := os.Stat(d.socket()); err != nil || st.Mode()&os.ModeSocket == 0 {
		t.Errorf("the unit's socket is gone: %v", err)
	}
}

// inheritsNothing looks at the daemons: neither the variables nor the listening sockets may reach them.
func inheritsNothing(t *testing.T, d *deployment) {
	t.Helper()
	sockets := func(pid int) map[string]bool {
		out := map[string]bool{}
		links, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range links {
			if to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, e.Name())); strings.HasPrefix(to, "socket:") {
				out[to] = true
			}
		}
		return out
	}
	ours := sockets(d.cmd.Process.Pid)
	pids, err := filepath.Glob(filepath.Join(d.dir, "run", "asd-*.pid"))
	if err != nil || len(pids) != 6 {
		t.Fatal(pids, err)
	}
	for _, path := range pids {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil || bytes.Contains(env, []byte("LISTEN_")) || bytes.Contains(env, []byte("NOTIFY_SOCKET")) {
			t.Errorf("process %d has %q, %v", pid, env, err)
		}
		for s := range sockets(pid) {
			if ours[s] {
				t.Errorf("process %d has the parent's %s", pid, s)
			}
		}
	}
}

// What is wrong with what was passed is said, and nothing is made.
func TestBadActivation(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	for _, c := range []struct{ fds, names, says string }{
		{"many", "", `LISTEN_FDS is "many"`},
		{"1000", "", "from 0 to 64"},
		{"1", "", "descriptor 3 is "}, // closed, or already something of ours
		{"1", "a:b", "2 names"},
	} {
		cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, binary(t), "up", "--dir", d.dir)
		cmd.Env = append(os.Environ(), "LISTEN_FDS="+c.fds, "LISTEN_FDNAMES="+c.names)
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), c.says) || strings.Count(string(out), "\n") != 1 {
			t.Errorf("%+v: %v %s", c, err, out)
		}
		if _, err := os.Stat(d.dir); !os.IsNotExist(err) {
			t.Fatalf("%+v: the folder was made", c)
		}
	}
}

// bounded runs a client that starts its own vstor; it must not hang whatever becomes of that.
func bounded(t *testing.T, env []string, name string, args ...string) (string, error) {
	t.Helper()
	need(t, name)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = time.Minute // the client may be gone before its vstor has stopped and says why
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("%s %v hangs: %s", name, args, out)
	}
	return string(out), err
}

// NBD clients run vstor themselves on a vDisk of a deployment that does not run.
func TestServeOneVDisk(t *testing.T) {
	t.Parallel()
	d := newDeployment(t, small...)
	vstor, env := binary(t), []string{"VSTOR_DIR=" + d.dir}
	d.start()
	d.vstor("vdisk", "create", "demo", "--size", "32M")
	d.vstor("vdisk", "create", "other", "--size", "16M")
	pid := strconv.Itoa(d.cmd.Process.Pid)
	out, err := bounded(t, env, "nbdinfo", "[", vstor, "serve", "demo", "]")
	if err == nil || !strings.Contains(out, "process "+pid) || !strings.Contains(out, d.uri("demo")) {
		t.Errorf("while it runs: %v\n%s", err, out)
	}
	d.stop()
	for _, c := range []struct{ args, want string }{
		{"[ VSTOR serve demo ]", `export="demo"`},
		{"--size [ VSTOR serve demo ]", "33554432\n"},
		{"--map [ VSTOR serve demo ]", "hole,zero"},
		{"--list [ VSTOR serve demo ]", `export="demo"`},
		{"--size -- [ VSTOR serve other --dir DIR ]", "16777216\n"},
	} {
		args := strings.Fields(strings.NewReplacer("VSTOR", vstor, "DIR", d.dir).Replace(c.args))
		out, err := bounded(t, env, "nbdinfo", args...)
		if err != nil || !strings.Contains(out, c.want) || strings.Contains(out, `export="other"`) {
			t.Errorf("nbdinfo %s: %v\n%s", c.args, err, out)
		}
	}
	if out, err := bounded(t, env, "nbdinfo", "[", vstor, "serve", "nope", "]"); err == nil ||
		!strings.Contains(out, "there is no vDisk named nope in "+d.dir) {
		t.Errorf("a vDisk that is not there: %v %s", err, out)
	}
	image := filepath.Join(t.TempDir(), "image")
	b := bytes.Repeat([]byte("what one client wrote, the next one reads\n"), 32<<20/42)
	if err := os.WriteFile(image, append(b, make([]byte, 32<<20-len(b))...), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{image, "[", vstor, "serve", "demo", "]"},
		{"[", vstor, "serve", "demo", "]", image + "2"}} {
		if out, err := bounded(t, env, "nbdcopy", args...); err != nil || out != "" {
			t.Fatalf("nbdcopy %v: %v %s", args, err, out)
		}
	}
	client(t, "cmp", image, image+"2")
	if left, _ := filepath.Glob(filepath.Join(d.dir, "*.sock")); len(left) > 0 {
		t.Errorf("sockets are left: %v", left)
	}
}

// Without a socket of somebody else, it has the deployment's.
func TestServeByHand(t *testing.T) {
	t.Parallel()
	d := newDeployment(t, small...)
	d.start()
	d.vstor("vdisk", "create", "demo", "--size", "16M")
	d.vstor("vdisk", "create", "other", "--size", "16M")
	d.stop()
	d.cmd = exec.Command(binary(t), "serve", "demo", "--dir", d.dir)
	d.cmd.Stderr, d.cmd.Stdout = d, d
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(d.socket()); err == nil || time.Now().After(end) {
			break
		}
	}
	for _, name := range []string{"", "demo"} {
		client(t, "nbdinfo", d.uri(name))
	}
	if c, err := d.dial("other")(); err == nil {
		c.Close()
		t.Error("another vDisk is served too")
	}
	if code, _, stderr := d.try("serve", "other"); code != 1 || !strings.Contains(stderr, "is run by process") {
		t.Errorf("a second one: %d %s", code, stderr)
	}
	d.stop()
}

// A temporary vDisk needs nothing and leaves nothing, however its client or itself ends.
func TestServeTemporary(t *testing.T) {
	t.Parallel()
	need(t, "nbdcopy")
	dir, err := os.MkdirTemp("/var/tmp", "vstor-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	vstor, env := binary(t), []string{"TMPDIR=" + dir, "VSTOR_DIR="}
	empty := func(when string) {
		t.Helper()
		for end := time.Now().Add(3 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
			if list, err := os.ReadDir(dir); err == nil && len(list) == 0 {
				return
			} else if time.Now().After(end) {
				t.Fatalf("%s: %v is left, %v", when, list, err)
			}
		}
	}
	for _, args := range []string{"[ VSTOR serve temporary:1G ]", "-- [ VSTOR serve --temporary 1G ]",
		"-- [ VSTOR serve --temporary 1G temporary ]"} {
		out, err := bounded(t, env, "nbdinfo", strings.Fields(strings.ReplaceAll(args, "VSTOR", vstor))...)
		if err != nil || !strings.Contains(out, "export-size: 1073741824") {
			t.Errorf("nbdinfo %s: %v\n%s", args, err, out)
		}
		empty(args)
	}
	if out, err := bounded(t, env, "nbdinfo", "[", vstor, "serve", "temporary:0", "]"); err == nil ||
		!strings.Contains(out, "at least 4k") {
		t.Errorf("nothing: %v %s", err, out)
	}
	// The client is killed: it can end its server no more.
	cmd := exec.Command("nbdcopy", "[", vstor, "serve", "temporary:1G", "]", "-")
	cmd.Env = append(os.Environ(), env...)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := pipe.Read(make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	empty("the client was killed")
	// It is told to end itself, at once and later.
	for _, after := range []time.Duration{0, 20 * time.Millisecond, 100 * time.Millisecond, time.Second} {
		cmd := exec.Command(vstor, "serve", "--temporary", "64M")
		cmd.Env = append(os.Environ(), env...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(after)
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait() // it may not yet have been able to catch the signal
		empty(fmt.Sprintf("SIGTERM after %v", after))
	}
}
