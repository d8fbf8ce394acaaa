// Package meta keeps what a deployment must agree on: manifests, owners, ranges of numbers. A Store is an
// ordered map of small values with transactions that assert before they change; pebble embedded on
// one machine, etcd for clusters. Everything here blocks: never call it on a loop.
package meta

import (
	"bytes"
	"context"
	"fmt"

	"vstor/dataplane/errs"
)

// Bounds of what a Store takes; etcd's defaults are the tightest.
const (
	KeyMax   = 1024          // bytes of a key; at least 1
	ValueMax = 1 << 20       // bytes of a value
	TxnMax   = 1<<20 + 1<<18 // bytes of a transaction, keys and values together
	OpsMax   = 128           // asserts, and likewise puts and deletes, of a transaction
	ScanMax  = 10000         // entries of one Scan
)

// Version is a key's point of last change. It is never 0, and grows with every Txn that puts the key, also
// over deletion and reopening: a key that has the version you read has not changed since.
type Version uint64

// Entry is one key of a Scan.
type Entry struct {
	Key     []byte
	Value   []byte
	Version Version
}

// Store is the metadata store. Safe for concurrent use. Keys and values are copied on the way in and
// belong to the caller on the way out. What Get or Scan returned survives power loss.
type Store interface {
	// Get returns a key's value and version. Errors: Absent, and those of the machine.
	Get(ctx context.Context, key []byte) ([]byte, Version, error)
	// Scan returns up to limit entries (ScanMax at most) whose keys start with prefix, in order; with
	// an after, only those behind it. One Scan is a consistent view, a series of them is not.
	Scan(ctx context.Context, prefix, after []byte, limit int) ([]Entry, error)
	// Apply does all of t or nothing, and returns once it survives power loss. A failed assertion is
	// an error of kind Refused with a *Conflict as its cause. After any other error but Invalid, t may
	// have happened or not: read before trying again.
	Apply(ctx context.Context, t *Txn) error
	// Close waits for the calls under way. Later calls fail with Closed.
	Close() error
}

// AssertKind says what an Assert claims.
type AssertKind uint8

const (
	AssertAbsent AssertKind = iota
	AssertVersion
	AssertValue
)

// Assert is a claim about a key; a Txn changes nothing unless all of its claims hold.
type Assert struct {
	Kind    AssertKind
	Key     []byte
	Version Version // AssertVersion
	Value   []byte  // AssertValue
}

// Put sets a key.
type Put struct {
	Key, Value []byte
}

// Txn is a set of claims and changes. A key is changed at most once. The methods only collect; slices
// passed in must not change until Apply returned.
type Txn struct {
	Asserts []Assert
	Puts    []Put
	Deletes [][]byte // a key that is absent stays absent
}

// Absent claims that key does not exist.
func (t *Txn) Absent(key []byte) *Txn {
	t.Asserts = append(t.Asserts, Assert{Kind: AssertAbsent, Key: key})
	return t
}

// HasVersion claims that key has not changed since it was read with version v.
func (t *Txn) HasVersion(key []byte, v Version) *Txn {
	t.Asserts = append(t.Asserts, Assert{Kind: AssertVersion, Key: key, Version: v})
	return t
}

// HasValue claims that key has this value.
func (t *Txn) HasValue(key, value []byte) *Txn {
	t.Asserts = append(t.Asserts, Assert{Kind: AssertValue, Key: key, Value: value})
	return t
}

// Put sets key to value.
func (t *Txn) Put(key, value []byte) *Txn {
	t.Puts = append(t.Puts, Put{key, value})
	return t
}

// Delete removes key.
func (t *Txn) Delete(key []byte) *Txn {
	t.Deletes = append(t.Deletes, key)
	return t
}

// Conflict is the cause of an Apply that was refused: the first claim that does not hold.
type Conflict struct {
	Index  int // into Txn.Asserts
	Assert Assert
	Exists bool // whether the key exists
}

func (c *Conflict) Error() string {
	switch {
	case c.Assert.Kind == AssertAbsent:
		return fmt.Sprintf("key %q exists", c.Assert.Key)
	case !c.Exists:
		return fmt.Sprintf("key %q does not exist", c.Assert.Key)
	case c.Assert.Kind == AssertVersion:
		return fmt.Sprintf("key %q has changed since version %d", c.Assert.Key, c.Assert.Version)
	}
	return fmt.Sprintf("key %q has another value", c.Assert.Key)
}

// Holds reports whether the claim is true of a key as it is now.
func (a *Assert) Holds(exists bool, value []byte, v Version) bool {
	switch a.Kind {
	case AssertAbsent:
		return !exists
	case AssertVersion:
		return exists && v == a.Version
	case AssertValue:
		return exists && bytes.Equal(value, a.Value)
	}
	return false
}

// Validate checks the bounds. Errors: Invalid.
func (t *Txn) Validate() error {
	if len(t.Asserts) > OpsMax || len(t.Puts)+len(t.Deletes) > OpsMax {
		return errs.New(errs.Invalid, "meta: transaction of %d asserts and %d changes; %d of each at most",
			len(t.Asserts), len(t.Puts)+len(t.Deletes), OpsMax)
	}
	size := 0
	for _, a := range t.Asserts {
		size += len(a.Key) + len(a.Value)
		if err := checkKey(a.Key); err != nil {
			return err
		}
	}
	seen := make(map[string]struct{}, len(t.Puts)+len(t.Deletes))
	once := func(key []byte) error {
		if _, ok := seen[string(key)]; ok {
			return errs.New(errs.Invalid, "meta: transaction changes key %q twice", key)
		}
		seen[string(key)] = struct{}{}
		return checkKey(key)
	}
	for _, p := range t.Puts {
		size += len(p.Key) + len(p.Value)
		if len(p.Value) > ValueMax {
			return errs.New(errs.Invalid, "meta: value of %d bytes; %d at most", len(p.Value), ValueMax)
		}
		if err := once(p.Key); err != nil {
			return err
		}
	}
	for _, k := range t.Deletes {
		size += len(k)
		if err := once(k); err != nil {
			return err
		}
	}
	if size > TxnMax {
		return errs.New(errs.Invalid, "meta: transaction of %d bytes; %d at most", size, TxnMax)
	}
	return nil
}

func checkKey(key []byte) error {
	if len(key) == 0 || len(key) > KeyMax {
		return errs.New(errs.Invalid, "meta: key of %d bytes; it has between 1 and %d", len(key), KeyMax)
	}
	return nil
}
