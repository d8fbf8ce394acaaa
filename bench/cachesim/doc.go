// Package cachesim replays traces of block reads against caches that hold no data, and compares how often they hit.
//
//	trace.go     a trace: which blocks of which locations are read, in order
//	generate.go  traces made up: hot spots, scans beside them, loops, working sets that move
//	csv.go       public traces: MSR Cambridge, Alibaba and Tencent cloud block storage
//	lru.go arc.go s3fifo.go   what others do
//	ours.go      vstor's own policy: not a copy, package blockcache/policy itself
//	run.go       all of them over all sizes; table.go and svg.go print it
//
// What is compared is the share of 4 KiB blocks found, at equal memory: an entry is charged with what it holds and
// with what is noted about it. A cache of blocks fills only what was asked for; a cache of whole fragments (4 MiB)
// fills all of the fragment, and what that reads from the backend beyond what was asked is told beside it. LRU, ARC
// and S3-FIFO take each read that finds the entry for a hit, as their authors' caches do; ours does not, for the
// reason that blockcache/policy gives.
//
// A vDisk's blocks are cached by location, so a write in a trace moves the block to a place where it was not cached.
package cachesim
