package supervise

import (
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// TestMain is also the child: it runs until its lifeline or a signal ends it.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == "child":
		<-Lifeline()
		os.Exit(0)
	case len(os.Args) > 1 && os.Args[1] == "parent": // starts a child, says so and hangs
		if _, err := Start(options(os.Args[2])); err != nil {
			os.Exit(3)
		}
		os.Stdout.WriteString("up\n")
		select {}
	}
	os.Exit(m.Run())
}

func options(dir string) Options {
	return Options{Name: "child", Path: os.Args[0], Args: []string{"child", dir}, PIDFile: filepath.Join(dir, "pid"),
		Restart: true, Output: io.Discard, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for begin := time.Now(); time.Since(begin) < 30*time.Second; time.Sleep(5 * time.Millisecond) {
		if f() {
			return
		}
	}
	t.Fatalf("%s: not within 30 s", what)
}

func TestRestartAndStop(t *testing.T) {
	c, err := Start(options(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		pid := c.PID()
		if pid == 0 {
			t.Fatal("no pid")
		}
		syscall.Kill(pid, syscall.SIGKILL)
		eventually(t, "restart", func() bool { return c.Restarts() == i+1 && c.PID() != 0 && c.PID() != pid })
	}
	syscall.Kill(c.PID(), syscall.SIGSTOP)
	c.Stop(10 * time.Second)
	if c.PID() != 0 {
		t.Error("it still runs")
	}
	if _, err := os.Stat(c.opts.PIDFile); err == nil {
		t.Error("the pid file is still there")
	}
}

func TestNoRestart(t *testing.T) {
	o := options(t.TempDir())
	o.Restart = false
	c, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	syscall.Kill(c.PID(), syscall.SIGKILL)
	eventually(t, "end", func() bool { return c.PID() == 0 && c.Err() != nil })
	c.Stop(time.Second)
	if c.Restarts() != 0 {
		t.Error("it was started again")
	}
}

// A child ends when its parent is killed; one that was stopped meanwhile is ended by the next parent.
func TestParentKilled(t *testing.T) {
	for _, stopped := range []bool{false, true} {
		dir := t.TempDir()
		parent := exec.Command(os.Args[0], "parent", dir)
		out, _ := parent.StdoutPipe()
		if err := parent.Start(); err != nil {
			t.Fatal(err)
		}
		io.ReadFull(out, make([]byte, 3))
		b, err := os.ReadFile(filepath.Join(dir, "pid"))
		if err != nil {
			t.Fatal(err)
		}
		pid, _ := strconv.Atoi(string(b[:len(b)-1]))
		args := []string{"child", dir}
		eventually(t, "the child's start", func() bool { return sameArgs(pid, args) })
		if stopped {
			syscall.Kill(pid, syscall.SIGSTOP)
		}
		parent.Process.Kill()
		parent.Wait()
		if !stopped {
			eventually(t, "the child's end", func() bool { return !sameArgs(pid, args) })
			continue
		}
		c, err := Start(options(dir))
		if err != nil {
			t.Fatal(err)
		}
		if sameArgs(pid, args) {
			t.Error("the stopped child was left alone")
		}
		c.Stop(10 * time.Second)
	}
}

func TestStartFails(t *testing.T) {
	o := options(t.TempDir())
	o.Path = "/nowhere/to/be/found"
	if _, err := Start(o); err == nil {
		t.Error("no error")
	}
	os.WriteFile(o.PIDFile, []byte(strconv.Itoa(os.Getpid())), 0o600) // somebody else's number
	o.Path = os.Args[0]
	c, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	c.Stop(10 * time.Second)
}
