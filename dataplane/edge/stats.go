package edge

import "vstor/dataplane/stat"

// Stats counts what a Disk did. The loop writes, anyone reads.
type Stats struct {
	Reads, Writes, Trims, Flushes stat.Counter // requests
	Extents, Caches               stat.Counter // requests
	ReadBytes, WriteBytes         stat.Counter
	Errors                        stat.Counter // requests that ended with an error
	Corrupt                       stat.Counter // of them, because data is damaged
	Partials                      stat.Counter // writes that read and merged a block
	Waits                         stat.Counter // mutations that waited for one that overlaps
	Retries                       stat.Counter // reads that looked their range up anew
	PageWaits                     stat.Counter // reads that waited for a page of memory
	Unknown                       stat.Counter // pages of the map, told as data because they cannot be read
}
