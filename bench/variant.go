package bench

import (
	"context"

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
	if err := v.restartWith(ctx, v.restart); err != nil || v.as != cached {
		return err
	}
	_, err := v.run(ctx, Job{RW: "read", Block: "1M", Depth: 8, Span: j.Span}, 0) // into the cache
	return err
}

func (v variant) restart(ctx context.Context) error {
	if v.as == local {
		return v.startWith(ctx, "--block-cache", "0", "--short-circuit", "on")
	}
	return v.startWith(ctx, "--short-circuit", "off", "--block-cache", units.FormatSize(v.opt.Size/cachedPart*3/2))
}

func (v variant) end(ctx context.Context) error { return v.restartWith(ctx, v.ours.start) }
