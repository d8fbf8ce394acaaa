package volume

import (
	"context"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/volume/pagemap"
	"vstor/dataplane/volume/sco"
)

// candidate is a block of a victim.
type candidate struct {
	sco.Entry
	off  uint16
	live bool
}

// gather adds the live blocks of a victim. True: the SCO is full. After an error it has some of them, and the victim
// is not empty.
func (c *cleanContent) gather(ctx context.Context, n ids.SCONum) (full bool, err error) {
	v := c.v
	m, err := v.opts.Objects.Manifest(ctx, v.opts.ID, n)
	if err != nil {
		return false, err
	}
	h, index, err := v.readIndex(ctx, m)
	if err != nil {
		return false, err
	}
	all := make([]candidate, 0, h.Entries)
	err = h.ParseIndex(index, func(off uint16, e sco.Entry) {
		all = append(all, candidate{Entry: e, off: off})
	}, func(sco.Hole) {})
	if err != nil {
		return false, err
	}
	if err := v.findLive(ctx, n, all); err != nil {
		return false, err
	}
	return c.read(ctx, m, n, all)
}

// findLive marks the candidates that the map still finds in SCO n. The loop looks them up in slices, and
// loads what pages it lacks.
func (v *Volume) findLive(ctx context.Context, n ids.SCONum, all []candidate) error {
	for len(all) > 0 {
		k := min(applySlice, len(all))
		if err := v.findLiveSlice(ctx, n, all[:k]); err != nil {
			return err
		}
		all = all[k:]
	}
	return nil
}

func (v *Volume) findLiveSlice(ctx context.Context, n ids.SCONum, all []candidate) error {
	errc := make(chan error, 1)
	missing := 1
	var failed error
	end := func(err error) {
		if err != nil {
			failed = err
		}
		if missing--; missing == 0 {
			errc <- failed
		}
	}
	ok := v.loop.Call(func() {
		if v.closed {
			errc <- errs.Closed
			return
		}
		for i := 0; i < len(all); {
			p := pagemap.PageOf(all[i].Addr)
			j := i
			for j < len(all) && pagemap.PageOf(all[j].Addr) == p {
				j++
			}
			part := all[i:j]
			i = j
			if v.markLive(n, part) {
				continue
			}
			missing++
			v.m.Load(p, func(err error) {
				if err == nil && !v.markLive(n, part) {
					err = errs.Busy
				}
				end(err)
			})
		}
		end(nil)
	})
	if !ok {
		return errs.Closed
	}
	select {
	case err := <-errc:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// markLive looks up candidates of one page; false if the page is not in RAM.
func (v *Volume) markLive(n ids.SCONum, part []candidate) bool {
	for i := range part {
		loc, ok := v.m.Lookup(part[i].Addr)
		if !ok {
			return false
		}
		part[i].live = loc.SCO == n && loc.Off == part[i].off && loc.NS == 0
	}
	return true
}

// read copies the live blocks, window by window. A block whose fragment holds other bytes than were written is mended:
// to move it as it is would make that final, for the parity that can mend it goes with its SCO. What cannot be mended
// stays where it is, and keeps its SCO, until it is overwritten or somebody is back who knows better.
func (c *cleanContent) read(ctx context.Context, m *layout.Manifest, n ids.SCONum,
	all []candidate) (full bool, err error) {
	const perWindow = cleanWindow / ids.BlockSize
	mended, left := 0, 0
	defer func() {
		if mended+left > 0 {
			c.v.opts.Log.Warn("blocks failed their checksums while a SCO was cleaned", "vdisk", c.v.opts.Name, "SCO", n,
				"rebuilt", mended, "left", left)
		}
	}()
	for i := 0; i < len(all); {
		first := int(all[i].off)
		j, live := i, false
		for j < len(all) && int(all[j].off) < first+perWindow {
			live = live || all[j].live
			j++
		}
		part := all[i:j]
		i = j
		if !live {
			continue
		}
		window := c.window[:len(part)*ids.BlockSize]
		if err := c.v.opts.Objects.Get(ctx, m, int64(first)*ids.BlockSize, window); err != nil {
			return false, err
		}
		for k := range part {
			if !part[k].live {
				continue
			}
			if len(c.index) == min(cleanBlocks, c.v.batchMax) {
				return true, err
			}
			b, e := window[k*ids.BlockSize:(k+1)*ids.BlockSize], part[k].Entry
			if !matches(b, e.Sum) {
				if worse := c.mend(ctx, m, part[k].off, b, e.Sum); worse != nil {
					err = worse
					left++
					continue
				}
				mended++
			}
			c.data = append(c.data, b...)
			e.Old = layout.Location{SCO: n, Off: part[k].off, Sum: e.Sum}
			c.index = append(c.index, e)
		}
	}
	return len(c.index) == min(cleanBlocks, c.v.batchMax), err
}

func matches(b []byte, sum uint32) bool { return uint32(xxhash.Sum64(b)) == sum }

// mend mends one block.
func (c *cleanContent) mend(ctx context.Context, m *layout.Manifest, off uint16, b []byte, sum uint32) error {
	return mend(ctx, c.v.opts.Objects, m, int64(off)*ids.BlockSize, b, func() error {
		if !matches(b, sum) {
			return errs.New(errs.Corrupt, "block %d fails its checksum, and so does what other fragments give", off)
		}
		return nil
	})
}
