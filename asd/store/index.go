package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// The index holds, in Pebble (which checksums every block and log record of its own):
//
//	key                         value
//	'c'                         commits u64: one more with every batch
//	'e' namespace u64 BE        highest epoch seen u64
//	'f' fragment key, 20 bytes  record of a fragment (below)
//	'm'                         meta record: whose index this is (below)
//	'q' first block u64 BE      version u8 = 2, count u8, two zeros, commit u64, count x (start u64, blocks u64):
//	                            space at rest, and the commit that deleted it; version 1: no commit
//	'w' commits u64 BE          version u8 = 1, 7 zeros, boot 16 bytes, time i64: a mark (mark.go)
//
// Numbers are little endian where not said otherwise.
const (
	keyCommits = 'c'
	keyEpoch   = 'e'
	keyFrag    = 'f'
	keyMeta    = 'm'
	keyRest    = 'q'
	keyMark    = 'w'

	recordVersion = 1
	restVersion   = 2
	indexVersion  = 1
	indexMagic    = "vstorIDX"
	// pebbleFormat pins Pebble's own format: checksummed footers, and log records that tell a torn
	// tail from rot. The library's newest would change under an upgrade and bar the way back.
	pebbleFormat = pebble.FormatTableFormatV6
)

// meta says whose index this is. 88 bytes:
//
//	0 magic "vstorIDX"   8 version u32   12 zero u32   16 UUID   32 format number u64
//	40 incarnation u64   48 its random number u64
//	56 announced incarnation u64   64 its random number u64   (0: none)   72 zeros
type meta struct {
	uuid        [16]byte
	formatNonce uint64
	inc, nonce  uint64
	// next is an incarnation that an Open announced and has not yet confirmed.
	nextInc, nextNonce uint64
}

const metaSize = 88

func (m *meta) encode() []byte {
	b := make([]byte, metaSize)
	le := binary.LittleEndian
	copy(b, indexMagic)
	le.PutUint32(b[8:], indexVersion)
	copy(b[16:], m.uuid[:])
	for i, v := range []uint64{m.formatNonce, m.inc, m.nonce, m.nextInc, m.nextNonce} {
		le.PutUint64(b[32+i*8:], v)
	}
	return b
}

func decodeMeta(b []byte) (m meta, err error) {
	le := binary.LittleEndian
	if len(b) < 16 || string(b[:8]) != indexMagic {
		return m, errs.New(errs.Corrupt, "store: the index folder holds no index of a drive")
	}
	if v := le.Uint32(b[8:]); v != indexVersion {
		return m, errs.New(errs.Version,
			"store: the index has format version %d; this build reads %d", v, indexVersion)
	}
	if len(b) != metaSize || !allZero(b[12:16]) || !allZero(b[72:]) {
		return m, errs.New(errs.Corrupt, "store: the index's first record cannot be")
	}
	m.uuid = [16]byte(b[16:32])
	for i, p := range []*uint64{&m.formatNonce, &m.inc, &m.nonce, &m.nextInc, &m.nextNonce} {
		*p = le.Uint64(b[32+i*8:])
	}
	return m, nil
}

// fragRecord is what the index knows of a fragment:
//
//	0 version u8 = 1   1 count of extents u8   2 class u8   3 zero   4 payload length u32
//	8 checksum of the fragment u64   16 epoch u64   24 time i64   32 count x (start u64, blocks u32)
type fragRecord struct {
	runs  []run
	class layout.Class
	len   uint32
	sum   uint64
	epoch ids.Epoch
	time  int64
}

func (r *fragRecord) append(b []byte) []byte {
	le := binary.LittleEndian
	b = append(b, recordVersion, byte(len(r.runs)), byte(r.class), 0)
	b = le.AppendUint32(b, r.len)
	b = le.AppendUint64(b, r.sum)
	b = le.AppendUint64(b, uint64(r.epoch))
	b = le.AppendUint64(b, uint64(r.time))
	for _, e := range r.runs {
		b = le.AppendUint64(b, e.start)
		b = le.AppendUint32(b, uint32(e.n))
	}
	return b
}

func decodeFragRecord(b []byte) (r fragRecord, err error) {
	le := binary.LittleEndian
	if len(b) < 44 || b[0] != recordVersion || len(b) != 32+int(b[1])*12 || b[1] > maxExtents || b[3] != 0 {
		return r, errs.New(errs.Corrupt, "store: the index has a fragment record that cannot be")
	}
	r.class = layout.Class(b[2])
	r.len, r.sum = le.Uint32(b[4:]), le.Uint64(b[8:])
	r.epoch, r.time = ids.Epoch(le.Uint64(b[16:])), int64(le.Uint64(b[24:]))
	r.runs = make([]run, b[1])
	for i := range r.runs {
		e := b[32+i*12:]
		r.runs[i] = run{le.Uint64(e), uint64(le.Uint32(e[8:]))}
	}
	if r.len == 0 || r.len > MaxPayload || runsLen(r.runs)<<blockShift != uint64(r.len)+blockSize {
		return r, errs.New(errs.Corrupt, "store: the index has a fragment record of a wrong length")
	}
	return r, nil
}

func encodeRest(rs []run, commit uint64) []byte {
	b := binary.LittleEndian.AppendUint64([]byte{restVersion, byte(len(rs)), 0, 0}, commit)
	for _, r := range rs {
		b = binary.LittleEndian.AppendUint64(b, r.start)
		b = binary.LittleEndian.AppendUint64(b, r.n)
	}
	return b
}

// decodeRest answers the last commit there can be for a record of version 1: it may be of an older build that was
// taken back for a while, and younger than every mark.
func decodeRest(b []byte) (rs []run, commit uint64, err error) {
	wrong := errs.New(errs.Corrupt, "store: the index has a record of resting space that cannot be")
	if len(b) < 4 || b[1] == 0 || b[2] != 0 || b[3] != 0 {
		return nil, 0, wrong
	}
	version, rs, commit, b := b[0], make([]run, b[1]), uint64(math.MaxUint64), b[4:]
	if version == restVersion && len(b) >= 8 {
		commit, b = binary.LittleEndian.Uint64(b), b[8:]
	} else if version != recordVersion {
		return nil, 0, wrong
	}
	if len(b) != 16*len(rs) {
		return nil, 0, wrong
	}
	for i := range rs {
		rs[i] = run{binary.LittleEndian.Uint64(b[i*16:]), binary.LittleEndian.Uint64(b[i*16+8:])}
	}
	return rs, commit, nil
}

func fragDBKey(k layout.FragKey) []byte { return k.Append([]byte{keyFrag}) }

func restDBKey(start uint64) []byte { return binary.BigEndian.AppendUint64([]byte{keyRest}, start) }

func epochDBKey(ns ids.NamespaceID) []byte {
	return binary.BigEndian.AppendUint64([]byte{keyEpoch}, uint64(ns))
}

// index is Pebble with its ways of failing turned into errors.
type index struct {
	db    *pebble.DB
	lock  *pebble.Lock
	cache *pebble.Cache // ours alone, or nil
	log   indexLog
	fs    *logFS
}

// err is why the index can no longer be believed, or nil.
func (ix *index) err() error {
	if f := ix.log.fatal.Load(); f != nil {
		return errs.New(errs.IO, "store: the index has failed: %s", *f)
	}
	if err := ix.fs.err(); err != nil {
		return errs.Wrap(errs.IO, err, "store: the index cannot write its log")
	}
	return nil
}

// indexLog keeps Pebble quiet and remembers what it calls fatal. Pebble's own logger ends the process
// there; with one that returns, the failed commit would be reported as done, so commit asks for it.
type indexLog struct {
	fatal  atomic.Pointer[string]
	rotten atomic.Bool // what was fatal is damage on the disk
}

func (l *indexLog) Infof(string, ...any)  {}
func (l *indexLog) Errorf(string, ...any) {}
func (l *indexLog) Fatalf(format string, args ...any) {
	msg := strings.SplitN(fmt.Sprintf(format, args...), "\n", 2)[0]
	l.fatal.CompareAndSwap(nil, &msg)
}

// memTablesMax and l0StopMax are where Pebble lets commits wait until tables are written. Where tables cannot be
// written that is for ever, in the middle of a commit, which nobody can call back; so it is far above what a
// healthy index reaches, and one that cannot write them fails before it.
const (
	memTablesMax = 64
	l0StopMax    = 256
)

// background is told that a table could not be written. Pebble tries again at once and for ever. If it is for want
// of space, that may come back; all else ends the index, as an error of its log does.
func (l *indexLog) background(err error) {
	if !errors.Is(err, syscall.ENOSPC) {
		l.Fatalf("%v", err)
	}
}

// notInUse refuses an index that somebody has open.
func notInUse(fs vfs.FS, dir string) error {
	lock, err := pebble.LockDirectory(dir, fs)
	if err != nil {
		return errs.Wrap(errs.Busy, err, "store: the index in %s is in use", dir)
	}
	return lock.Close()
}

// makeDir makes dir and what is missing above it, and makes their names durable: Pebble syncs what is
// in its folder, nobody else the folder's own name.
func makeDir(fs vfs.FS, dir string) error {
	var parents []string
	for d := dir; ; {
		if _, err := fs.Stat(d); err == nil || fs.PathDir(d) == d {
			break
		}
		d = fs.PathDir(d)
		parents = append(parents, d)
	}
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, d := range parents {
		f, err := fs.OpenDir(d)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// openIndex opens the index in o.Dir; create demands that there is none, else that there is one.
func openIndex(o *Options, create bool) (ix *index, err error) {
	fs, dir, cache := o.FS, o.Dir, o.Cache
	if _, err := fs.Stat(dir); err != nil && !create {
		return nil, o.noIndex() // and none is made, not even an empty folder
	}
	if err := makeDir(fs, dir); err != nil {
		return nil, errs.Wrap(errs.IO, err, "store: cannot make the index folder %s", dir)
	}
	lock, err := pebble.LockDirectory(dir, fs)
	if err != nil {
		return nil, errs.Wrap(errs.Busy, err, "store: the index in %s is in use", dir)
	}
	ix = &index{lock: lock, fs: &logFS{FS: fs}}
	if cache == nil {
		ix.cache = pebble.NewCache(2 << 20)
		cache = ix.cache
	}
	opts := &pebble.Options{
		FS:       ix.fs,
		Lock:     lock,
		ReadOnly: o.ReadOnly,
		Cache:    cache,
		Logger:   &ix.log,
		EventListener: &pebble.EventListener{DataCorruption: func(i pebble.DataCorruptionInfo) {
			ix.log.rotten.Store(true)
			ix.log.Fatalf("%s", i)
		}, BackgroundError: ix.log.background},
		FormatMajorVersion: pebbleFormat,
		// Three kilobytes of keys per gigabyte stored: small tables bound the RAM and the replay.
		MemTableSize:                uint64(o.memTable),
		MemTableStopWritesThreshold: memTablesMax,
		L0StopWritesThreshold:       l0StopMax,
		MaxOpenFiles:                64,
		ErrorIfExists:               create,
		ErrorIfNotExists:            !create,
	}
	// Pebble's own scheduler looks ten times a second whether a compaction may run, in every database: with
	// eight of them an idle process would use 1 % of a core. This one grants when one ends.
	opts.Experimental.CompactionScheduler = pebble.NewConcurrencyLimitSchedulerWithNoPeriodicGrantingForTest()
	// Rot in Pebble's files comes out as an error nearly everywhere; what is left panics here, while
	// nobody else knows this index yet.
	defer func() {
		if p := recover(); p != nil {
			ix.lock.Close()
			ix, err = nil, errs.New(errs.Corrupt, "store: the index in %s cannot be read (%v): %s", dir, p, o.rebuildHint())
		}
	}()
	ix.db, err = pebble.Open(dir, opts)
	if err == nil {
		if err = ix.err(); err != nil {
			ix.db.Close()
		}
	}
	if err != nil {
		ix.lock.Close()
		return nil, ix.openError(o, err)
	}
	return ix, nil
}

// noIndex and what follows it are sentences for whoever looks after the drive: what is wrong, and the
// command that sets it right.
func (o *Options) noIndex() error {
	return errs.New(errs.Absent, "store: there is no index of ASD %d in %s: %s", o.ID, o.Dir, o.rebuildHint())
}

func (o *Options) rebuildHint() string {
	return fmt.Sprintf("`vstor asd rebuild-index %d` makes one from the drive, while nothing runs", o.ID)
}

func (ix *index) openError(o *Options, err error) error {
	dir := o.Dir
	if ix.cache != nil {
		ix.cache.Unref()
	}
	switch {
	case isError(err, pebble.ErrDBDoesNotExist):
		return o.noIndex()
	case isError(err, pebble.ErrDBAlreadyExists):
		return errs.New(errs.Exists, "store: there is an index in %s already", dir)
	case !ix.log.rotten.Load() && (ix.err() != nil || deviceError(err)):
		return errs.Wrap(errs.IO, err, "store: cannot open the index in %s", dir)
	}
	return errs.Wrap(errs.Corrupt, err, "store: the index in %s is damaged: %s", dir, o.rebuildHint())
}

// deviceError tells what the machine refused from what Pebble found to be wrong. Pebble marks only a
// part of the latter as corruption: a file that is missing, or a name that it cannot parse, it does not.
func deviceError(err error) bool {
	var no syscall.Errno
	return errors.As(err, &no) && no != syscall.ENOENT && !pebble.IsCorruptionError(err)
}

// commit applies a batch; synced, it is durable when commit returns. After an error nobody knows
// whether it was applied.
func (ix *index) commit(b *pebble.Batch, sync bool) error {
	wo := pebble.NoSync
	if sync {
		wo = pebble.Sync
	}
	if err := b.Commit(wo); err != nil {
		return errs.Wrap(errs.IO, err, "store: the index cannot commit")
	}
	return ix.err()
}

func (ix *index) setMeta(m *meta) error {
	b := ix.db.NewBatch()
	defer b.Close()
	if err := b.Set([]byte{keyMeta}, m.encode(), nil); err != nil {
		return errs.Wrap(errs.IO, err, "store: the index cannot take its first record")
	}
	return ix.commit(b, true)
}

// close releases the index. An error says that the index must not be taken for complete.
func (ix *index) close() error {
	err := ix.db.Close()
	if e := ix.err(); err == nil {
		err = e
	}
	if ix.cache != nil {
		ix.cache.Unref()
	}
	if e := ix.lock.Close(); err == nil {
		err = e
	}
	if err != nil {
		return errs.Wrap(errs.IO, err, "store: cannot close the index")
	}
	return nil
}
