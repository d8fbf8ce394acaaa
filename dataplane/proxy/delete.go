package proxy

import (
	"context"
	"errors"
	"sync"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/meta"
)

// deleteBatch is how many keys go to an ASD at once: mass deletes must not drown a drive.
const deleteBatch = 1024

// keysByASD are the keys under which fragments of an object may lie, by ASD: every version up to the
// manifest's, since an older one may have survived its repair, and the next, of a repair that crashed.
func (px *Proxy) keysByASD(m *layout.Manifest) map[ids.ASDID][]layout.FragKey {
	out := make(map[ids.ASDID][]layout.FragKey)
	n := m.Policy.N()
	for i := range m.Frags {
		c, f := i/n, i%n
		t := m.Target(c, f)
		if t.Kind != layout.TargetASD {
			continue
		}
		for v := range min(int(m.Frags[i].Version)+2, 256) {
			out[t.ASD] = append(out[t.ASD], m.FragKeyVersion(c, f, uint8(v)))
		}
	}
	return out
}

// deleteFragments deletes keys from all ASDs at once; nil when every ASD that still exists has.
func (px *Proxy) deleteFragments(ctx context.Context, keys map[ids.ASDID][]layout.FragKey) error {
	var mu sync.Mutex
	var all []error
	var wg sync.WaitGroup
	for id, list := range keys {
		wg.Go(func() {
			if err := px.deleteFrom(ctx, id, list); err != nil {
				mu.Lock()
				all = append(all, err)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return errors.Join(all...)
}

func (px *Proxy) deleteFrom(ctx context.Context, id ids.ASDID, keys []layout.FragKey) error {
	a := px.asd(id)
	if a == nil {
		return nil // removed for good
	}
	if !a.Alive {
		return errs.New(errs.Unreachable, "proxy: ASD %d is down", id)
	}
	ctx, cancel := context.WithTimeout(ctx, px.opts.StallTimeout)
	defer cancel()
	for len(keys) > 0 {
		n := min(len(keys), deleteBatch)
		if err := a.Store.Delete(ctx, keys[:n]); err != nil && errs.Of(err) != errs.Absent {
			return errs.Wrap(errs.Of(err), err, "proxy: ASD %d", id)
		}
		keys = keys[n:]
	}
	return nil
}

// DeleteObject removes an object. When it returns nil the object does not exist any more and its fragments
// will go, whatever happens: one transaction, which asserts the owner's epoch, turns the manifest into a
// delete record; then the ASDs delete; then the record goes. If an ASD does not answer, the record
// stays and the deletion is resumed later. Absent is no error. The caller knows that nothing names the
// object. Errors: Refused with ErrFenced, those of the metadata store.
func (px *Proxy) DeleteObject(ctx context.Context, ns ids.NamespaceID, epoch ids.Epoch, sco ids.SCONum) error {
	if err := px.begin(); err != nil {
		return err
	}
	defer px.done()
	ctx, cancel := px.join(ctx)
	defer cancel()
	for range casMax {
		m, ver, err := px.manifest(ctx, ns, sco)
		if errs.Of(err) == errs.Absent {
			return nil
		}
		if err != nil {
			return err
		}
		mk, dk := manifestKey(ns, sco), deleteKey(ns, sco, m.Put)
		t := assertOwner(new(meta.Txn), ns, epoch).HasVersion(mk, ver).Delete(mk).Put(dk, m.Append(nil))
		if m.Commit != 0 {
			t.Delete(orderKey(ns, m.Commit))
		}
		err = px.opts.Meta.Apply(ctx, t)
		switch conflict(err) {
		case 0:
			return fenced(ns, epoch)
		case 1:
			continue // amended meanwhile
		}
		if err != nil {
			return err
		}
		px.count.deleted.Add(1)
		px.count.deletesLeft.Add(1)
		if px.finishDelete(ctx, dk, m) == nil {
			px.count.deletesLeft.Add(-1)
		}
		return nil
	}
	return errs.New(errs.Busy, "proxy: SCO %d/%d is amended all the time", ns, sco)
}

// finishDelete deletes an object's fragments and then its delete record.
func (px *Proxy) finishDelete(ctx context.Context, dk []byte, m *layout.Manifest) error {
	px.forget(m)
	if err := px.deleteFragments(ctx, px.keysByASD(m)); err != nil {
		return err
	}
	return px.opts.Meta.Apply(ctx, new(meta.Txn).Delete(dk))
}

// ResumeDeletes tries what earlier deletes left undone, and returns how many objects and namespaces are
// still waiting for an ASD. It runs by itself every RetryInterval, and when an ASD has returned.
func (px *Proxy) ResumeDeletes(ctx context.Context) (left int, err error) {
	if err := px.begin(); err != nil {
		return 0, err
	}
	defer px.done()
	ctx, cancel := px.join(ctx)
	defer cancel()
	return px.resumeDeletes(ctx)
}

func (px *Proxy) resumeDeletes(ctx context.Context) (left int, err error) {
	objects, err := px.resume(ctx, keyDelete, func(e meta.Entry) error {
		m, err := layout.ParseManifest(e.Value)
		if err != nil {
			return err
		}
		return px.finishDelete(ctx, e.Key, m)
	})
	if err != nil {
		return objects, err
	}
	spaces, err := px.resume(ctx, keyGone, func(e meta.Entry) error {
		ns, ok := nsOf(e.Key)
		if !ok {
			return errs.New(errs.Corrupt, "proxy: key %x names no namespace", e.Key)
		}
		return px.sweep(ctx, ns)
	})
	if err == nil {
		px.count.deletesLeft.Store(int64(objects + spaces))
	}
	return objects + spaces, err
}

// resume calls finish for every key of a kind and counts those that it could not finish.
func (px *Proxy) resume(ctx context.Context, kind byte, finish func(meta.Entry) error) (left int, err error) {
	var after []byte
	var why error
	defer func() {
		if left > 0 {
			px.opts.Log("proxy: %d deletes wait for ASDs: %v", left, why)
		}
	}()
	for {
		list, err := px.opts.Meta.Scan(ctx, key(kind), after, 64)
		if err != nil || len(list) == 0 {
			return left, err
		}
		for _, e := range list {
			if ctx.Err() != nil {
				return left, errs.Wrap(errs.Canceled, ctx.Err(), "proxy: resuming deletes")
			}
			if err := finish(e); err != nil {
				why = errs.Wrap(errs.Of(err), err, "delete %x", e.Key)
				left++
			}
		}
		after = list[len(list)-1].Key
	}
}
