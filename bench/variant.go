package bench

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"time"

	"vstor/dataplane/api"
	"vstor/dataplane/config"
	"vstor/dataplane/errs"
	"vstor/dataplane/units"
)

// variant is one of the deployments with other settings. It is started, stopped and filled as what it belongs to,
// which is restarted before each job, and again behind it.
type variant struct {
	*ours
	as string
}

func (v variant) name() string                { return v.as }
func (v variant) start(context.Context) error { return nil }
func (v variant) stop() error                 { return nil }

func (v variant) begin(ctx context.Context, j Job) error {
	if err := v.restartWith(ctx, v.restart); err != nil {
		return err
	}
	if v.as == local {
		return v.degrade(ctx, j)
	}
	_, err := v.run(ctx, Job{File: "1m-read-qd8", Span: j.Span}, 0) // into the cache
	return err
}

func (v variant) restart(ctx context.Context) error {
	if v.as == local {
		settings := []string{"--block-cache", "0", "--short-circuit", "on"}
		if runtime.NumCPU() == 2 { // the router, which has little to do, may be where fio is
			settings = append(settings, "--loop-cpus", fmt.Sprintf("%d,%d", fioCPU+1, fioCPU))
		}
		return v.startWith(ctx, settings...)
	}
	size := v.cacheSize()
	settings := []string{"--short-circuit", "off", "--block-cache", units.FormatSize(size)}
	if v.spread { // the edge has memory of its own, and the cache is in it
		settings = append(settings, "--edge-memory", units.FormatSize(config.Default().EdgeMemory+2*size))
	}
	return v.startWith(ctx, settings...)
}

// cacheSize is that of a block cache for jobs that go over one part in cachedPart of the volume, in bytes.
func (o *ours) cacheSize() int64 { return o.opt.Size / cachedPart * 3 / 2 }

func (v variant) end(ctx context.Context) error { return v.restartWith(ctx, v.ours.start) }

// crowded is a deployment of its own, on drives that its volume nearly fills. It is there only while its job runs: it
// takes space, and its cleaning would take time from others.
type crowded struct{ *ours }

func newCrowded(opt *Options, spread bool) crowded {
	o := newOurs(opt, spread)
	o.dir += "f"
	o.client = api.NewClient(o.dir)
	o.asdSize = opt.fullASDSize()
	return crowded{o}
}

func (c crowded) name() string {
	if c.spread {
		return fullASDs
	}
	return full
}

func (c crowded) start(context.Context) error { return nil }

// begin fills it; for a job that reads it writes over that at random, and forgets what it has in RAM.
func (c crowded) begin(ctx context.Context, j Job) error {
	if err := c.ours.start(ctx); err != nil {
		return err
	}
	fill := []Job{fillJob}
	if !j.write() {
		fill = append(fill, Job{File: "4k-randwrite-qd32", RW: "randwrite"})
	}
	for i, f := range fill {
		if _, err := c.run(ctx, f, time.Duration(i)*c.opt.Cell); err != nil {
			return err
		}
		if err := c.rest(ctx, c.opt.Settle); err != nil {
			return err
		}
	}
	return c.ours.begin(ctx, j)
}

func (c crowded) end(context.Context) error {
	if err := c.stop(); err != nil {
		return err
	}
	if c.opt.Keep {
		return nil
	}
	if err := os.RemoveAll(c.dir); err != nil {
		return errs.Wrap(errs.IO, err, "cannot remove a deployment")
	}
	return nil
}
