package config

import (
	"maps"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"vstor/dataplane/errs"
)

// Resolve puts all sources together for a start in d: a complete, valid Config, and the values to Keep
// once the caller goes ahead. Refused if env or flags want a fixed setting other than it was.
func (d *Dir) Resolve(system, env, flags Source, m Machine) (Config, map[string][]string, error) {
	kept, err := d.Kept()
	if err != nil {
		return Config{}, nil, err
	}
	c := Default()
	c.Dir = d.Path
	for _, s := range []Source{system, kept} {
		if err := c.Apply(s); err != nil {
			return Config{}, nil, err
		}
	}
	for _, s := range []Source{env, flags} {
		if err := d.refuseChanges(&c, s); err != nil {
			return Config{}, nil, err
		}
	}
	for _, s := range []Source{env, flags} {
		if err := c.Apply(s); err != nil {
			return Config{}, nil, err
		}
	}
	if err := c.Complete(m); err != nil {
		return Config{}, nil, err
	}
	if err := c.Validate(); err != nil {
		return Config{}, nil, err
	}
	keep := map[string][]string{}
	maps.Copy(keep, kept.Values)
	maps.Copy(keep, flags.Values)
	for _, k := range Keys() {
		if _, said := flags.Values[k.Name]; k.Fixed || said && k.path && k.Get(&c) != nil {
			keep[k.Name] = k.Get(&c)
		}
	}
	return c, keep, nil
}

func (d *Dir) refuseChanges(c *Config, s Source) error {
	if d.fresh {
		return nil
	}
	diff, err := c.Differences(s)
	if err != nil || len(diff) == 0 {
		return err
	}
	return errs.New(errs.Refused, "%s was made with other settings: %s (from %s); leave that out, or use a new --dir",
		d.Path, strings.Join(diff, "; "), s.Name)
}

// ThisMachine measures what Complete needs, for a folder; for one that is yet to be made, where that will be.
func ThisMachine(dir string) (Machine, error) {
	var fs syscall.Statfs_t
	err := syscall.Statfs(dir, &fs)
	for at := dir; err == syscall.ENOENT && filepath.Dir(at) != at; {
		at = filepath.Dir(at)
		err = syscall.Statfs(at, &fs)
	}
	if err != nil {
		return Machine{}, errs.Wrap(errs.IO, err, "cannot learn how much space %s has", dir)
	}
	var si syscall.Sysinfo_t
	if err := syscall.Sysinfo(&si); err != nil {
		return Machine{}, errs.Wrap(errs.IO, err, "cannot learn how much memory this machine has")
	}
	return Machine{
		FreeSpace: int64(fs.Bavail) * fs.Bsize,
		RAM:       int64(si.Totalram) * int64(si.Unit),
		Cores:     runtime.NumCPU(),
	}, nil
}
