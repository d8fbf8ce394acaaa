//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"vstor/bench/nbdc"
)

// deployment is a `vstor up` in a folder of its own.
type deployment struct {
	t    *testing.T
	dir  string
	args []string
	env  []string // beside the environment
	cmd  *exec.Cmd
	mu   sync.Mutex
	errs bytes.Buffer
}

// number is a setting of the environment, or what it is without.
func number(env string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(env)); err == nil {
		return n
	}
	return otherwise
}

// freePort is a TCP address that nobody listens on now.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 { // not from where the kernel takes ports: it would give this one to the next who asks
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(10000)))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}

func binary(t *testing.T) string {
	t.Helper()
	b := os.Getenv("VSTOR")
	if b == "" {
		t.Fatal("VSTOR must name the vstor binary: run `make e2e`")
	}
	return b
}

func newDeployment(t *testing.T, args ...string) *deployment {
	t.Helper()
	// Sockets have short paths, and the folder must be on a file system with direct IO.
	dir, err := os.MkdirTemp("/var/tmp", "vstor-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	d := &deployment{t: t, dir: filepath.Join(dir, "d"), args: args}
	t.Cleanup(func() {
		if d.cmd != nil {
			d.kill()
		}
		if t.Failed() {
			d.mu.Lock()
			t.Logf("what vstor said last:\n%s", tail(d.errs.String(), 40))
			d.mu.Unlock()
		}
		os.RemoveAll(dir)
	})
	return d
}

func tail(s string, n int) string {
	lines := strings.Split(s, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Write takes what vstor says on stderr.
func (d *deployment) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.errs.Write(b)
}

// start starts vstor and waits until it is ready.
func (d *deployment) start() {
	d.t.Helper()
	d.cmd = exec.Command(binary(d.t), append([]string{"up", "--dir", d.dir}, d.args...)...)
	if len(d.env) > 0 {
		d.cmd.Path, d.cmd.Env = os.Args[0], append(os.Environ(), d.env...) // TestMain goes on from there
	}
	d.cmd.Stderr = d
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	ready := make(chan bool, 1)
	go func() {
		s := bufio.NewScanner(out)
		for s.Scan() {
			if strings.HasPrefix(s.Text(), "ready ") {
				ready <- true
			}
		}
		ready <- false
	}()
	select {
	case ok := <-ready:
		if !ok {
			d.cmd.Wait()
			d.t.Fatal("vstor ended before it was ready")
		}
	case <-time.After(5 * time.Minute):
		d.t.Fatal("vstor is not ready after five minutes")
	}
}

// kill ends vstor as the kernel's OOM killer would; stop as an operator would.
func (d *deployment) kill() {
	d.cmd.Process.Kill()
	d.cmd.Wait()
	d.cmd = nil
}

func (d *deployment) stop() {
	d.t.Helper()
	d.cmd.Process.Signal(syscall.SIGTERM)
	if err := d.cmd.Wait(); err != nil {
		d.t.Fatalf("vstor ended with %v", err)
	}
	d.cmd = nil
}

// vstor runs a vstor command on the deployment.
func (d *deployment) vstor(args ...string) string {
	d.t.Helper()
	out, err := exec.Command(binary(d.t), append(args, "--dir", d.dir)...).CombinedOutput()
	if err != nil {
		d.t.Fatalf("vstor %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (d *deployment) uri(name string) string {
	return "nbd+unix:///" + name + "?socket=" + d.dir + "/nbd.sock"
}

func (d *deployment) dial(name string) func() (*nbdc.Conn, error) {
	return func() (*nbdc.Conn, error) { return nbdc.Dial("unix", d.dir+"/nbd.sock", name) }
}

// client runs a program that `make test` has installed.
func client(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is not installed: run `make deps`", name)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, tail(string(out), 40))
	}
	return string(out)
}

// small is a deployment whose journal wraps in seconds.
var small = []string{"--asd-size", "512M", "--journal", "64M", "--sco-size", "4M"}

// need fails the test, loudly, where a client is not installed.
func need(t *testing.T, tools ...string) {
	t.Helper()
	for _, name := range tools {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatalf("%s is not installed: run `make deps`", name)
		}
	}
}

// socket is the path of the NBD socket.
func (d *deployment) socket() string { return filepath.Join(d.dir, "nbd.sock") }
