package node

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"

	"vstor/asd/store"
	"vstor/dataplane/config"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/meta"
	"vstor/dataplane/proxy"
	"vstor/dataplane/volume/pagemap"
)

// FsckOptions say what to check, in a deployment that does not run and whose folder the caller holds.
type FsckOptions struct {
	Config    config.Config // complete and valid
	Host      Host          // nil: the machine itself
	Data      bool          // read and verify every fragment
	Manifests bool          // compare manifests with what the ASDs have
	Repair    bool          // set right what can be; without it nothing is changed
	Progress  func(string)  // may be nil
}

// FsckReport is what was found, and what was done about it.
type FsckReport struct {
	Dir      string      `json:"dir"`
	Metadata string      `json:"metadata"` // what is wrong with the metadata store as a whole; empty: nothing
	ASDs     []FsckASD   `json:"asds"`
	VDisks   []FsckVDisk `json:"vdisks"`
	Findings []string    `json:"findings"` // sentences; the first findingsMax
	Found    int         `json:"found"`    // findings in all
	Repaired int         `json:"repaired"` // of those
}

// FsckASD is an ASD as fsck found it.
type FsckASD struct {
	ID        ids.ASDID `json:"id"`
	Problem   string    `json:"problem,omitempty"` // why it does not open
	Fragments int       `json:"fragments"`
	Bytes     int64     `json:"bytes"`
	Corrupt   int       `json:"corrupt"` // fragments, whether anything counts on them or not; only with Data
	Lacking   int       `json:"lacking"` // fragments that manifests say it has; only with Manifests
}

// FsckVDisk is a vDisk as fsck found it.
type FsckVDisk struct {
	Name     string       `json:"name"`
	ID       ids.VolumeID `json:"id"`
	Objects  int          `json:"objects"`  // with a whole manifest
	Rebuilt  int          `json:"rebuilt"`  // manifests made again, or that can be
	Lost     int          `json:"lost"`     // objects that were committed and cannot be made again
	Missing  int          `json:"missing"`  // fragments that manifests know to be missing: a start writes them again
	Leftover int          `json:"leftover"` // fragments that garbage collection takes: no fault
}

// findingsMax bounds the sentences of a report.
const findingsMax = 1000

// checker is one run of fsck.
type checker struct {
	o    FsckOptions
	n    *Node // for paths and options; it does not run
	rep  *FsckReport
	asds []*checkedASD
	bad  map[objectKey][]located // fragments found damaged

	store    meta.Store // nil until opened
	metaGone error      // why the metadata store is to be made anew
	px       *proxy.Proxy
	maps     *pagemap.DB
	mapsErr  error // why maps is nil
	logs     map[ids.VolumeID]*fsckLog
	copy     registryCopy
	copyErr  error
	damage   error // the metadata store opened, and then could not be read
	closeErr error
	close    []func()
}

type objectKey struct {
	ns  ids.NamespaceID
	sco ids.SCONum
}

// checkedASD is an ASD that is open for reading, or why not.
type checkedASD struct {
	id    ids.ASDID
	file  dio.File
	store *store.Store
	err   error
}

// Fsck checks a deployment that does not run. First it finds out all that is to be done, and changes
// nothing; with Repair it then does it, and may be run again if it was cut off. The report is there with an
// error, too, as far as it got. Errors: that the check could not be made, not what it found.
func Fsck(ctx context.Context, o FsckOptions) (*FsckReport, error) {
	if o.Host == nil {
		o.Host = RealHost{}
	}
	rep := &FsckReport{Dir: o.Config.Dir, Findings: []string{}, ASDs: []FsckASD{}, VDisks: []FsckVDisk{}}
	c := &checker{o: o, rep: rep, bad: map[objectKey][]located{}}
	c.n = &Node{cfg: o.Config, host: o.Host, log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	if err := c.n.endLeftovers(); err != nil {
		return rep, err
	}
	var damage, err error
	if c.n.ident, damage, err = c.n.findIdent(); err != nil {
		return c.rep, err
	}
	if damage != nil {
		c.find("%v; the next start makes it again from the drives", damage)
	}
	defer func() {
		for i := len(c.close) - 1; i >= 0; i-- {
			c.close[i]()
		}
	}()
	err = c.checkASDs(ctx)
	if err != nil || !o.Manifests && (!o.Repair || len(c.bad) == 0) {
		c.findDamaged(c.bad)
		return c.rep, err
	}
	return c.rep, c.checkManifests(ctx)
}

func (c *checker) progress(format string, args ...any) {
	if c.o.Progress != nil {
		c.o.Progress(fmt.Sprintf(format, args...))
	}
}

// find notes something that is wrong.
func (c *checker) find(format string, args ...any) {
	c.rep.Found++
	if len(c.rep.Findings) < findingsMax {
		c.rep.Findings = append(c.rep.Findings, fmt.Sprintf(format, args...))
	}
}

// checkASDs opens every ASD for reading and compares its index with itself, and with Data every fragment
// with its checksums.
func (c *checker) checkASDs(ctx context.Context) error {
	for i := range c.n.cfg.ASDs {
		c.progress("checking ASD %d of %d", i+1, c.n.cfg.ASDs)
		a := &checkedASD{id: ids.ASDID(i)}
		c.asds = append(c.asds, a)
		if a.file, a.err = c.n.host.Open(filepath.Join(c.n.drivePath(i), "data")); a.err == nil {
			c.close = append(c.close, func() { a.file.Close() })
			so := c.n.storeOptions(i, a.file, nil)
			so.ReadOnly = true
			a.store, a.err = store.Open(so)
		}
		if a.err != nil {
			c.rep.ASDs = append(c.rep.ASDs, FsckASD{ID: a.id, Problem: a.err.Error()})
			c.find("ASD %d does not open: %v", i, a.err)
			continue
		}
		c.close = append(c.close, func() { a.store.Close() })
		if err := c.checkASD(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) checkASD(ctx context.Context, a *checkedASD) error {
	r, err := a.store.Check(ctx, c.o.Data)
	if ctx.Err() != nil {
		return errs.Wrap(errs.Canceled, ctx.Err(), "fsck was given up")
	}
	row := FsckASD{ID: a.id}
	if err != nil {
		row.Problem = err.Error()
		c.find("ASD %d cannot be checked: %v", a.id, err)
	}
	if r != nil {
		row.Fragments, row.Bytes, row.Corrupt = r.Fragments, r.Bytes, len(r.Corrupt)
		for _, p := range r.Problems {
			c.find("the index of ASD %d contradicts itself: %s; `vstor asd rebuild-index %d` makes a new one", a.id, p, a.id)
		}
		for _, k := range r.Corrupt {
			o := objectKey{k.Namespace, k.SCO}
			c.bad[o] = append(c.bad[o], located{k, a.id})
		}
	}
	c.rep.ASDs = append(c.rep.ASDs, row)
	return nil
}

// unopened names the ASDs that could not be asked.
func (c *checker) unopened() (out []ids.ASDID) {
	for _, a := range c.asds {
		if a.store == nil {
			out = append(out, a.id)
		}
	}
	return out
}

// RebuildIndex makes the index of an ASD anew from the headers on its drive, in a deployment that does not run.
func RebuildIndex(ctx context.Context, cfg config.Config, host Host, id int, progress func(done, total int64)) (
	*store.RebuildReport, error) {
	if host == nil {
		host = RealHost{}
	}
	if id < 0 || id >= cfg.ASDs {
		return nil, errs.New(errs.Absent, "there is no ASD %d; they are numbered 0 to %d", id, cfg.ASDs-1)
	}
	n := &Node{cfg: cfg, host: host}
	var err error
	if n.ident, _, err = n.findIdent(); err != nil {
		return nil, err
	}
	f, err := host.Open(filepath.Join(n.drivePath(id), "data"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return store.RebuildIndex(ctx, n.storeOptions(id, f, nil), progress)
}
