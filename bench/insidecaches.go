package bench

import (
	"context"
	"math/rand/v2"
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/stat"
)

// ssdPasses over what is to be in the second tier: it takes what comes by again after it left the RAM.
const ssdPasses = 3

// fillBlocks reads into the block cache all that the job goes over.
func (in *inside) fillBlocks(ctx context.Context, p *Part) error {
	passes := 1
	if p.Name == ssdAlone {
		passes = ssdPasses
	}
	for range passes {
		if err := in.readThrough(ctx, p.Bytes); err != nil {
			return err
		}
	}
	return nil
}

// fillFragments writes the first bytes of the vDisk anew, for the fragment cache takes what is put, and is where those
// of the blocks lie that are in objects then: most of them, as the newest may be in the journal yet.
func (in *inside) fillFragments(ctx context.Context, bytes int64) ([]layout.Location, error) {
	if err := in.writeAnew(ctx, bytes); err != nil {
		return nil, err
	}
	const patience, step = time.Minute, 50 * time.Millisecond
	for end := time.Now().Add(patience); ; time.Sleep(step) {
		places, err := in.find(bytes)
		if err != nil {
			return nil, err
		}
		if most := bytes / ids.BlockSize / 2; int64(len(places)) >= most {
			return places, nil
		}
		if time.Now().After(end) {
			return nil, errs.New(errs.Busy, "of %d bytes that were written not half is in objects after %v", bytes, patience)
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

// writeAnew writes the first bytes of the vDisk, in order.
func (in *inside) writeAnew(ctx context.Context, bytes int64) error {
	t, loop, disk := in.teller(), in.vdisk.Loop(), in.vdisk.Disk()
	for off := int64(0); off < bytes; off += fillSize {
		n := min(fillSize, bytes-off)
		r := block.Request{Op: block.Write, Off: off, Len: uint32(n), Done: t}
		for begun := false; !begun; {
			loop.Call(func() {
				if begun = takePages(loop.Pool(), &r.Data, int(n)) == nil; begun {
					disk.Submit(&r)
				}
			})
			if err := ctx.Err(); err != nil && !begun {
				return err
			}
			if !begun {
				time.Sleep(time.Millisecond) // pages come back
			}
		}
		if k := <-t.kind; k != errs.OK {
			return errs.New(k, "the vDisk cannot be written at %d", off)
		}
	}
	return nil
}

// tiers are the caches that parts read from, as ListCaches calls them.
var tiers = map[string]string{ssdAlone: "block-ssd", fragsAlone: "fragments"}

// counting does a job and notes how much of it came from the part's cache. A cache that is slower than what is behind
// it is passed by, and says so by this: it is no error.
func (in *inside) counting(ctx context.Context, part string, job func() (result, error)) (result, error) {
	before := in.hits(ctx, tiers[part])
	r, err := job()
	if err == nil && r.IOs > 0 {
		r.FromCache = float64(in.hits(ctx, tiers[part])-before) / float64(r.IOs)
	}
	if err == nil && r.FromCache == 0 {
		err = errs.New(errs.Absent, "nothing of what was read came from the %s", part)
	}
	return r, err
}

func (in *inside) hits(ctx context.Context, tier string) (n uint64) {
	list, _ := in.node.ListCaches(ctx) // without a caller on a socket it cannot fail
	for _, c := range list {
		if c.Cache == tier {
			n += c.Hits
		}
	}
	return n
}

// getsAtOnce are looked up before anybody else has a turn on the loop.
const getsAtOnce = 1024

// runGets has the block cache's RAM give random ones of these blocks, one after the other: a look-up that finds takes
// no IO, so there is nothing to wait for, and a depth would be none. Two readings of the clock are in each.
func (in *inside) runGets(ctx context.Context, places []layout.Location, d time.Duration) (result, error) {
	g := gets{in: in, places: places}
	began := time.Now()
	for time.Since(began) < d {
		in.vdisk.Loop().Call(g.some)
		if err := ctx.Err(); err != nil {
			return result{}, err
		}
	}
	took := time.Since(began)
	if g.misses*100 > g.all {
		return result{}, errs.New(errs.Absent, "the cache lacks %d of %d blocks that were read into it", g.misses, g.all)
	}
	var s stat.Snapshot
	g.hist.AddTo(&s)
	return summary(&s, ids.BlockSize, took), nil
}

// gets are look-ups in the block cache. The loop owns all of it while they run.
type gets struct {
	in          *inside
	places      []layout.Location
	hist        stat.Histogram
	all, misses int
	sum         [1]uint32
	out         buf.Vec
}

func (g *gets) some() {
	cache, pool, vol := g.in.vdisk.Cache(), g.in.vdisk.Loop().Pool(), g.in.vdisk.Volume()
	last := time.Now()
	for range getsAtOnce {
		at := g.places[rand.IntN(len(g.places))]
		g.sum[0] = at.Sum
		g.all++
		if cache.Get(vol.Namespace(at), at.SCO, uint32(at.Off), g.sum[:], &g.out) == 0 {
			g.misses++
		}
		pool.ReleaseVec(&g.out)
		now := time.Now()
		g.hist.Record(int64(now.Sub(last)))
		last = now
	}
}
