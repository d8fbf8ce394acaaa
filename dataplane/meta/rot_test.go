package meta

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/dataplane/errs"
)

// kindOf names the sort of a file for the table.
func kindOf(name string) string {
	switch {
	case strings.HasPrefix(name, "MANIFEST"):
		return "MANIFEST"
	case strings.HasPrefix(name, "OPTIONS"):
		return "OPTIONS"
	case strings.HasSuffix(name, ".sst"):
		return "table"
	case strings.HasSuffix(name, ".log"):
		return "log"
	case name == sealName:
		return "seal"
	}
	return ""
}

func read(t *testing.T, fs vfs.FS, path string) []byte {
	t.Helper()
	f, err := fs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t *testing.T, fs vfs.FS, path string, b []byte) {
	t.Helper()
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// fillStore makes a history that leaves tables, edits and log records, and returns what must be there.
func fillStore(t *testing.T, s *Pebble, rng *rand.Rand, want map[string]string) {
	t.Helper()
	for i := range 60 + rng.IntN(100) {
		var txn Txn
		k, v := fmt.Sprint("key", rng.IntN(40)), fmt.Sprint(i, strings.Repeat("v", rng.IntN(900)))
		if rng.IntN(4) == 0 {
			txn.Delete([]byte(k))
			delete(want, k)
		} else {
			txn.Put([]byte(k), []byte(v))
			want[k] = v
		}
		if err := s.Apply(context.Background(), &txn); err != nil {
			t.Fatal(err)
		}
		if rng.IntN(40) == 0 {
			if err := s.db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// contents is what a Store holds, or why it cannot say.
func contents(s *Pebble) (map[string]string, error) {
	got := map[string]string{}
	list, err := s.Scan(context.Background(), nil, nil, ScanMax)
	for _, e := range list {
		got[string(e.Key)] = string(e.Value)
	}
	return got, err
}

// A bit flipped anywhere, after a clean stop or a kill, is found or does no harm. Nothing older is served.
func TestRot(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	hit := map[string][2]int{} // flips, refused
	rounds, flips := 12, 40
	if testing.Short() {
		rounds = 3
	}
	for round := range rounds {
		fs := vfs.NewCrashableMem()
		want := map[string]string{}
		opts := PebbleOptions{Dir: "meta", FS: fs, MarkAfter: 50 * time.Millisecond, Log: func(string, ...any) {}}
		for range 1 + rng.IntN(3) { // lives
			s, err := OpenPebble(opts)
			if err != nil {
				t.Fatal(err)
			}
			fillStore(t, s, rng, want)
			if killed := rng.IntN(2) == 0; killed {
				for quiet := false; !quiet; time.Sleep(10 * time.Millisecond) { // the mark
					s.voucher.mu.Lock()
					quiet = s.voucher.timer == nil
					s.voucher.mu.Unlock()
				}
				fs = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng})
				opts.FS = fs
			}
			s.Close()
		}
		for range flips {
			rotOnce(t, fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rng}), opts, rng, want, hit,
				1+rng.IntN(3)*rng.IntN(2))
		}
		if t.Failed() {
			t.Fatalf("round %d of seed %d", round, seed)
		}
	}
	for k, n := range hit {
		t.Logf("%-9s %4d flips, %4d refused or answered with an error", k, n[0], n[1])
	}
}

func rotOnce(t *testing.T, fs *vfs.MemFS, opts PebbleOptions, rng *rand.Rand, want map[string]string,
	hit map[string][2]int, n int) {
	t.Helper()
	names, err := fs.List("meta")
	if err != nil {
		t.Fatal(err)
	}
	var where []string
	var kinds []string
	for range n {
		name := names[rng.IntN(len(names))]
		kind := kindOf(name)
		b := read(t, fs, "meta/"+name)
		if kind == "" || len(b) == 0 {
			continue
		}
		at := rng.IntN(len(b))
		b[at] ^= 1 << rng.IntN(8)
		write(t, fs, "meta/"+name, b)
		where = append(where, fmt.Sprintf("%s byte %d of %d", name, at, len(b)))
		kinds = append(kinds, kind)
	}
	found := 0
	opts.FS = fs
	opts.Fatal = func(err error) { fmt.Println("FATAL", where, err); os.Exit(3) }
	s, err := OpenPebble(opts)
	if err == nil {
		var got map[string]string
		if got, err = contents(s); err == nil && fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%v: other content is served: %d keys instead of %d", where, len(got), len(want))
		}
		s.Close()
	}
	if err != nil {
		found = 1
		if k := errs.Of(err); k != errs.Corrupt && k != errs.Absent || strings.ContainsAny(err.Error(), "\n") ||
			!strings.Contains(err.Error(), "fsck") {
			t.Errorf("%v: %v", where, err)
		}
	}
	for _, k := range kinds {
		h := hit[k]
		hit[k] = [2]int{h[0] + 1, h[1] + found}
	}
}
