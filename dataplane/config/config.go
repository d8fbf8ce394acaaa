package config

import (
	"time"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/units"
)

// Config is what `vstor up` is told. Sizes are in bytes. A zero ASDSize, Nodes, Memory, Loops or empty
// Policies means that Complete chooses.
type Config struct {
	Dir string // absolute path of the deployment's folder

	ASDs     int
	ASDSize  int64
	Nodes    int // failure domains; ASD i stands in node i % Nodes
	Policies []layout.Policy

	SCOSize      int64 // with its index
	FragmentSize int64 // the largest fragment
	Memory       int64 // feeds all pools
	Journal      int64

	BlockCache      int64 // bytes of RAM, a share of Memory; 0: none, Auto: what there is room for, see node
	BlockCacheSSD   int64 // bytes of its second tier, in DIR/cache; 0: none
	BlockCacheBlock int64 // bytes of a cache block
	BlockCacheQuota int64 // bytes that a vDisk may have of each tier unless it has a quota of its own; 0: no limit

	NBDListen      string // host:port, empty: unix socket only
	NBDTLS         string // TLSOff, TLSOptional or TLSRequired
	NBDTLSDir      string // absolute path of the folder with certificates and keys.psk
	NBDTLSVerify   bool   // clients must have a certificate of our authority, or know a key
	APIListen      string // host:port, empty: unix socket only
	MaxConnections int    // NBD connections at a time
	Loops          int
	LoopCPUs       []int         // empty: wherever the kernel puts them
	StallTimeout   time.Duration // 0: writes wait for ever
	Processes      bool          // a child process per ASD, for the router and for the edge
	ASDMemory      int64         // feeds the pools of each child
	EdgeMemory     int64         // feeds the pools of the edge's process
	LocationCache  int64         // of them, for where blocks lie
	NoRestart      bool          // a child that died stays dead
	LoopSpin       string        // On or Off: whether loops with much to do may do without sleep
	ShortCircuit   string        // On or Off: whether drives of child processes are read here
	ReadPreference string        // ReadQuick, ReadLocal or ASDs, see Near
	PlainIO        bool          // no io_uring
	AllowFaults    bool          // faults may be set by hand

	FragmentCache       int64 // size of the fragment cache; 0: none
	FragmentCacheOnRead bool  // it is filled by reads too
	FragmentCacheQuota  int64 // of each vDisk; 0: no limit
}

// What --nbd-tls may be. Required concerns TCP: who may open a unix socket is what its file's mode is for.
const (
	TLSOff      = "off"
	TLSOptional = "optional"
	TLSRequired = "required"
)

// What --short-circuit and --loop-spin may be.
const (
	On  = "on"
	Off = "off"
)

// Default is a Config before anybody said anything.
func Default() Config {
	return Config{
		ASDs:           6,
		SCOSize:        64 << 20,
		FragmentSize:   4 << 20,
		Journal:        1 << 30,
		BlockCache:     Auto,
		ASDMemory:      80 << 20,
		EdgeMemory:     256 << 20,
		LocationCache:  32 << 20,
		MaxConnections: 256,

		BlockCacheBlock: 64 << 10,
		StallTimeout:    60 * time.Second,
		NBDTLS:          TLSOff,
		LoopSpin:        On,
		ShortCircuit:    On,
		ReadPreference:  ReadQuick,
	}
}

// Auto is the value of a size that whoever divides the memory chooses, where 0 means something else.
const Auto = -1

// Bounds of the settings. A journal has at least two segments of 32 MiB: one fills while the other
// empties.
const (
	maxASDs       = 1024
	minASDSize    = 64 << 20
	maxASDSize    = 64 << 40
	minSCOSize    = 1 << 20
	maxSCOSize    = 256 << 20 // a location counts 2^16 blocks
	minFragment   = 64 << 10
	maxFragment   = 64 << 20
	minMemory     = 64 << 20
	minASDMemory  = 32 << 20
	minJournal    = 64 << 20
	journalUnit   = 32 << 20
	maxLoops      = 256
	minFragCache  = 16 << 20
	maxConns      = 30000    // a ring has 65536 slots
	autoASDSize   = 64 << 30 // the most an ASD takes by itself
	autoMemory    = 1 << 30
	maxFragments  = 255 // k+m: a fragment's number is a byte
	maxPolicies   = 16
	autoASDShare  = 4        // an ASD's share of the free space: 1/4 over all ASDs
	memoryShare   = 8        // 1/8 of the RAM
	minCache      = 1 << 20  // of each loop
	minCacheSSD   = 64 << 20 // of each loop
	maxCacheSSD   = 16 << 40
	minCacheBlock = 32 << 10
	maxCacheBlock = 256 << 10
	asdSizeUnit   = 1 << 20
	policyExample = "like 4,2,5,1: k data and m parity fragments, good enough once c are written, at most x on a node"
)

// DefaultPolicies are tried in order where nobody names any; those that the ASDs cannot hold are left out.
func DefaultPolicies() []layout.Policy {
	return []layout.Policy{{K: 4, M: 2, C: 5, X: 1}, {K: 2, M: 2, C: 3, X: 1}}
}

// Machine is what Complete needs to know of the machine, in bytes.
type Machine struct {
	FreeSpace int64 // of the file system that holds Dir
	RAM       int64
	Cores     int
}

// Complete fills in what was left open.
func (c *Config) Complete(m Machine) error {
	if c.ASDs < 1 || c.ASDs > maxASDs {
		return errs.New(errs.Invalid, "asds is %d; it must be from 1 to %d", c.ASDs, maxASDs)
	}
	if c.Nodes == 0 {
		c.Nodes = c.ASDs
	}
	if c.Memory == 0 {
		c.Memory = max(min(autoMemory, m.RAM/memoryShare), minMemory)
	}
	if c.Loops == 0 {
		c.Loops = max(1, m.Cores/2)
	}
	if c.ASDSize == 0 {
		share := m.FreeSpace / autoASDShare / int64(c.ASDs) / asdSizeUnit * asdSizeUnit
		c.ASDSize = min(share, autoASDSize)
		if c.ASDSize < minASDSize {
			return errs.New(errs.Full, "%s has %s free; a quarter of it gives %d ASDs %s each, and one needs at least %s: "+
				"free some space, or say --asd-size", c.Dir, units.HumanSize(m.FreeSpace), c.ASDs,
				units.HumanSize(share), units.FormatSize(minASDSize))
		}
	}
	if len(c.Policies) == 0 {
		for _, p := range DefaultPolicies() {
			if p.N() <= places(p, c.ASDs, c.Nodes) {
				c.Policies = append(c.Policies, p)
			}
		}
		if len(c.Policies) == 0 {
			return errs.New(errs.Invalid, "no default policy fits %d ASDs on %d nodes: name one with --policy k,m,c,x, "+
				"or use at least 4 nodes", c.ASDs, c.Nodes)
		}
	}
	return nil
}

// Validate checks a complete Config; it changes nothing but rounding the ASD size down to 1 MiB and the
// journal up to whole segments.
func (c *Config) Validate() error {
	ranges := []struct {
		key            string
		v, least, most int64
		size           bool
	}{
		{"asd-size", c.ASDSize, minASDSize, maxASDSize, true},
		{"sco-size", c.SCOSize, minSCOSize, maxSCOSize, true},
		{"fragment-size", c.FragmentSize, minFragment, maxFragment, true},
		{"memory", c.Memory, minMemory, 1 << 50, true},
		{"asd-memory", c.ASDMemory, minASDMemory, 1 << 50, true},
		{"journal", c.Journal, minJournal, 1 << 50, true},
		{"fragment-cache", c.FragmentCache, leastFragCache(c.FragmentCache), maxASDSize, true},
		{"max-connections", int64(c.MaxConnections), 1, maxConns, false},
		{"loops", int64(c.Loops), 1, maxLoops, false},
	}
	for _, r := range ranges {
		if r.v >= r.least && r.v <= r.most {
			continue
		}
		if r.size {
			return errs.New(errs.Invalid, "%s is %s; it must be from %s to %s", r.key, units.FormatSize(r.v),
				units.FormatSize(r.least), units.FormatSize(r.most))
		}
		return errs.New(errs.Invalid, "%s is %d; it must be from %d to %d", r.key, r.v, r.least, r.most)
	}
	for _, s := range []struct {
		key string
		v   int64
	}{{"sco-size", c.SCOSize}, {"fragment-size", c.FragmentSize}} {
		if s.v%ids.BlockSize != 0 {
			return errs.New(errs.Invalid, "%s is %d; it must be a multiple of 4k", s.key, s.v)
		}
	}
	if err := c.validateCache(); err != nil {
		return err
	}
	if c.Nodes < 1 || c.Nodes > c.ASDs {
		return errs.New(errs.Invalid, "nodes is %d; it must be from 1 to the number of ASDs, %d", c.Nodes, c.ASDs)
	}
	for _, n := range c.Near() {
		if n >= c.ASDs {
			return errs.New(errs.Invalid, "read-preference names ASD %d, and there are %d, from 0 on", n, c.ASDs)
		}
	}
	if c.StallTimeout < 0 {
		return errs.New(errs.Invalid, "stall-timeout is %v; it must be 0 (wait for ever) or more", c.StallTimeout)
	}
	if err := c.validateTLS(); err != nil {
		return err
	}
	c.round()
	return c.validatePolicies()
}

// leastFragCache is how small a cache may be: none at all is fine.
func leastFragCache(size int64) int64 {
	if size == 0 {
		return 0
	}
	return minFragCache
}

// TLSOn reports whether NBD has TLS at all.
func (c *Config) TLSOn() bool { return c.NBDTLS != TLSOff && c.NBDTLS != "" }

func (c *Config) validateCache() error {
	loops := int64(c.Loops)
	if b := c.BlockCacheBlock; b < minCacheBlock || b > maxCacheBlock || b&(b-1) != 0 {
		return errs.New(errs.Invalid, "block-cache-block is %s; it must be 32k, 64k, 128k or 256k", units.FormatSize(b))
	}
	for _, t := range []struct {
		key         string
		v, min, max int64
	}{
		{"block-cache", c.BlockCache, minCache * loops, c.Memory / 2},
		{"block-cache-ssd", c.BlockCacheSSD, minCacheSSD * loops, maxCacheSSD},
	} {
		if t.v != 0 && t.v != Auto && (t.v < t.min || t.v > t.max) {
			return errs.New(errs.Invalid, "%s is %s; it must be 0 (none), or from %s to %s", t.key, units.FormatSize(t.v),
				units.FormatSize(t.min), units.FormatSize(t.max))
		}
	}
	if c.BlockCacheSSD > 0 && c.BlockCache == 0 {
		return errs.New(errs.Invalid, "block-cache-ssd is the second tier of the block cache, and block-cache is 0: give it "+
			"some RAM")
	}
	return nil
}

func (c *Config) validateTLS() error {
	switch {
	case c.TLSOn() && c.NBDTLSDir == "":
		return errs.New(errs.Invalid, "nbd-tls is %s and nbd-tls-dir is not set: name the folder that holds "+
			"server-cert.pem, server-key.pem and ca-cert.pem, or keys.psk", c.NBDTLS)
	case !c.TLSOn() && c.NBDTLSVerify:
		return errs.New(errs.Invalid, "nbd-tls-verify-peer does nothing while nbd-tls is off: say nbd-tls required")
	}
	return nil
}

func (c *Config) round() {
	c.ASDSize = c.ASDSize / asdSizeUnit * asdSizeUnit
	c.FragmentCache -= c.FragmentCache % ids.BlockSize
	c.Journal = (c.Journal + journalUnit - 1) / journalUnit * journalUnit
}

func (c *Config) validatePolicies() error {
	if len(c.Policies) == 0 || len(c.Policies) > maxPolicies {
		return errs.New(errs.Invalid, "there are %d policies; name 1 to %d, best first", len(c.Policies), maxPolicies)
	}
	for _, p := range c.Policies {
		if err := CheckPolicy(p); err != nil {
			return err
		}
		have := places(p, c.ASDs, c.Nodes)
		if p.N() <= have {
			continue
		}
		return errs.New(errs.Invalid, "policy %s stores %d fragments with at most %d on a node; %d ASDs on %d nodes "+
			"have room for %d: use more ASDs, or a policy with fewer fragments or a larger x",
			formatPolicy(p), p.N(), p.X, c.ASDs, c.Nodes, have)
	}
	return nil
}

// CheckPolicy checks a policy by itself.
func CheckPolicy(p layout.Policy) error {
	bad := func(why string) error {
		return errs.New(errs.Invalid, "policy %s %s; a policy is k,m,c,x, %s", formatPolicy(p), why, policyExample)
	}
	switch {
	case p.K < 1:
		return bad("has no data fragment")
	case p.N() > maxFragments:
		return bad("has more than 255 fragments")
	case p.C < p.K || int(p.C) > p.N():
		return bad("has a c that is not from k to k+m")
	case p.X < 1:
		return bad("allows no fragment on a node")
	}
	return nil
}

// places is how many fragments of a chunk the nodes can take at x each; ASD i stands in node i % nodes.
func places(p layout.Policy, asds, nodes int) int {
	if nodes < 1 {
		return 0
	}
	n := 0
	for node := range min(nodes, asds) {
		n += min(int(p.X), (asds-node+nodes-1)/nodes)
	}
	return n
}
