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
		c := Start(options(os.Args[2]))
		for c.PID() == 0 {
			time.Sleep(time.Millisecond)
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
	c := Start(options(t.TempDir()))
	eventually(t, "start", func() bool { return c.PID() != 0 })
	for i := range 2 {
		pid := c.PID()
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
	c := Start(o)
	eventually(t, "start", func() bool { return c.PID() != 0 })
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
		file := filepath.Join(dir, "pid")
		eventually(t, "the child's start", func() bool { return isChild(pid, file) })
		if stopped {
			syscall.Kill(pid, syscall.SIGSTOP)
		}
		parent.Process.Kill()
		parent.Wait()
		if !stopped {
			eventually(t, "the child's end", func() bool { return !isChild(pid, file) })
			continue
		}
		o := options(dir)
		o.Args = append(o.Args, "another setting")
		c := Start(o)
		eventually(t, "the next start", func() bool { return c.PID() != 0 })
		if isChild(pid, file) {
			t.Error("the stopped child was left alone")
		}
		c.Stop(10 * time.Second)
	}
}

// Whoever has no children of its own can end what was left, and leaves alone what it is not.
func TestEndLeftovers(t *testing.T) {
	dir := t.TempDir()
	o := options(dir)
	o.PIDFile, o.Restart = filepath.Join(dir, "a.pid"), false
	c := Start(o)
	eventually(t, "the child's start", func() bool { return c.PID() != 0 })
	pid := c.PID()
	syscall.Kill(pid, syscall.SIGSTOP)
	other := filepath.Join(dir, "b.pid") // whose number is the child's, which is not its own
	if err := os.WriteFile(other, []byte(strconv.Itoa(pid)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := endLeftover(other); err != nil || !isChild(pid, o.PIDFile) {
		t.Fatalf("somebody else's child was ended: %v", err)
	}
	if err := EndLeftovers(dir); err != nil || isChild(pid, o.PIDFile) {
		t.Errorf("%v, and it runs: %v", err, isChild(pid, o.PIDFile))
	}
	c.Stop(10 * time.Second)
}

// noRoom takes nothing, as the file of a log on a full file system.
type noRoom struct{}

func (noRoom) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// A child whose words nobody can keep goes on, and its last words are the reason only where it ended by itself.
func TestWordsAreLost(t *testing.T) {
	file := filepath.Join(t.TempDir(), "went-on")
	o := options(t.TempDir())
	o.Path, o.Restart, o.Output = "/bin/sh", false, noRoom{}
	o.Args = []string{"-c", "for i in 1 2 3 4 5; do echo $i; sleep 0.1; done; touch " + file + "; echo last words; exit 3"}
	c := Start(o)
	<-c.done
	if _, err := os.Stat(file); err != nil || c.Err() == nil || c.Err().Error() != "exit status 3: last words" {
		t.Errorf("%v; it ended: %v", err, c.Err())
	}
	o.Args = []string{"-c", "echo all is well; kill -9 $$"}
	c = Start(o)
	<-c.done
	if c.Err() == nil || c.Err().Error() != "signal: killed" {
		t.Errorf("killed: %v", c.Err())
	}
}

// What cannot be started says why and is tried again.
func TestStartFails(t *testing.T) {
	o := options(t.TempDir())
	o.Path = filepath.Join(t.TempDir(), "child")
	os.WriteFile(o.PIDFile, []byte(strconv.Itoa(os.Getpid())), 0o600) // somebody else's number
	c := Start(o)
	eventually(t, "a reason", func() bool { return c.Err() != nil })
	if err := os.Symlink(os.Args[0], o.Path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "start", func() bool { return c.PID() != 0 })
	c.Stop(10 * time.Second)
}
