package node

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"vstor/dataplane/api"
	"vstor/dataplane/config"
	"vstor/dataplane/errs"
	"vstor/dataplane/stat"
)

// cutRole splits "edge-0" into its noun and its number.
func cutRole(name string) (noun, number string, ok bool) { return strings.Cut(name, "-") }

// writeRole writes the settings of a child: all keys of the deployment, and its own.
func writeRole(path string, cfg *config.Config, extra map[string][]string) error {
	values := map[string][]string{}
	for _, k := range config.Keys() {
		if v := k.Get(cfg); v != nil {
			values[k.Name] = v
		}
	}
	b, err := config.FormatTOML("Written at each start by `vstor up --processes`.", values)
	if err != nil {
		return err
	}
	own := map[string]any{}
	for name, words := range extra {
		if own[name] = words; len(words) == 1 && name != "asd" && name != "listen" {
			own[name] = words[0]
		}
	}
	more, err := toml.Marshal(own)
	if err == nil {
		err = os.WriteFile(path, append(b, more...), 0o600)
	}
	if err != nil {
		return errs.Wrap(errs.IO, err, "cannot write the settings of a child process")
	}
	return nil
}

// ask bounds what is asked of a child.
func ask(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, askWait)
}

// CreateVDisk makes a vDisk.
func (f *Fleet) CreateVDisk(ctx context.Context, name string, size int64) (api.VDisk, error) {
	v, err := f.router.api.CreateVDisk(ctx, name, size)
	if err == nil { // a list without it would be a lie, should the router fall silent now
		f.mu.Lock()
		f.known = append(slices.DeleteFunc(f.known, named(name)), v)
		f.mu.Unlock()
	}
	v.URI = api.NBDURI(f.n.cfg.Dir, name)
	return v, f.router.explain(err)
}

// explain says whose silence an error is.
func (r *role) explain(err error) error {
	if errs.Of(err) == errs.Unreachable {
		return errs.New(errs.Unreachable, "%s does not answer (pid %d): is it stopped, or being started again?", r.name,
			r.child.PID())
	}
	return err
}

// ListVDisks shows all of them, as the router told last if it is silent; what clients do the edge knows.
func (f *Fleet) ListVDisks(ctx context.Context) ([]api.VDisk, error) {
	rctx, cancel := ask(ctx)
	list, err := f.router.api.ListVDisks(rctx)
	cancel()
	f.mu.Lock()
	if err == nil {
		f.known = slices.Clone(list)
	} else {
		list = slices.Clone(f.known)
		for i := range list {
			list[i].Problem = f.router.explain(err).Error()
		}
	}
	f.mu.Unlock()
	ectx, cancel := ask(ctx)
	defer cancel()
	open, err := f.edge.api.ListVDisks(ectx)
	for i := range list {
		list[i].URI = api.NBDURI(f.n.cfg.Dir, list[i].Name)
		if err != nil {
			list[i].Problem = f.edge.explain(err).Error()
		}
		for _, v := range open {
			if v.Name == list[i].Name {
				overlayVDisk(&list[i], &v)
			}
		}
	}
	return list, nil
}

// overlayVDisk puts what an edge knows of a vDisk over what the router does.
func overlayVDisk(v, edge *api.VDisk) {
	v.Connections = edge.Connections
	v.ReadOps, v.WriteOps, v.ReadBytes, v.WriteBytes = edge.ReadOps, edge.WriteOps, edge.ReadBytes, edge.WriteBytes
	if v.Problem == "" {
		v.Problem = edge.Problem
	}
}

// ShowVDisk shows one.
func (f *Fleet) ShowVDisk(ctx context.Context, name string) (api.VDisk, error) {
	list, err := f.ListVDisks(ctx)
	for _, v := range list {
		if v.Name == name {
			return v, nil
		}
	}
	if err == nil {
		err = noSuchVDisk(name)
	}
	return api.VDisk{}, err
}

// SetVDisk changes a vDisk at the router, then has the edge close what that shuts out.
func (f *Fleet) SetVDisk(ctx context.Context, name string, s api.VDiskSettings) (api.VDiskChange, error) {
	if s.ReadOnly != nil {
		v, err := f.ShowVDisk(ctx, name)
		if err != nil {
			return api.VDiskChange{}, err
		}
		if v.Connections > 0 && v.ReadOnly != *s.ReadOnly {
			return api.VDiskChange{}, errs.New(errs.Busy, "vDisk %s is in use by %d connections, which must not find it "+
				"changed all at once; disconnect them first", name, v.Connections)
		}
	}
	c, err := f.router.api.SetVDisk(ctx, name, s)
	if err != nil {
		return c, f.router.explain(err)
	}
	e, err := f.edge.api.SetVDisk(ctx, name, s)
	c.Disconnected = e.Disconnected
	c.URI = api.NBDURI(f.n.cfg.Dir, name)
	return c, f.edge.explain(err)
}

// VDiskStats tells what the clients of one got; of one that the edge does not have open, nothing.
func (f *Fleet) VDiskStats(ctx context.Context, name string) (api.VDiskStats, error) {
	s, err := f.edge.api.VDiskStats(ctx, name)
	if errs.Of(err) == errs.Absent {
		_, err = f.ShowVDisk(ctx, name)
		return api.VDiskStats{Name: name}, err
	}
	return s, f.edge.explain(err)
}

// ListCaches shows what each vDisk has of each cache: blocks at the edge, fragments at the router.
func (f *Fleet) ListCaches(ctx context.Context) ([]api.CacheShare, error) {
	list, err := f.edge.api.ListCaches(ctx)
	if err != nil {
		return nil, f.edge.explain(err)
	}
	more, err := f.router.api.ListCaches(ctx)
	return append(list, more...), f.router.explain(err)
}

// RemoveVDisk removes one that is not in use.
func (f *Fleet) RemoveVDisk(ctx context.Context, name string) error {
	err := f.router.api.RemoveVDisk(ctx, name)
	if err == nil {
		f.mu.Lock()
		f.known = slices.DeleteFunc(f.known, named(name))
		f.mu.Unlock()
	}
	return f.router.explain(err)
}

func named(name string) func(api.VDisk) bool { return func(v api.VDisk) bool { return v.Name == name } }

// ListASDs shows the drives; what their processes do this one knows.
func (f *Fleet) ListASDs(ctx context.Context) ([]api.ASD, error) {
	rctx, cancel := ask(ctx)
	defer cancel()
	list, err := f.router.api.ListASDs(rctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		f.asds = slices.Clone(list)
	} else {
		list = slices.Clone(f.asds)
	}
	for i := range list {
		d := f.n.drives[list[i].ID]
		list[i].PID, list[i].Restarts = d.child.PID(), d.child.Restarts()
		if list[i].PID == 0 && list[i].Problem == "" {
			list[i].State, list[i].Problem = api.StateDown, "its process does not run"
		}
	}
	return list, nil
}

// ShowASD shows one.
func (f *Fleet) ShowASD(ctx context.Context, id uint32) (api.ASD, error) {
	list, err := f.ListASDs(ctx)
	if err != nil {
		return api.ASD{}, err
	}
	if int(id) < len(list) {
		return list[id], nil
	}
	return api.ASD{}, errs.New(errs.Absent, "there is no ASD %d; they are numbered 0 to %d", id, len(f.n.drives)-1)
}

// Faults breaks an ASD on purpose.
func (f *Fleet) Faults(ctx context.Context, id uint32, rules string) error {
	return f.router.explain(f.router.api.Faults(ctx, id, rules))
}

// Status is how the deployment is doing. A child that is silent is said to be.
func (f *Fleet) Status(ctx context.Context) (api.Status, error) {
	rctx, cancel := ask(ctx)
	s, err := f.router.api.Status(rctx)
	cancel()
	if err != nil {
		s = api.Status{State: api.StateDegraded, Version: Version, ASDs: len(f.n.drives), Unprotected: []string{api.OneCopy},
			Reasons: []string{f.router.explain(err).Error()}}
	}
	s.Dir, s.PID, s.UptimeSeconds = f.n.cfg.Dir, os.Getpid(), time.Since(f.n.started).Seconds()
	s.MaxConnections = f.n.cfg.MaxConnections
	ectx, cancel := ask(ctx)
	defer cancel()
	e, err := f.edge.api.Status(ectx)
	if err != nil {
		s.State = api.StateDegraded
		s.Reasons = append(s.Reasons, f.edge.explain(err).Error())
		return s, nil
	}
	if e.State != api.StateUp && s.State == api.StateUp {
		s.State = e.State
	}
	s.Reasons = append(s.Reasons, e.Reasons...)
	s.Warnings = append(s.Warnings, e.Warnings...)
	s.NBD, s.TLS, s.Connections = e.NBD, e.TLS, e.Connections
	return s, nil
}

// Memory lists the pools of router and edge.
func (f *Fleet) Memory(ctx context.Context) (api.Memory, error) {
	m, err := f.router.api.Memory(ctx)
	if err != nil {
		return m, f.router.explain(err)
	}
	e, err := f.edge.api.Memory(ctx)
	m.Pools = append(m.Pools, e.Pools...)
	m.PoolBytes += e.PoolBytes
	m.AllowanceBytes += e.AllowanceBytes + api.MemoryAllowance
	m.ResidentBytes += e.ResidentBytes + api.ResidentBytes()
	return m, f.edge.explain(err)
}

// WriteMetrics adds the metrics of router and edge, each with a label that says whose they are, and how the children
// are.
func (f *Fleet) WriteMetrics(p *stat.Page) {
	for _, r := range []*role{&f.router, &f.edge} {
		ctx, cancel := ask(f.n.ctx)
		text, err := r.api.Metrics(ctx)
		cancel()
		up := 0.0
		if err == nil {
			p.Merge(text, "process", r.name)
			up = 1
		}
		p.Gauge("vstor_process_up", "1 while the child answers", up, "child", r.name)
		p.Counter("vstor_process_restarts_total", "times that the child was started again", float64(r.child.Restarts()),
			"child", r.name)
	}
	for _, d := range f.n.drives {
		p.Counter("vstor_asd_restarts_total", "times that its process was started again", float64(d.child.Restarts()),
			"asd", fmt.Sprint(d.id))
	}
}

// Reload has the edge read certificates and keys again.
func (f *Fleet) Reload(ctx context.Context) error { return f.edge.explain(f.edge.api.Reload(ctx)) }

// Ready is nil while router and edge answer.
func (f *Fleet) Ready() error {
	for _, r := range []*role{&f.router, &f.edge} {
		if err := r.ready(f.n.ctx); err != nil {
			return r.explain(err)
		}
	}
	return nil
}

// NBDURIs are where NBD is served, as the edge says.
func (f *Fleet) NBDURIs() []string {
	ctx, cancel := ask(f.n.ctx)
	defer cancel()
	s, _ := f.edge.api.Status(ctx)
	return s.NBD
}

var _ api.System = (*Fleet)(nil)
