package journal

import (
	"vstor/dataplane/buf"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
)

// windowSize is how much is read at once; the largest record fits.
const windowSize = 8 << 20

const _ = uint(windowSize - (1+headerBlocks)*BlockSize)

// window is a large aligned buffer that moves over the file.
type window struct {
	file       dio.File
	b          []byte
	base       int64 // of what is in b, in bytes
	n          int64
	unreadable uint64 // blocks
}

func newWindow(file dio.File, segment int64) (*window, error) {
	b, err := buf.AlignedBytes(int(min(segment, windowSize)))
	if err != nil {
		return nil, errs.Wrap(errs.IO, err, "journal: no memory for replay")
	}
	return &window{file: file, b: b}, nil
}

func (w *window) close() { _ = buf.FreeAligned(w.b) }

// blocks returns n blocks from block pos, valid until the next call. It reads on towards block limit,
// where the segment ends.
func (w *window) blocks(pos, n, limit uint32) ([]byte, error) {
	off, size := int64(pos)*BlockSize, int64(n)*BlockSize
	if off < w.base || off+size > w.base+w.n {
		if err := w.load(off, int64(limit-pos)*BlockSize); err != nil {
			return nil, err
		}
	}
	at := off - w.base
	return w.b[at : at+size], nil
}

func (w *window) load(off, size int64) error {
	w.base, w.n = off, min(size, int64(len(w.b)))
	b := w.b[:w.n]
	if w.file.ReadAt(b, off) == nil {
		return nil
	}
	// A sector that cannot be read is a block that fails its checksum, no more: one by one.
	good := false
	for at := int64(0); at < w.n; at += BlockSize {
		block := b[at : at+BlockSize]
		if w.file.ReadAt(block, off+at) == nil {
			good = true
			continue
		}
		clear(block)
		w.unreadable++
	}
	if good {
		return nil
	}
	// Nothing at all: if the root cannot be read, either, the drive is gone, and that is no torn tail.
	w.n = 0
	a, b2 := w.file.ReadAt(w.b[:BlockSize], RootA), w.file.ReadAt(w.b[:BlockSize], RootB)
	if a != nil && b2 != nil {
		return errs.Wrap(errs.IO, a, "journal: the drive does not answer reads")
	}
	w.n = int64(len(b))
	clear(b)
	return nil
}
