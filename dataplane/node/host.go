package node

import (
	"encoding/hex"
	"os"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/dataplane/dio"
)

// Host is the machine under a Node. Tests replace it by one in memory whose power can be cut.
type Host interface {
	// FS holds the databases.
	FS() vfs.FS
	// Create makes a file of size bytes for direct IO. writeThrough: every block is written once, so
	// that no later write waits for the file system to convert an extent.
	Create(path string, size int64, writeThrough bool) (dio.File, error)
	// Open opens a file that Create made, or a raw block device.
	Open(path string) (dio.File, error)
	// SyncNeeded is false if a completed write of the file survives power loss by itself.
	SyncNeeded(path string) bool
	// BootID changes with every boot of the machine; zeros: unknown.
	BootID() [16]byte
}

// RealHost is the machine itself.
type RealHost struct{}

// FS is the operating system's.
func (RealHost) FS() vfs.FS { return vfs.Default }

// Create makes a preallocated direct-IO file.
func (RealHost) Create(path string, size int64, writeThrough bool) (dio.File, error) {
	d, err := dio.Create(path, size, dio.Options{WriteThrough: writeThrough})
	if err != nil {
		return nil, err // not a nil *Disk, which is a File
	}
	return d, nil
}

// Open opens a direct-IO file or a block device.
func (RealHost) Open(path string) (dio.File, error) {
	d, err := dio.Open(path, dio.Options{})
	if err != nil {
		return nil, err
	}
	return d, nil
}

// SyncNeeded asks the drive's queue whether it has a volatile cache.
func (RealHost) SyncNeeded(path string) bool { return !dio.WriteThroughCache(path) }

// BootID reads the kernel's.
func (RealHost) BootID() (id [16]byte) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return id
	}
	raw, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(b)), "-", ""))
	if err == nil {
		copy(id[:], raw)
	}
	return id
}
