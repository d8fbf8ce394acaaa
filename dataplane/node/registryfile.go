package node

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/proxy"
)

// registryFile is the second copy of the registry. Data of a vDisk can be found again on the ASDs if the
// metadata store is lost; its name and its loop cannot. The copy is made after every change, so the
// metadata store is never behind it: where it is, it was lost, or an old one was put in its place.
//
//	{"checksum": XXH64 of the registry without spaces, in hexadecimal, "registry": {...}}
const registryFile = "vdisks.json"

type registryCopy struct {
	Version int          `json:"version"`
	Next    ids.VolumeID `json:"next"`
	VDisks  []record     `json:"vdisks"`
	Gone    []record     `json:"gone"` // removed, and not all deleted
}

// Versions of the copy:
//
//	1  the first
//	2  vDisks may be read-only and have access lists
//
// A program that knows version 1 alone would leave both out when it writes the copy, and serve such a vDisk to
// everybody; so it must not start. Without any such vDisk the copy is still written as version 1, byte for byte.
const (
	registryCopyOldest  = 1
	registryCopyVersion = 2
)

// versionFor is the lowest version that says all there is to say.
func versionFor(vdisks []record) int {
	for _, r := range vdisks {
		if r.ReadOnly || len(r.Allow) > 0 {
			return 2
		}
	}
	return registryCopyOldest
}

type sealedCopy struct {
	Checksum string          `json:"checksum"`
	Registry json.RawMessage `json:"registry"`
}

// copy is the registry as it is now.
func (g registry) copy(ctx context.Context) (c registryCopy, err error) {
	if c.Next, err = g.next(ctx); err == nil {
		if c.VDisks, err = g.list(ctx); err == nil {
			c.Gone, err = g.gone(ctx)
		}
	}
	c.Version = versionFor(slices.Concat(c.VDisks, c.Gone))
	return c, err
}

// keep makes the second copy anew. It is durable when keep returns.
func (g registry) keep(ctx context.Context) error {
	g.kept.Lock()
	defer g.kept.Unlock()
	c, err := g.copy(ctx)
	if err != nil {
		return err
	}
	return writeRegistryCopy(g.fs, g.dir, c)
}

// keepAdded keeps the copy after a vDisk was added; if that fails there is no such vDisk.
func (g registry) keepAdded(ctx context.Context, r record) error {
	err := g.keep(ctx)
	if err != nil {
		if rerr := g.remove(ctx, r); rerr != nil {
			err = errs.Wrap(errs.Of(err), err, "%v; and it cannot be taken back", rerr)
		}
	}
	return err
}

func writeRegistryCopy(fs vfs.FS, dir string, c registryCopy) error {
	raw, err := json.Marshal(c)
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(sealedCopy{fmt.Sprintf("%016x", xxhash.Sum64(raw)), raw}, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, registryFile)
	f, err := fs.Create(path+".tmp", vfs.WriteCategoryUnspecified)
	if err == nil {
		_, err = f.Write(append(b, '\n'))
		if err == nil {
			err = f.Sync()
		}
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}
	if err == nil {
		err = fs.Rename(path+".tmp", path)
	}
	if err != nil {
		return errs.Wrap(errs.IO, err, "cannot keep the list of vDisks in %s", path)
	}
	return syncDir(fs, dir)
}

// readRegistryCopy reads the copy. Errors: Absent, Corrupt, Version.
func readRegistryCopy(fs vfs.FS, dir string) (c registryCopy, err error) {
	path := filepath.Join(dir, registryFile)
	f, err := fs.Open(path)
	if err != nil {
		return c, errs.Wrap(errs.Absent, err, "there is no %s", path)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return c, errs.Wrap(errs.IO, err, "cannot read %s", path)
	}
	return parseRegistryCopy(path, b)
}

func parseRegistryCopy(path string, b []byte) (c registryCopy, err error) {
	var s sealedCopy
	var raw bytes.Buffer
	if err = json.Unmarshal(b, &s); err == nil {
		err = json.Compact(&raw, s.Registry)
	}
	if err == nil && s.Checksum != fmt.Sprintf("%016x", xxhash.Sum64(raw.Bytes())) {
		err = errs.New(errs.Corrupt, "it fails its checksum")
	}
	if err == nil {
		err = json.Unmarshal(raw.Bytes(), &c)
	}
	if err != nil {
		return c, errs.Wrap(errs.Corrupt, err, "%s is damaged", path)
	}
	if c.Version < registryCopyOldest || c.Version > registryCopyVersion {
		return c, errs.New(errs.Version, "%s has version %d; this program reads %d to %d", path, c.Version,
			registryCopyOldest, registryCopyVersion)
	}
	return c, nil
}

// lacks names the vDisks of the copy that the metadata store knows nothing of. One that was removed has left
// a mark in the store even when all of it is gone.
func (g registry) lacks(ctx context.Context, c registryCopy) ([]record, error) {
	now, err := g.copy(ctx)
	if err != nil {
		return nil, err
	}
	var out []record
	for _, r := range slices.Concat(c.VDisks, c.Gone) {
		same := func(o record) bool { return o.ID == r.ID }
		if slices.ContainsFunc(now.VDisks, same) || slices.ContainsFunc(now.Gone, same) {
			continue
		}
		deleted, err := proxy.Deleted(ctx, g.meta, r.ID)
		if err != nil {
			return nil, err
		}
		if !deleted {
			out = append(out, r)
		}
	}
	return out, nil
}

// reconcile compares store and copy at a start, before anything relies on the store, and makes the copy
// anew. Errors: Corrupt if the store was lost or is an old one.
func (g registry) reconcile(ctx context.Context) error {
	c, err := readRegistryCopy(g.fs, g.dir)
	switch errs.Of(err) {
	case errs.OK:
	case errs.Absent, errs.Corrupt:
		return g.keep(ctx)
	default:
		return err
	}
	const remedy = "the metadata store was lost, or is an old copy; bring the right one back, or let " +
		"`vstor fsck --manifests --repair` make it again from the ASDs"
	lost, err := g.lacks(ctx, c)
	if err != nil {
		return err
	}
	if len(lost) > 0 {
		return errs.New(errs.Corrupt, "%s lists vDisk %s, which the metadata store does not know: %s", registryFile,
			lost[0].Name, remedy)
	}
	next, err := g.next(ctx)
	if err != nil {
		return err
	}
	if next < c.Next {
		return errs.New(errs.Corrupt, "%s knows of vDisk number %d, which the metadata store would give out again: %s",
			registryFile, c.Next-1, remedy)
	}
	return g.keep(ctx)
}
