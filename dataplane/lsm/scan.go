package lsm

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/dataplane/errs"
)

// Mark is a place in a series of manifests: all before it was durable once.
type Mark struct {
	Num uint64 // of the manifest
	Len uint64 // bytes of it
}

// Before reports whether m lies before x, so that what was durable at x is lost.
func (m Mark) Before(x Mark) bool { return m.Num < x.Num || m.Num == x.Num && m.Len < x.Len }

// Logs of Pebble are chunks in blocks of 32 KiB, little endian; manifests are of the short form:
//
//	byte   0         4         6       7            11              19
//	       checksum  length    type    log number   synced offset   payload
//	       u32       u16       u8      u32          u64             length bytes
//	                           1-4     -            -               manifest; header of 7 bytes
//	                           5-8     +            -               log, older form; 11
//	                           9-12    +            +               log; 19
//
// checksum is CRC-32C of all from type on, turned by 17 bits and moved by a constant. The type says
// besides whether the chunk is a record (1), or its first, middle or last part. A chunk with checksum and
// length zero ends the log, as do zeros.
const (
	chunkBlock   = 32 << 10
	shortHeader  = 7
	recycleSize  = 11
	syncedHeader = 19
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func chunkSum(b []byte) uint32 {
	c := crc32.Update(0, castagnoli, b)
	return (c>>15 | c<<17) + 0xa282ead8
}

// chunk is a chunk that passed its checksum.
type chunk struct {
	size   int  // with header
	starts bool // a record
	synced uint64
}

// parseChunk reads a chunk at the start of b, the rest of its block. log is the number of the log, or -1 for a
// manifest.
func parseChunk(b []byte, log int64) (chunk, bool) {
	if len(b) < shortHeader {
		return chunk{}, false
	}
	kind, header := b[6], 0
	switch {
	case kind >= 1 && kind <= 4 && log < 0:
		header = shortHeader
	case kind >= 5 && kind <= 8 && log >= 0:
		header = recycleSize
	case kind >= 9 && kind <= 12 && log >= 0:
		header = syncedHeader
	default:
		return chunk{}, false
	}
	le := binary.LittleEndian
	c := chunk{size: header + int(le.Uint16(b[4:])), starts: (kind-1)%4 < 2}
	if c.size > len(b) || log >= 0 && le.Uint32(b[7:]) != uint32(log) || chunkSum(b[6:c.size]) != le.Uint32(b) {
		return chunk{}, false
	}
	if header == syncedHeader {
		c.synced = le.Uint64(b[11:])
	}
	return c, true
}

// scanLog walks a log or manifest. end is where its first chunk that is none begins. rot: a later chunk is
// proof that there was a good one.
//
// A log's chunk names the offset up to which the log had been synced. Pebble looks at that too, but only in the
// blocks behind the damaged one: most logs of ours are shorter than a block. An edit of a manifest is
// synced before the next begins, so a next one is proof enough.
func scanLog(b []byte, log int64) (end int, rot bool) {
	for end < len(b) {
		rest := b[end:min(len(b), end/chunkBlock*chunkBlock+chunkBlock)]
		if c, ok := parseChunk(rest, log); ok {
			end += c.size
			continue
		}
		if len(rest) < syncedHeader && end+len(rest) < len(b) && zeros(rest) {
			end += len(rest)
			continue
		}
		break
	}
	for at := end + 1; at < len(b); at++ {
		rest := b[at:min(len(b), at/chunkBlock*chunkBlock+chunkBlock)]
		c, ok := parseChunk(rest, log)
		if ok && (log < 0 && c.starts || log >= 0 && c.synced > uint64(end)) {
			return end, true
		}
	}
	return end, false
}

func zeros(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

// Inspect looks at the logs and the manifest of a database that is not open, and changes nothing. It returns how
// far the manifest reaches; a zero Mark if there is no database. What it finds in logs counts only if
// Pebble reads them: see LogRot. Errors: Corrupt where an edit that was durable is damaged, IO.
func (g *Guard) Inspect() (Mark, error) {
	desc, err := pebble.Peek(g.opts.Dir, g.FS)
	if err != nil || !desc.Exists {
		return Mark{}, nil // opening says what is wrong
	}
	b, err := readAll(g.FS, desc.ManifestFilename)
	if err != nil {
		return Mark{}, nil
	}
	num, _ := strconv.ParseUint(strings.TrimPrefix(filepath.Base(desc.ManifestFilename), manifestPrefix), 10, 64)
	end, rot := scanLog(b, -1)
	if rot {
		return Mark{}, g.rotten(desc.ManifestFilename, end)
	}
	return Mark{Num: num, Len: uint64(end)}, g.inspectLogs()
}

func (g *Guard) inspectLogs() error {
	names, err := g.FS.List(g.opts.Dir)
	if err != nil {
		return errs.Wrap(errs.IO, err, "%s: cannot look into %s", g.opts.Name, g.opts.Dir)
	}
	g.logs.Lock()
	defer g.logs.Unlock()
	g.logs.rotten, g.logs.read = map[string]int{}, map[string]bool{}
	for _, name := range names {
		log, ok := strings.CutSuffix(name, logSuffix)
		n, err := strconv.ParseUint(log, 10, 63)
		if !ok || err != nil {
			continue
		}
		b, err := readAll(g.FS, g.FS.PathJoin(g.opts.Dir, name))
		if err != nil {
			return errs.Wrap(errs.IO, err, "%s: cannot read its log %s", g.opts.Name, name)
		}
		if end, rot := scanLog(b, int64(n)); rot {
			g.logs.rotten[name] = end
		}
	}
	return nil
}

// LogRot is an error of kind Corrupt if a log that Pebble has read since Inspect has lost a record that was
// durable. Logs that it did not read are done with.
func (g *Guard) LogRot() error {
	g.logs.Lock()
	defer g.logs.Unlock()
	for name, end := range g.logs.rotten {
		if g.logs.read[name] {
			return g.rotten(g.FS.PathJoin(g.opts.Dir, name), end)
		}
	}
	return nil
}

func (g *Guard) rotten(path string, off int) error {
	g.corrupt.Add(1)
	return Damaged(g.opts.Name, g.opts.Dir, path, errs.New(errs.Corrupt, "the record at byte %d, and more behind it", off))
}

func readAll(fs vfs.FS, path string) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// DropOptions removes the files in which Pebble keeps its settings. They are ours, and the same at every
// start; a damaged one could only keep the database from opening. Not while it is open.
func (g *Guard) DropOptions() {
	names, err := g.FS.List(g.opts.Dir)
	if err != nil {
		return
	}
	for _, name := range names {
		if strings.HasPrefix(name, "OPTIONS-") {
			_ = g.FS.Remove(g.FS.PathJoin(g.opts.Dir, name))
		}
	}
}
