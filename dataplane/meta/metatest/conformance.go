// Package metatest is the suite that every implementation of meta.Store passes.
package metatest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"vstor/dataplane/errs"
	"vstor/dataplane/meta"
)

// Run checks one implementation. open gives a new, empty Store, and a function that closes it and
// opens the same one again.
func Run(t *testing.T, open func(t testing.TB) (s meta.Store, reopen func() meta.Store)) {
	for name, f := range map[string]func(*testing.T, meta.Store, func() meta.Store){
		"Basics": basics, "Asserts": asserts, "Atomic": atomic, "Scan": scan, "Bounds": bounds,
		"VersionsNeverReturn": versions, "Counters": counters, "Closed": closed, "Model": model,
	} {
		t.Run(name, func(t *testing.T) {
			s, reopen := open(t)
			f(t, s, reopen)
		})
	}
}

var ctx = context.Background()

func key(format string, args ...any) []byte { return fmt.Appendf(nil, format, args...) }

func apply(t testing.TB, s meta.Store, txn *meta.Txn) {
	t.Helper()
	if err := s.Apply(ctx, txn); err != nil {
		t.Fatal(err)
	}
}

func basics(t *testing.T, s meta.Store, reopen func() meta.Store) {
	if _, _, err := s.Get(ctx, key("a")); errs.Of(err) != errs.Absent {
		t.Fatal(err)
	}
	k, v := key("a"), key("one")
	apply(t, s, new(meta.Txn).Put(k, v).Put(key("b"), nil))
	k[0], v[0] = 'x', 'x' // the store has its own copy
	for range 2 {
		got, ver, err := s.Get(ctx, key("a"))
		if err != nil || string(got) != "one" || ver == 0 {
			t.Fatal(string(got), ver, err)
		}
		if got, _, err := s.Get(ctx, key("b")); err != nil || len(got) != 0 {
			t.Fatal(got, err)
		}
		s = reopen()
	}
	apply(t, s, new(meta.Txn).Delete(key("a")).Delete(key("never")))
	if _, _, err := s.Get(ctx, key("a")); errs.Of(err) != errs.Absent {
		t.Fatal(err)
	}
}

func refused(t *testing.T, err error, index int) {
	t.Helper()
	var c *meta.Conflict
	if errs.Of(err) != errs.Refused || !errors.As(err, &c) || c.Index != index {
		t.Fatalf("want assertion %d refused, got %v", index, err)
	}
	if !strings.Contains(err.Error(), string(c.Assert.Key)) {
		t.Fatalf("%q does not name the key", err)
	}
}

func asserts(t *testing.T, s meta.Store, _ func() meta.Store) {
	apply(t, s, new(meta.Txn).Put(key("a"), key("1")))
	_, ver, _ := s.Get(ctx, key("a"))
	a, b := key("a"), key("b")
	refused(t, s.Apply(ctx, new(meta.Txn).Absent(a).Put(b, nil)), 0)
	refused(t, s.Apply(ctx, new(meta.Txn).Absent(b).HasVersion(a, ver+1).Put(b, nil)), 1)
	refused(t, s.Apply(ctx, new(meta.Txn).HasVersion(b, ver).Put(b, nil)), 0)
	refused(t, s.Apply(ctx, new(meta.Txn).HasVersion(b, 0).Put(b, nil)), 0)
	refused(t, s.Apply(ctx, new(meta.Txn).HasValue(a, key("1")).HasValue(a, key("2")).Put(b, nil)), 1)
	refused(t, s.Apply(ctx, new(meta.Txn).HasValue(b, nil).Put(b, nil)), 0)
	refused(t, s.Apply(ctx, new(meta.Txn).HasValue(a, key("2"))), 0)
	if _, _, err := s.Get(ctx, b); errs.Of(err) != errs.Absent {
		t.Fatal("a refused transaction changed something")
	}
	apply(t, s, new(meta.Txn).Absent(b).HasVersion(a, ver).HasValue(a, key("1")))
	apply(t, s, new(meta.Txn).Absent(b).HasVersion(a, ver).HasValue(a, key("1")).Put(b, nil).Delete(a))
	refused(t, s.Apply(ctx, new(meta.Txn).HasVersion(a, ver)), 0)
}

func atomic(t *testing.T, s meta.Store, reopen func() meta.Store) {
	txn := new(meta.Txn)
	for i := range 100 {
		txn.Put(key("k%03d", i), bytes.Repeat([]byte{byte(i)}, 1000))
	}
	apply(t, s, txn)
	s = reopen()
	got, err := s.Scan(ctx, key("k"), nil, 1000)
	if err != nil || len(got) != 100 {
		t.Fatal(len(got), err)
	}
	for _, e := range got {
		if e.Version != got[0].Version {
			t.Fatal("one transaction, two versions")
		}
	}
}

func scan(t *testing.T, s meta.Store, _ func() meta.Store) {
	for _, k := range []string{"a", "b", "b\x00", "b\xff", "b\xff\xff", "c", "\xff", "\xff\xff"} {
		apply(t, s, new(meta.Txn).Put([]byte(k), []byte(k)))
	}
	for _, c := range []struct {
		prefix, after string
		limit         int
		want          []string
	}{
		{"b", "", 10, []string{"b", "b\x00", "b\xff", "b\xff\xff"}},
		{"b", "b", 2, []string{"b\x00", "b\xff"}},
		{"b", "b\xff\xff", 10, nil},
		{"b", "a", 10, []string{"b", "b\x00", "b\xff", "b\xff\xff"}},
		{"b", "c", 10, nil},
		{"", "", 3, []string{"a", "b", "b\x00"}},
		{"", "c", 10, []string{"\xff", "\xff\xff"}},
		{"\xff", "", 10, []string{"\xff", "\xff\xff"}},
		{"d", "", 10, nil},
	} {
		got, err := s.Scan(ctx, []byte(c.prefix), []byte(c.after), c.limit)
		if err != nil || len(got) != len(c.want) {
			t.Fatalf("%q after %q: %v %v", c.prefix, c.after, got, err)
		}
		for i, e := range got {
			if string(e.Key) != c.want[i] || string(e.Value) != c.want[i] || e.Version == 0 {
				t.Fatalf("%q after %q: entry %d is %q", c.prefix, c.after, i, e.Key)
			}
		}
	}
}

func bounds(t *testing.T, s meta.Store, _ func() meta.Store) {
	big := make([]byte, meta.ValueMax)
	long := bytes.Repeat([]byte("k"), meta.KeyMax)
	apply(t, s, new(meta.Txn).Put(long, big))
	many := new(meta.Txn)
	for i := range meta.OpsMax + 1 {
		many.Put(key("%d", i), nil)
	}
	for i, txn := range []*meta.Txn{
		new(meta.Txn).Put(nil, nil),
		new(meta.Txn).Put(append(long, 'k'), nil),
		new(meta.Txn).Put(key("a"), append(big, 0)),
		new(meta.Txn).Put(key("a"), big).Put(key("b"), big),
		new(meta.Txn).Put(key("a"), nil).Put(key("a"), nil),
		new(meta.Txn).Put(key("a"), nil).Delete(key("a")),
		new(meta.Txn).Absent(nil),
		many,
	} {
		if err := s.Apply(ctx, txn); errs.Of(err) != errs.Invalid {
			t.Errorf("transaction %d: %v", i, err)
		}
	}
	if _, _, err := s.Get(ctx, nil); errs.Of(err) != errs.Invalid {
		t.Error(err)
	}
	for _, n := range []int{-1, 0, meta.ScanMax + 1} {
		if _, err := s.Scan(ctx, nil, nil, n); errs.Of(err) != errs.Invalid {
			t.Error(n, err)
		}
	}
	done, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.Apply(done, new(meta.Txn).Put(key("z"), nil)); errs.Of(err) != errs.Canceled {
		t.Error(err)
	}
	if _, _, err := s.Get(ctx, key("z")); errs.Of(err) != errs.Absent {
		t.Error("a cancelled transaction happened")
	}
}

// A key that was deleted and put again, even with a restart between, never has an old version.
func versions(t *testing.T, s meta.Store, reopen func() meta.Store) {
	seen := map[meta.Version]bool{}
	var last meta.Version
	for i := range 20 {
		apply(t, s, new(meta.Txn).Put(key("k"), key("same")))
		_, ver, err := s.Get(ctx, key("k"))
		if err != nil || seen[ver] || ver <= last {
			t.Fatal(ver, last, err)
		}
		seen[ver], last = true, ver
		if i%2 == 0 {
			apply(t, s, new(meta.Txn).Delete(key("k")))
		}
		if i%5 == 4 {
			s = reopen()
		}
	}
}

// Counters raised by compare-and-swap from many goroutines lose nothing.
func counters(t *testing.T, s meta.Store, reopen func() meta.Store) {
	const workers, rounds = 8, 25
	var wg sync.WaitGroup
	for w := range workers {
		k := key("c%d", w%2)
		wg.Go(func() {
			for range rounds {
				if err := increment(s, k); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	s = reopen()
	for w := range 2 {
		v, _, err := s.Get(ctx, key("c%d", w))
		if err != nil || len(v) != workers/2*rounds {
			t.Fatal(len(v), err)
		}
	}
}

func increment(s meta.Store, k []byte) error {
	for {
		v, ver, err := s.Get(ctx, k)
		txn := new(meta.Txn).Put(k, append(v, '+'))
		switch errs.Of(err) {
		case errs.OK:
			txn.HasVersion(k, ver)
		case errs.Absent:
			txn.Absent(k)
		default:
			return err
		}
		if err = s.Apply(ctx, txn); errs.Of(err) != errs.Refused {
			return err
		}
	}
}

func closed(t *testing.T, s meta.Store, _ func() meta.Store) {
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, _, err := s.Get(ctx, key("a"))
	_, err2 := s.Scan(ctx, nil, nil, 1)
	for _, err := range []error{err, err2, s.Apply(ctx, new(meta.Txn).Put(key("a"), nil))} {
		if errs.Of(err) != errs.Closed {
			t.Error(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error("second Close:", err)
	}
}

// model compares random transactions with a map.
func model(t *testing.T, s meta.Store, reopen func() meta.Store) {
	rapid.Check(t, func(rt *rapid.T) {
		want := map[string]string{}
		reset(rt, s)
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			step(rt, s, want)
		}
		if rapid.IntRange(0, 9).Draw(rt, "reopen") == 0 {
			s = reopen()
		}
		got, err := s.Scan(ctx, nil, nil, meta.ScanMax)
		if err != nil || len(got) != len(want) {
			rt.Fatalf("%d entries, want %d: %v", len(got), len(want), err)
		}
		for i, k := range slices.Sorted(maps.Keys(want)) {
			if string(got[i].Key) != k || string(got[i].Value) != want[k] {
				rt.Fatalf("entry %d is %q=%q, want %q=%q", i, got[i].Key, got[i].Value, k, want[k])
			}
		}
	})
}

func reset(t *rapid.T, s meta.Store) {
	all, err := s.Scan(ctx, nil, nil, meta.ScanMax)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if err := s.Apply(ctx, new(meta.Txn).Delete(e.Key)); err != nil {
			t.Fatal(err)
		}
	}
}

func step(t *rapid.T, s meta.Store, want map[string]string) {
	keys := []string{"a", "ab", "b", "\xff"}
	txn, holds := new(meta.Txn), true
	for _, k := range keys {
		old, exists := want[k]
		switch rapid.IntRange(0, 5).Draw(t, "assert "+k) {
		case 0:
			txn.Absent([]byte(k))
			holds = holds && !exists
		case 1:
			v := rapid.SampledFrom([]string{old, "other"}).Draw(t, "value")
			txn.HasValue([]byte(k), []byte(v))
			holds = holds && exists && old == v
		}
	}
	next := maps.Clone(want)
	for _, k := range keys {
		switch rapid.IntRange(0, 3).Draw(t, "change "+k) {
		case 0:
			v := rapid.SampledFrom([]string{"", "x", "yy"}).Draw(t, "put")
			txn.Put([]byte(k), []byte(v))
			next[k] = v
		case 1:
			txn.Delete([]byte(k))
			delete(next, k)
		}
	}
	err := s.Apply(ctx, txn)
	if holds != (err == nil) || err != nil && errs.Of(err) != errs.Refused {
		t.Fatalf("asserts hold: %v, result: %v", holds, err)
	}
	if holds {
		clear(want)
		maps.Copy(want, next)
	}
}
