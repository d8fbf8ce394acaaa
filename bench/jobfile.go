package bench

import (
	"embed"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"vstor/dataplane/errs"
)

// jobFiles are what fio is given: patterns only. Where to work, and for how long, it is told on the command line, so
// that one file serves every target, and anybody who has fio.
//
//go:embed jobs/*.fio
var jobFiles embed.FS

func jobText(name string) ([]byte, error) {
	b, err := jobFiles.ReadFile("jobs/" + name + ".fio")
	if err != nil {
		return nil, errs.Wrap(errs.Absent, err, "there is no job file %s", name)
	}
	return b, nil
}

// jobOptions are a job file's options by name; one without a value has an empty one.
func jobOptions(text []byte) map[string]string {
	options := map[string]string{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.ContainsRune(";#[", rune(line[0])) {
			continue
		}
		name, value, _ := strings.Cut(line, "=")
		options[name] = value
	}
	return options
}

// loaded is the job with what its file says, so that it stands in one place. A file that cannot be read shows when the
// job is run, and in a test.
func (j Job) loaded() Job {
	if j.File == "" {
		return j
	}
	text, err := jobText(j.File)
	if err != nil {
		return j
	}
	o := jobOptions(text)
	j.RW, j.Block, j.Conns = o["rw"], o["bs"], 1
	j.Depth, _ = strconv.Atoi(o["iodepth"])
	j.Mix, _ = strconv.Atoi(o["rwmixread"])
	if n, err := strconv.Atoi(o["numjobs"]); err == nil {
		j.Conns = n
	}
	return j
}

// place writes the job's file into a folder, for fio to read.
func (j Job) place(dir string) (path string, err error) {
	text, err := jobText(j.File)
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, j.File+".fio")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return "", errs.Wrap(errs.IO, err, "cannot place a job file")
	}
	return path, nil
}
