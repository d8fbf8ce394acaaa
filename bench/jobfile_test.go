package bench

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"vstor/dataplane/units"
)

// Each job is what its file says, and each file belongs to a job, tells how to run it and names itself.
func TestJobFiles(t *testing.T) {
	used := map[string]bool{fillJob.File: true}
	for _, j := range Jobs() {
		if j.File == "" {
			if j.RW != put && j.Share == 0 {
				t.Errorf("%s: neither fio nor we know how", j.Name)
			}
			continue
		}
		used[j.File] = true
		if size, err := units.ParseSize(j.Block); err != nil || size < 4096 || j.RW == "" || j.Depth < 1 || j.Conns < 1 {
			t.Errorf("%s: %+v %v", j.Name, j, err)
		}
	}
	files, err := jobFiles.ReadDir("jobs")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		name := strings.TrimSuffix(f.Name(), ".fio")
		text, err := jobText(name)
		if err != nil || !used[name] {
			t.Errorf("%s is no job's (%v)", f.Name(), err)
		}
		for _, want := range []string{"[" + name + "]\n", "--runtime=30 " + f.Name() + "\n", "--ioengine=nbd"} {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s lacks %q", f.Name(), want)
			}
		}
		for line := range strings.Lines(string(text)) {
			if len(line) > 121 {
				t.Errorf("%s: a line has %d characters", f.Name(), len(line)-1)
			}
		}
	}
	if _, err := (Job{File: "no-such"}).place(t.TempDir()); err == nil {
		t.Error("a file that is not there is placed")
	}
}

// fio itself reads each file as it stands.
func TestFioReadsJobFiles(t *testing.T) {
	if _, err := exec.LookPath("fio"); err != nil {
		t.Skip("SKIPPED: fio is not installed")
	}
	dir := t.TempDir()
	for _, j := range Jobs() {
		if j.File == "" {
			continue
		}
		path, err := j.place(dir)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("fio", "--ioengine=null", "--size=1M", "--parse-only", path)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", j.File, err, out)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) == 0 || filepath.Ext(left[0].Name()) != ".fio" {
		t.Error(left)
	}
}
