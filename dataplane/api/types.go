package api

import (
	"context"
	"time"

	"vstor/dataplane/stat"
)

// System is the deployment behind the API. Every method may be called from any goroutine, at any time
// between NewServer and the end of Close, and returns soon after its context ends. An error's Kind
// becomes the HTTP status.
type System interface {
	VDisks
	ASDs
	Health
}

// VDisks makes, shows and removes vDisks.
type VDisks interface {
	// CreateVDisk makes a vDisk. The name and size were checked; size is a multiple of 4096. When it
	// returns the vDisk survives power loss. Kinds: Exists, Full.
	CreateVDisk(ctx context.Context, name string, size int64) (VDisk, error)
	ListVDisks(ctx context.Context) ([]VDisk, error)
	// ShowVDisk; Absent if there is none of that name.
	ShowVDisk(ctx context.Context, name string) (VDisk, error)
	// SetVDisk changes what the settings name; when it returns that survives power loss, new connections are
	// judged by it, and those that it shuts out are closed. Kinds: Absent, Busy (a vDisk in use can become neither
	// read-only nor writable), Invalid.
	SetVDisk(ctx context.Context, name string, s VDiskSettings) (VDiskChange, error)
	// VDiskStats tells what its clients got; Absent.
	VDiskStats(ctx context.Context, name string) (VDiskStats, error)
	// ListCaches shows what each vDisk has of each cache, since it was opened; none where there is no cache.
	ListCaches(ctx context.Context) ([]CacheShare, error)
	// RemoveVDisk; Absent, or Busy while a client is connected.
	RemoveVDisk(ctx context.Context, name string) error
}

// VDiskSettings is the body of a PATCH of a vDisk: what it does not name stays.
type VDiskSettings struct {
	ReadOnly *bool `json:"read_only,omitempty"`
	// Allow is the new access list: networks, addresses, "unix", "cert:NAME", "psk:NAME"; or "all" alone.
	Allow []string `json:"allow,omitempty"`
	// Cache says whether anything of it is cached. Quotas bound what it has of a cache, in bytes; 0 is the deployment's
	// default.
	Cache           *bool  `json:"cache,omitempty"`
	BlockCacheQuota *int64 `json:"block_cache_quota_bytes,omitempty"`
	FragCacheQuota  *int64 `json:"fragment_cache_quota_bytes,omitempty"`
}

// None reports whether they name nothing.
func (s *VDiskSettings) None() bool {
	return s.ReadOnly == nil && s.Allow == nil && s.Cache == nil && s.BlockCacheQuota == nil && s.FragCacheQuota == nil
}

// VDiskChange is a vDisk after a change.
type VDiskChange struct {
	VDisk
	Disconnected int `json:"disconnected"` // connections that the new access list shut out
}

// CacheShare is what a vDisk has of one tier of a cache.
type CacheShare struct {
	VDisk      string `json:"vdisk"`
	Cache      string `json:"cache"`       // block-ram, block-ssd, fragments
	SizeBytes  int64  `json:"size_bytes"`  // of the whole tier, where this vDisk is
	QuotaBytes int64  `json:"quota_bytes"` // -1: no limit; 0: its cache is off
	ShareBytes int64  `json:"share_bytes"` // what it has a right to while all want theirs
	UsedBytes  int64  `json:"used_bytes"`
	Hits       uint64 `json:"hits_total"`   // blocks of 4 KiB; of fragments, reads
	Misses     uint64 `json:"misses_total"` // the same
}

// HitRatio is the fraction of blocks that were there; 0 if none were asked for.
func (c CacheShare) HitRatio() float64 {
	if c.Hits+c.Misses == 0 {
		return 0
	}
	return float64(c.Hits) / float64(c.Hits+c.Misses)
}

// ASDs shows the drives.
type ASDs interface {
	ListASDs(ctx context.Context) ([]ASD, error)
	ShowASD(ctx context.Context, id uint32) (ASD, error)
	// Faults breaks an ASD on purpose, by the rules that package faults explains; empty rules mend it. It is
	// Refused where the deployment was not started for that.
	Faults(ctx context.Context, id uint32, rules string) error
}

// FaultsRequest is the body of a POST that breaks an ASD.
type FaultsRequest struct {
	Rules string `json:"rules"`
}

// Health tells how the whole is doing.
type Health interface {
	Status(ctx context.Context) (Status, error)
	Memory(ctx context.Context) (Memory, error)
	// WriteMetrics adds all metrics of the deployment to the page. Those of the process (memory,
	// descriptors, CPU, the Go runtime) are there already.
	WriteMetrics(p *stat.Page)
	// Reload reads certificates and keys again; after an error those that were read before go on. Refused if there
	// is nothing to read.
	Reload(ctx context.Context) error
	// Ready is nil while the deployment serves IO, else the sentence that says why not.
	Ready() error
}

// VDisk is what there is to know of a vDisk.
type VDisk struct {
	Name      string    `json:"name"`
	ID        uint64    `json:"id"`
	SizeBytes int64     `json:"size_bytes"`
	URI       string    `json:"uri,omitempty"`
	Created   time.Time `json:"created,omitzero"`
	// Connections is the number of NBD connections now.
	Connections int `json:"connections"`
	// ReadOnly: new connections can only read. Allow says whom it is open to, at least one word.
	ReadOnly bool     `json:"read_only"`
	Allow    []string `json:"allow,omitempty"`
	// NoCache: nothing of it is cached. The quotas are its own; 0: the deployment's default holds.
	NoCache         bool  `json:"no_cache,omitempty"`
	BlockCacheQuota int64 `json:"block_cache_quota_bytes,omitempty"`
	FragCacheQuota  int64 `json:"fragment_cache_quota_bytes,omitempty"`
	// MappedBytes is how much of the address space holds data on the backend.
	MappedBytes int64 `json:"mapped_bytes"`
	// StoredBytes is what its objects take on the drives, parity and garbage included.
	StoredBytes int64 `json:"stored_bytes"`
	// GarbageBytes is the part of its objects that newer writes have replaced.
	GarbageBytes int64 `json:"garbage_bytes"`
	// JournalBytes is acknowledged data that is not on the backend yet.
	JournalBytes int64  `json:"journal_bytes"`
	SCOs         int64  `json:"scos"`
	ReadOps      uint64 `json:"read_ops_total"`
	WriteOps     uint64 `json:"write_ops_total"`
	ReadBytes    uint64 `json:"read_bytes_total"`
	WriteBytes   uint64 `json:"write_bytes_total"`
	// Problem says what is wrong with it, if anything.
	Problem string `json:"problem,omitempty"`
}

// States of an ASD and of a deployment.
const (
	StateUp       = "up"
	StateDown     = "down"     // an ASD that does not answer or failed
	StateFull     = "full"     // takes no client data any more
	StateDegraded = "degraded" // a deployment that serves, with less protection than it should have
)

// ASD is what there is to know of an ASD.
type ASD struct {
	ID            uint32 `json:"id"`
	UUID          string `json:"uuid"`
	Node          uint32 `json:"node"`
	State         string `json:"state"`
	Path          string `json:"path"`
	SizeBytes     int64  `json:"size_bytes"`
	UsedBytes     int64  `json:"used_bytes"`
	FreeBytes     int64  `json:"free_bytes"`
	DeferredBytes int64  `json:"quarantined_bytes"` // deleted, not reusable yet
	Fragments     int64  `json:"fragments"`
	ReadOps       uint64 `json:"read_ops_total"`
	WriteOps      uint64 `json:"write_ops_total"`
	ReadBytes     uint64 `json:"read_bytes_total"`
	WriteBytes    uint64 `json:"write_bytes_total"`
	Corrupt       uint64 `json:"corrupt_total"`
	// Of the reads, those of a process of its own: over its socket, and of its drive by the parent itself
	// (short-circuit); none of both are those of a drive in this process.
	SocketReads   uint64 `json:"socket_read_ops_total,omitempty"`
	SocketBytes   uint64 `json:"socket_read_bytes_total,omitempty"`
	ShortReads    uint64 `json:"short_circuit_read_ops_total,omitempty"`
	ShortBytes    uint64 `json:"short_circuit_read_bytes_total,omitempty"`
	Extents       int64  `json:"extents,omitempty"` // fragments whose place is known, and what that takes
	ExtentBytes   int64  `json:"extents_bytes,omitempty"`
	ExtentMisses  uint64 `json:"extents_misses_total,omitempty"`
	LateReads     uint64 `json:"short_circuit_late_total,omitempty"` // not used: their lease had ended
	LeasesDropped uint64 `json:"leases_dropped_total,omitempty"`

	PID      int    `json:"pid,omitempty"` // of its process, if it has one of its own
	Restarts int    `json:"restarts,omitempty"`
	Problem  string `json:"problem,omitempty"`
}

// Status is how a deployment is doing, all in all.
type Status struct {
	State          string   `json:"state"` // up, degraded, full or down
	Reasons        []string `json:"reasons,omitempty"`
	Version        string   `json:"version"`
	Dir            string   `json:"dir"`
	PID            int      `json:"pid"`
	UptimeSeconds  float64  `json:"uptime_seconds"`
	NBD            []string `json:"nbd"` // URIs without an export
	Policies       []string `json:"policies"`
	UsablePolicy   string   `json:"usable_policy"` // the first that can be kept now; empty: none
	VDisks         int      `json:"vdisks"`
	ASDs           int      `json:"asds"`
	ASDsUp         int      `json:"asds_up"`
	CapacityBytes  int64    `json:"capacity_bytes"` // of all ASDs, raw
	UsedBytes      int64    `json:"used_bytes"`
	GarbageBytes   int64    `json:"garbage_bytes"`
	JournalBytes   int64    `json:"journal_bytes"`      // size of all journals
	JournalUsed    int64    `json:"journal_used_bytes"` // not trimmed yet
	Connections    int      `json:"connections"`
	MaxConnections int      `json:"max_connections"`
	CorruptBlocks  uint64   `json:"corrupt_blocks_total"`
	// CorruptPlaces says where damage was met: data, cache, index, journal, map, meta.
	CorruptPlaces map[string]uint64 `json:"corrupt_places,omitempty"`
	// Warnings are sentences on what will go wrong if nobody acts; they do not count in State.
	Warnings []string `json:"warnings,omitempty"`
	TLS      *TLS     `json:"tls,omitempty"` // of NBD; absent: there is none
	// Unprotected names, in sentences, what a lost drive or machine would take with it.
	Unprotected []string `json:"unprotected"`
}

// TLS is how NBD is encrypted.
type TLS struct {
	Mode            string    `json:"mode"` // optional or required (over TCP)
	Dir             string    `json:"dir"`
	VerifyPeer      bool      `json:"verify_peer"`
	CertificateEnds time.Time `json:"certificate_ends,omitzero"` // absent: pre-shared keys only
}

// OneCopy is the sentence that Status.Unprotected holds for an embedded deployment.
const OneCopy = "journal, map and metadata have one copy, on this machine: its loss loses the vDisks, " +
	"and the loss of the drive under DIR does too"

// Memory is the sum of all pools, term by term.
type Memory struct {
	Pools []Pool `json:"pools"`
	// PoolBytes is the sum of their bounds, AllowanceBytes what the rest of the process may take.
	PoolBytes      int64 `json:"pool_bytes"`
	AllowanceBytes int64 `json:"allowance_bytes"`
	// ResidentBytes is what the kernel counts for the process now. Status may leave it 0: the server
	// fills it in.
	ResidentBytes int64 `json:"resident_bytes"`
}

// MemoryAllowance is what a process may hold beside its pools, in bytes: code, stacks, the Go heap.
const MemoryAllowance = 128 << 20

// Pool is one bounded user of memory.
type Pool struct {
	Name       string `json:"name"`
	User       string `json:"user"` // who takes from it, in words
	BoundBytes int64  `json:"bound_bytes"`
	UsedBytes  int64  `json:"used_bytes"`
}

// CreateRequest is the body of POST /api/v1/vdisks: one of Size ("10G") and SizeBytes.
type CreateRequest struct {
	Name      string `json:"name"`
	Size      string `json:"size,omitempty"`
	SizeBytes int64  `json:"size_bytes,omitempty"`
}

type errorBody struct {
	Error string `json:"error"`
	Kind  string `json:"kind"`
}

type cacheList struct {
	Caches []CacheShare `json:"caches"`
}

type vdiskList struct {
	VDisks []VDisk `json:"vdisks"`
}

type asdList struct {
	ASDs []ASD `json:"asds"`
}
