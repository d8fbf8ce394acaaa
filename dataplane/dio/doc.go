// Package dio is drives: files and raw devices that are read and written past the page cache, and their
// twins for tests.
//
// A File has two halves. The blocking one is for goroutines (seal, repair, recovery), the other for a
// loop, which starts an operation and is told of its end.
//
//	Disk    a preallocated file or a block device, O_DIRECT, locked against a second opener
//	Mem     the same in memory; knows what would survive a power loss, and what might
//	Faulty  wraps a File and does to it what drives do on bad days
//
// All of them pass the same suite. Large writes make room for loops on the same drive: pace.go in one process, Away
// for those of others.
package dio
