package config

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"vstor/dataplane/errs"
)

func mustOpen(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func names(t *testing.T, path string) string {
	t.Helper()
	entries, err := os.ReadDir(path)
	if err != nil {
		return err.Error()
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}

func flags(kv ...string) Source {
	s := Source{Name: "the command line", Values: map[string][]string{}}
	for i := 0; i < len(kv); i += 2 {
		s.Values[kv[i]] = append(s.Values[kv[i]], kv[i+1])
	}
	return s
}

func TestFirstStartThenSecond(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	d := mustOpen(t, path)
	c, keep, err := d.Resolve(Source{}, Source{}, flags("asds", "4", "asd-size", "300000001", "memory", "80M"), machine)
	if err != nil || c.Dir != path {
		t.Fatal(c.Dir, err)
	}
	for _, err := range []error{d.Keep(keep), d.FinishCreate(), d.FinishCreate()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	d.Close()
	if got := names(t, path); got != "format lock vstor.toml" {
		t.Errorf("the folder holds %s", got)
	}

	d = mustOpen(t, path)
	if d.Fresh() {
		t.Error("the second start takes the folder for a new one")
	}
	// Nothing said: as before, though the machine has changed. What the machine's file says of fixed settings
	// is for new folders.
	system := flags("asds", "9", "loops", "7")
	c2, _, err := d.Resolve(system, Source{}, Source{}, Machine{FreeSpace: 1, RAM: 1 << 40, Cores: 1})
	if err != nil || c2.ASDs != 4 || c2.ASDSize != c.ASDSize || c2.Memory != 80<<20 || c2.Loops != 7 {
		t.Errorf("%+v %v", c2, err)
	}
	// The same said again, even unrounded, is no difference.
	if _, _, err := d.Resolve(Source{}, Source{}, flags("asds", "4", "asd-size", "300000001"), machine); err != nil {
		t.Error(err)
	}
	// What may change changes and is kept.
	c3, keep, err := d.Resolve(Source{}, flags("memory", "90M"), flags("policy", "2,2,3,1", "max-connections",
		"5"), machine)
	if err != nil || c3.Memory != 90<<20 || len(c3.Policies) != 1 || keep["max-connections"][0] != "5" {
		t.Errorf("%+v %v %v", c3, keep, err)
	}
	if keep["memory"][0] != "80M" {
		t.Errorf("a value of the environment was kept: %v", keep["memory"])
	}
	// What cannot change is refused by name, from wherever it comes, and the folder stays as it was.
	before := names(t, path)
	for _, s := range []Source{flags("asds", "6"), flags("asd-size", "1G"), flags("nodes", "2"), flags("journal", "64M")} {
		for i, args := range [][2]Source{{s, {}}, {{}, s}} {
			_, _, err := d.Resolve(Source{}, args[0], args[1], machine)
			for name, v := range s.Values {
				if errs.Of(err) != errs.Refused || !strings.Contains(err.Error(), name+" is ") ||
					!strings.Contains(err.Error(), "cannot become "+v[0]) {
					t.Errorf("%v (%d): %v", s.Values, i, err)
				}
			}
		}
	}
	if names(t, path) != before {
		t.Error("a refused start changed the folder")
	}
}

func TestFirstStartThatFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d")
	d := mustOpen(t, path)
	os.MkdirAll(filepath.Join(path, "asd-0", "index"), 0o700)
	d.Abandon()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("left behind: %s", names(t, path))
	}
	// In a folder that was there before, the folder stays.
	os.Mkdir(path, 0o700)
	d = mustOpen(t, path)
	os.WriteFile(filepath.Join(path, "junk"), nil, 0o600)
	d.Abandon()
	if got := names(t, path); got != "" {
		t.Errorf("left behind: %s", got)
	}
	// A first start that was killed: the next one begins anew, with other settings if it likes.
	d = mustOpen(t, path)
	if err := d.Keep(map[string][]string{"asds": {"4"}}); err != nil {
		t.Fatal(err)
	}
	os.MkdirAll(filepath.Join(path, "asd-0"), 0o700)
	d.Close()
	d = mustOpen(t, path)
	if got := names(t, path); got != "creating lock" || !d.Fresh() {
		t.Errorf("the next start finds %s", got)
	}
	c, _, err := d.Resolve(Source{}, Source{}, flags("asds", "8"), machine)
	if err != nil || c.ASDs != 8 {
		t.Error(c.ASDs, err)
	}
	// Killed between writing format and removing creating: it is a deployment.
	os.WriteFile(filepath.Join(path, formatFile), []byte("vstor 1\n"), 0o600)
	os.MkdirAll(filepath.Join(path, "asd-0"), 0o700)
	d.Close()
	d = mustOpen(t, path)
	if got := names(t, path); got != "asd-0 format lock" || d.Fresh() {
		t.Errorf("after a crash at the last step: %s", got)
	}
	d.Abandon()
	if got := names(t, path); got != "asd-0 format lock" {
		t.Errorf("Abandon touched a finished deployment: %s", got)
	}
}

func TestRefusedFolders(t *testing.T) {
	check := func(path string, kind errs.Kind, says string) {
		t.Helper()
		before := names(t, path)
		d, err := OpenDir(path)
		if err == nil {
			d.Close()
		}
		if errs.Of(err) != kind || !strings.Contains(err.Error(), says) {
			t.Errorf("%v (%v); want %v: %q", err, errs.Of(err), kind, says)
		}
		if names(t, path) != before {
			t.Errorf("a refused folder was changed to %s", names(t, path))
		}
	}
	foreign := t.TempDir()
	os.WriteFile(filepath.Join(foreign, "thesis.txt"), nil, 0o600)
	check(foreign, errs.Refused, "holds thesis.txt")
	check(filepath.Join(foreign, "thesis.txt"), errs.Invalid, "not a folder")

	newer := t.TempDir()
	os.WriteFile(filepath.Join(newer, formatFile), []byte("vstor 2\n"), 0o600)
	check(newer, errs.Version, "newer vstor (format 2; this one knows up to 1)")

	broken := t.TempDir()
	os.WriteFile(filepath.Join(broken, formatFile), []byte("\x00\x00"), 0o600)
	check(broken, errs.Corrupt, "damaged")

	check(filepath.Join(t.TempDir(), strings.Repeat("x", 100)), errs.Invalid, "shorter path")
}

func TestLockNamesThePID(t *testing.T) {
	path := t.TempDir()
	d := mustOpen(t, path)
	_, err := OpenDir(path)
	if errs.Of(err) != errs.Busy || !strings.Contains(err.Error(), "process "+strconv.Itoa(os.Getpid())) {
		t.Errorf("a second start: %v", err)
	}
	d.Close()
	mustOpen(t, path)
}

// The lock ends with its process, even one that was killed.
func TestLockEndsWithTheProcess(t *testing.T) {
	if path := os.Getenv("CONFIG_TEST_HOLD"); path != "" {
		mustOpen(t, path)
		os.Stdout.WriteString("held\n")
		select {}
	}
	path := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestLockEndsWithTheProcess$")
	cmd.Env = append(os.Environ(), "CONFIG_TEST_HOLD="+path)
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out.Read(make([]byte, 5))
	if _, err := OpenDir(path); errs.Of(err) != errs.Busy || !strings.Contains(err.Error(),
		strconv.Itoa(cmd.Process.Pid)) {
		t.Errorf("while it lives: %v", err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	mustOpen(t, path)
}

func TestListenUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	for range 2 { // the second finds the file that the first left
		l, err := ListenUnix(path)
		if err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(path)
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("mode %v %v", st.Mode(), err)
		}
		go func() {
			c, err := net.Dial("unix", path)
			if err == nil {
				c.Close()
			}
		}()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		l.Close()
	}
	RemoveSocket(path)
	if got := names(t, filepath.Dir(path)); got != "" {
		t.Errorf("left behind: %s", got)
	}
}
