package blockcache

import (
	"math/bits"

	"vstor/blockcache/policy"
	"vstor/blockcache/ssd"
	"vstor/dataplane/block"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// Fetcher reads blocks out of objects: PRACC.
type Fetcher interface{ Fetch(*block.Fetch) }

// Options say what a Cache is made of.
type Options struct {
	// BlockBytes is the cache's block size: 32, 64, 128 or 256 KiB. Default 64 KiB.
	BlockBytes int
	// RAMBytes bounds the RAM tier: pages of the loop's pool, and what is noted about them. Required.
	RAMBytes int64
	// Below is asked for what is not here. Required.
	Below Fetcher
	// SSD is the second tier, opened with the same BlockBytes; nil = there is none. It belongs to the Cache until
	// Close has ended; the file stays the maker's.
	SSD *ssd.Tier
	// SSDReads is how many reads of the SSD may be under way; beyond it the backend is asked. Default 64.
	SSDReads int
	// Now is the time in nanoseconds. Default the loop's clock.
	Now func() int64
}

const (
	blockMin = 32 << 10
	blockMax = policy.Parts * ids.BlockSize
)

// blockBytes is the default of Options.BlockBytes.
const blockBytes = 64 << 10

func (o *Options) ensureDefaults() {
	if o.BlockBytes == 0 {
		o.BlockBytes = blockBytes
	}
	if o.SSDReads == 0 {
		o.SSDReads = 64
	}
}

func (o *Options) validate() error {
	switch {
	case o.BlockBytes < blockMin || o.BlockBytes > blockMax || o.BlockBytes&(o.BlockBytes-1) != 0:
		return errs.New(errs.Invalid, "blockcache: a block size of %d bytes; 32, 64, 128 or 256 KiB would be right",
			o.BlockBytes)
	case o.RAMBytes < blockMax || o.RAMBytes > 1<<43:
		return errs.New(errs.Invalid, "blockcache: %d bytes of RAM; at least %d would be right", o.RAMBytes, blockMax)
	case o.Below == nil:
		return errs.New(errs.Invalid, "blockcache: a cache needs a Fetcher below")
	case o.SSDReads < 1:
		return errs.New(errs.Invalid, "blockcache: %d reads of the SSD at once; 1 or more would be right", o.SSDReads)
	case o.SSD != nil && o.SSD.BlockBytes() != o.BlockBytes:
		return errs.New(errs.Invalid, "blockcache: the SSD tier has blocks of %d bytes and the RAM tier of %d; "+
			"the same would be right", o.SSD.BlockBytes(), o.BlockBytes)
	}
	return nil
}

// parts is how many 4 KiB blocks a cache block has.
func (o *Options) parts() int { return o.BlockBytes / ids.BlockSize }

// entryBytes is what an entry takes beside its pages.
func (o *Options) entryBytes() int64 { return policy.EntryBytes + 8 + 8*int64(o.parts()) }

// entries is how many entries there can be: those of one part each.
func (o *Options) entries() int { return int(o.RAMBytes/(ids.BlockSize+o.entryBytes())) + 1 }

// doorBytes is the memory of the door for an SSD tier of n bytes: two bytes for each of its cache blocks, twice
// over, rounded up.
func (o *Options) doorBytes(n int64) int64 {
	return 8 << bits.Len64(uint64(max(n/int64(o.BlockBytes)/2, 64)-1))
}

// Memory is how many bytes a Cache takes at most, its SSD tier apart (ssd.Options.Memory). The pages in it come out of
// the loop's pool, which must be larger by RAMBytes than it would be without a cache.
func (o Options) Memory(ssdBytes int64) int64 {
	o.ensureDefaults()
	n := o.RAMBytes
	if ssdBytes > 0 {
		n += o.doorBytes(ssdBytes)
	}
	return n
}
