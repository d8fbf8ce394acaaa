package meta

import (
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/dataplane/errs"
	"vstor/dataplane/lsm"
)

// What a Store lost to rot must not be taken for what a crash cut off: an old owner, an old manifest would
// come back. Tables have checksums. Log and manifest have, too, but to pebble a record that fails its
// checksum is the end, and it runs on with what was before. Here is what knows better:
//
//	a damaged record with a later one behind it         lsm.Inspect
//	the last records of the log                         voucher: a record without content follows them
//	the last edits of the manifest                      each batch says how far the manifest was durable
//	both, after a clean stop                            the seal: version and manifest at the end
//
// What stays undecided is rot in what was written in the last second or so before a kill or a power cut.
//
// All of it is looked at before pebble opens the files for writing, because that removes what it does not
// know to be needed.

// open checks what is there and opens it.
func (p *Pebble) open() error {
	g := p.guard
	if !p.opts.ReadOnly {
		g.DropOptions()
	}
	mark, err := g.Inspect()
	if err != nil {
		return repairable(err)
	}
	exists := mark.Num != 0
	if exists || p.opts.ReadOnly {
		if err := p.look(mark); err != nil {
			return repairable(err)
		}
		if p.opts.ReadOnly {
			return nil
		}
	}
	if p.db, err = pebble.Open(p.opts.Dir, p.pebble(false)); err != nil {
		return repairable(g.OpenError(err))
	}
	if err := p.checkFormat(); err != nil {
		return errors.Join(repairable(err), p.db.Close())
	}
	if !exists {
		// The first log of a new database is of pebble's oldest format, which names no synced offsets.
		if err := p.db.Flush(); err != nil {
			return errors.Join(errs.Wrap(errs.IO, err, "meta: first flush"), p.db.Close())
		}
	}
	g.SetBallast()
	return nil
}

// repairable adds the way out to an error of kind Corrupt or Absent.
func repairable(err error) error {
	switch errs.Of(err) {
	case errs.Corrupt, errs.Absent:
		return errs.New(errs.Of(err), "%v: `vstor fsck --manifests --repair` rebuilds it from the ASDs", err)
	}
	return err
}

// look opens the Store for reading and checks all of it. In a Store that is to be written it is closed again.
func (p *Pebble) look(mark lsm.Mark) error {
	db, err := pebble.Open(p.opts.Dir, p.pebble(true))
	if err != nil {
		return p.guard.OpenError(err)
	}
	p.db = db
	if err = p.guard.LogRot(); err == nil {
		err = p.checkAll(mark)
	}
	if err == nil && p.opts.ReadOnly {
		return nil
	}
	p.db, p.rev = nil, 0
	if cerr := db.Close(); err == nil && cerr != nil {
		err = errs.Wrap(errs.IO, cerr, "meta: close")
	}
	return err
}

func (p *Pebble) checkAll(mark lsm.Mark) error {
	if err := p.db.CheckLevels(nil); err != nil {
		return p.guard.OpenError(err)
	}
	lost := func(format string, args ...any) error {
		return lsm.Damaged("the metadata store", p.opts.Dir, "", errs.New(errs.Corrupt, format, args...))
	}
	v, err := p.raw(keyManifest)
	switch {
	case errs.Of(err) == errs.Absent:
	case err != nil:
		return err
	case len(v) != 16:
		return lost("a record of the manifest's length has %d bytes", len(v))
	default:
		if want := parseMark(v); mark.Before(want) {
			return lost("its manifest %d was %d bytes long; manifest %d ends after %d", want.Num, want.Len, mark.Num, mark.Len)
		}
	}
	sealed, rev, ok := readSeal(p.opts.FS, p.sealPath())
	if ok && mark.Before(sealed) {
		return lost("it was closed with manifest %d of %d bytes; manifest %d ends after %d", sealed.Num, sealed.Len, mark.Num,
			mark.Len)
	}
	if err := p.checkFormat(); err != nil {
		return err
	}
	if ok && p.rev < rev {
		return lost("it was closed at version %d and is at version %d", rev, p.rev)
	}
	return nil
}

func appendMark(b []byte, m lsm.Mark) []byte {
	b = binary.LittleEndian.AppendUint64(b, m.Num)
	return binary.LittleEndian.AppendUint64(b, m.Len)
}

func parseMark(b []byte) lsm.Mark {
	return lsm.Mark{Num: binary.LittleEndian.Uint64(b), Len: binary.LittleEndian.Uint64(b[8:])}
}

// The seal says how a Store was closed. It stays there while the Store is open, since what was durable then is
// durable for ever. Two copies, each 512 bytes, little endian:
//
//	byte   0        4         8                  16        24                 32            40
//	       "VMSL"   version   newest version     manifest  bytes of it        XXH64 of      zeros
//	                u32       given out, u64     u64       u64                the above
const (
	sealName    = "SEAL"
	sealMagic   = 'V' | 'M'<<8 | 'S'<<16 | 'L'<<24
	sealVersion = 1
	sealSize    = 512
)

func (p *Pebble) sealPath() string { return p.opts.FS.PathJoin(p.opts.Dir, sealName) }

func encodeSeal(m lsm.Mark, rev Version) []byte {
	b := binary.LittleEndian.AppendUint32(make([]byte, 0, sealSize), sealMagic)
	b = binary.LittleEndian.AppendUint32(b, sealVersion)
	b = binary.LittleEndian.AppendUint64(b, uint64(rev))
	b = appendMark(b, m)
	b = binary.LittleEndian.AppendUint64(b, xxhash.Sum64(b))
	return b[:sealSize]
}

func decodeSeal(b []byte) (m lsm.Mark, rev Version, ok bool) {
	le := binary.LittleEndian
	if len(b) < sealSize || le.Uint32(b) != sealMagic || le.Uint32(b[4:]) != sealVersion ||
		le.Uint64(b[32:]) != xxhash.Sum64(b[:32]) {
		return m, 0, false
	}
	return parseMark(b[16:]), Version(le.Uint64(b[8:])), true
}

// readSeal is false where there is none, or both copies are damaged: then it says nothing.
func readSeal(fs vfs.FS, path string) (m lsm.Mark, rev Version, ok bool) {
	f, err := fs.Open(path)
	if err != nil {
		return m, 0, false
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return m, 0, false
	}
	for len(b) >= sealSize {
		if m, rev, ok = decodeSeal(b); ok {
			return m, rev, true
		}
		b = b[sealSize:]
	}
	return m, 0, false
}

// seal writes the seal of a Store that is closed, beside the old one and then over it. Best effort: without it
// less is known.
func (p *Pebble) seal() {
	mark, err := p.guard.Inspect()
	if err != nil {
		return
	}
	one := encodeSeal(mark, p.rev)
	fs, tmp := p.opts.FS, p.sealPath()+".tmp"
	f, err := fs.Create(tmp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return
	}
	_, err = f.Write(append(one, one...))
	if errors.Join(err, f.Sync(), f.Close()) == nil && fs.Rename(tmp, p.sealPath()) == nil {
		if d, err := fs.OpenDir(p.opts.Dir); err == nil {
			_ = errors.Join(d.Sync(), d.Close())
		}
	}
}

// voucher writes a record without content behind the last transaction once the Store falls silent. It names
// the offset up to which the log had been synced, so rot in that transaction is not taken for a torn tail.
type voucher struct {
	mu      sync.Mutex
	timer   *time.Timer // nil: there is nothing to mark, and no mark is under way
	again   bool        // a transaction came since the timer was set
	marked  bool        // the mark is being written, or was
	stopped bool
}

func (v *voucher) arm(p *Pebble) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.again = true; v.timer == nil && !v.stopped && p.opts.MarkAfter > 0 {
		v.again = false
		v.timer = time.AfterFunc(p.opts.MarkAfter, func() { v.fire(p) })
	}
}

func (v *voucher) fire(p *Pebble) {
	if !v.silent(p) {
		return
	}
	v.mark(p)
	v.silent(p) // or a transaction came meanwhile
}

// silent reports whether no transaction came since the timer was set; else it sets it again. After the mark the
// timer is gone with it.
func (v *voucher) silent(p *Pebble) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.stopped:
		return false
	case v.again:
		v.again, v.marked = false, false
		v.timer.Reset(p.opts.MarkAfter)
		return false
	case v.marked:
		v.timer, v.marked = nil, false
	default:
		v.marked = true
	}
	return true
}

func (v *voucher) mark(p *Pebble) {
	p.closing.mu.RLock()
	defer p.closing.mu.RUnlock()
	if p.closing.closed || p.guard.LogErr() != nil || p.guard.LastRoom() != nil {
		return
	}
	if err := p.db.LogData([]byte("mark"), pebble.Sync); err != nil {
		p.opts.Log("meta: a mark in the log: %v", err)
	}
}

func (v *voucher) stop() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.stopped = true
	if v.timer != nil {
		v.timer.Stop()
	}
}
