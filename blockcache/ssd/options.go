package ssd

import (
	"vstor/blockcache/policy"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// Options say what a Tier is made of.
type Options struct {
	UUID       [16]byte // of the deployment
	BlockBytes int      // of a cache block: 32 to 256 KiB, a power of two
	// RegionBytes is what is written at once: 64 KiB to 4 MiB. Default 1 MiB. Two of them wait in RAM.
	RegionBytes int
	// Entries bounds the index. Default: a cache block for each 16 KiB of the file.
	Entries int
}

const (
	regionMin = 64 << 10
	regionMax = 4 << 20
	fileMin   = 8 // regions: one fills, one is on its way, and holes are wanted
)

func (o *Options) ensureDefaults(size int64) {
	if o.RegionBytes == 0 {
		o.RegionBytes = 1 << 20
	}
	if o.Entries == 0 {
		o.Entries = max(int(size>>14), 64)
	}
}

func (o *Options) validate(size int64) error {
	switch {
	case o.BlockBytes < 32<<10 || o.BlockBytes > policy.Parts*ids.BlockSize || o.BlockBytes&(o.BlockBytes-1) != 0:
		return errs.New(errs.Invalid, "blockcache: a block size of %d bytes; 32, 64, 128 or 256 KiB would be right",
			o.BlockBytes)
	case o.RegionBytes < regionMin || o.RegionBytes > regionMax || o.RegionBytes%pageSize != 0:
		return errs.New(errs.Invalid, "blockcache: regions of %d bytes; 64 KiB to 4 MiB would be right", o.RegionBytes)
	case size < pageSize+int64(fileMin)*int64(o.RegionBytes) || size>>12 >= 1<<32-1:
		return errs.New(errs.Invalid, "blockcache: a file of %d bytes; at least %d regions of %d bytes and at most "+
			"16 TiB would be right", size, fileMin, o.RegionBytes)
	case o.Entries < 0:
		return errs.New(errs.Invalid, "blockcache: an index of %d entries", o.Entries)
	}
	return nil
}

// Memory is how many bytes of RAM a Tier over a file of this size takes at most, the pages of the two regions
// that wait included.
func (o Options) Memory(size int64) int64 {
	o.ensureDefaults(size)
	perEntry := int64(policy.EntryBytes) + 8 + int64(o.BlockBytes/ids.BlockSize)*4
	return int64(o.Entries)*perEntry + size>>12*4 + size/int64(o.RegionBytes)*24 + 2*int64(o.RegionBytes)
}

// shape is how a file is divided.
type shape struct {
	parts   int // blocks of a cache block
	regions int
	headers int // pages of a region
	blocks  int // of a region
	region  int64
}

func (o *Options) shape(size int64) shape {
	pages := o.RegionBytes / pageSize
	s := shape{parts: o.BlockBytes / ids.BlockSize, region: int64(o.RegionBytes),
		regions: int((size - pageSize) / int64(o.RegionBytes))}
	for s.headers = 1; s.headers*RecordsMax < pages-s.headers; s.headers++ {
	}
	s.blocks = pages - s.headers
	return s
}

// offset is where a region begins in the file.
func (s *shape) offset(region int) int64 { return pageSize + int64(region)*s.region }

// kept is how many blocks the policy may promise: a tenth of the regions, and never less than three, are spare.
func (s *shape) kept() int { return (s.regions - max(3, s.regions/10)) * s.blocks }
