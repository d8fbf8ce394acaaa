package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"vstor/dataplane/config"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/units"
)

// A temporary deployment is one drive without parity, a journal as small as may be and little memory: it is
// made in a moment, and takes little more space than what is written.
const (
	temporaryPrefix  = "vstor-temporary-"
	temporaryJournal = 64 << 20
	temporaryRest    = 512 << 20 // what databases and logs may take, and the journal
	temporarySlack   = 512 << 20 // what cleaning needs to go on, beside an eighth of the size
	temporaryASDMin  = 256 << 20
)

// serveTemporary makes a deployment, serves its vDisk until ctx ends, and removes it.
func (a *app) serveTemporary(ctx context.Context, name, word string, in config.Inherited, beside bool) error {
	size, err := units.ParseVDiskSize(word)
	if err != nil {
		return err
	}
	parents := []string{filepath.Dir(filepath.Clean(a.dir))}
	if !beside {
		parents = []string{a.env("TMPDIR"), "/var/tmp", "/tmp"}
	}
	dir, err := temporaryDir(parents)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	d, err := config.OpenDir(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	cfg, err := temporaryConfig(d, size)
	if err != nil {
		return err
	}
	return a.serveOne(ctx, d, startup{cfg: cfg, only: name, create: size}, in)
}

// temporaryConfig: a vDisk larger than what is free is made all the same, and its writes fail once that is full.
func temporaryConfig(d *config.Dir, size int64) (config.Config, error) {
	m, err := config.ThisMachine(d.Path)
	if err != nil {
		return config.Config{}, err
	}
	room := min(size+size/8+temporarySlack, m.FreeSpace-temporaryRest)
	if room < temporaryASDMin {
		return config.Config{}, errs.New(errs.Full, "%s has %s free; a temporary vDisk needs at least %s there: name "+
			"another place with --dir or TMPDIR", filepath.Dir(d.Path), units.HumanSize(m.FreeSpace),
			units.HumanSize(temporaryASDMin+temporaryRest))
	}
	said := config.Source{Name: "a temporary deployment", Values: map[string][]string{
		"asds": {"1"}, "asd-size": {units.FormatSize(room >> 20 << 20)}, "policy": {"1,0,1,1"}, "loops": {"1"},
		"journal": {units.FormatSize(temporaryJournal)}, "sco-size": {"8M"}, "memory": {"256M"},
	}}
	cfg, _, err := d.Resolve(config.Source{}, config.Source{}, said, m)
	return cfg, err
}

// temporaryDir makes a folder below the first parent that has direct IO.
func temporaryDir(parents []string) (string, error) {
	var why error
	for _, parent := range parents {
		if parent == "" {
			continue
		}
		parent, err := filepath.Abs(parent)
		if err == nil {
			removeStale(parent)
			var dir string
			if dir, err = os.MkdirTemp(parent, temporaryPrefix); err == nil {
				if err = directIO(dir); err == nil {
					return dir, nil
				}
				os.RemoveAll(dir)
			}
		}
		if why == nil {
			why = err
		}
	}
	return "", errs.Wrap(errs.Unsupported, why, "a temporary vDisk needs a folder with direct IO; --dir or TMPDIR names "+
		"one")
}

// directIO finds out by doing.
func directIO(dir string) error {
	path := filepath.Join(dir, "try")
	f, err := dio.Create(path, 4096, dio.Options{})
	if err != nil {
		return err
	}
	f.Close()
	return os.Remove(path)
}

// staleAge keeps removeStale from a folder that is just being made.
const staleAge = time.Minute

// removeStale removes what temporary deployments left that were killed: folders of this user whose lock nobody
// holds.
func removeStale(parent string) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		st, err := e.Info()
		if err != nil || !strings.HasPrefix(e.Name(), temporaryPrefix) || !st.IsDir() || time.Since(st.ModTime()) < staleAge {
			continue
		}
		if own, ok := st.Sys().(*syscall.Stat_t); !ok || int(own.Uid) != os.Geteuid() {
			continue
		}
		dir := filepath.Join(parent, e.Name())
		lock, err := os.Open(filepath.Join(dir, "lock"))
		if err != nil {
			continue
		}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			os.RemoveAll(dir)
		}
		lock.Close()
	}
}
