//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// rotPlace is a range of bytes of a stopped deployment in which a bit may be flipped.
type rotPlace struct {
	kind string
	asd  int // -1: none
	path string
	off  int64
	len  int64
}

// rotPlaces walks a stopped deployment. Its big files are told apart block by block.
func rotPlaces(t *testing.T, dir string) (out []rotPlace) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		st, err := e.Info()
		if err != nil || st.Size() == 0 {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		asd := -1
		fmt.Sscanf(rel, "asd-%d/", &asd)
		name := filepath.Base(path)
		switch {
		case asd >= 0 && name == "data":
			out = append(out, blocksOf(t, path, asd, "ASD", 2<<20)...)
			for _, off := range []int64{0, 1 << 20} {
				out = append(out, rotPlace{"ASD superblock", asd, path, off, 136})
			}
		case strings.HasPrefix(name, "journal-"):
			out = append(out, blocksOf(t, path, -1, "journal", 1<<20)...)
			for _, off := range []int64{0, 512 << 10} {
				out = append(out, rotPlace{"journal root", -1, path, off, 128})
			}
		case strings.HasPrefix(rel, "cache/"):
			out = append(out, blocksOf(t, path, -1, "cache "+name, 0)...)
		case asd >= 0:
			out = append(out, rotPlace{"ASD " + databaseFile(name), asd, path, 0, st.Size()})
		case strings.HasPrefix(rel, "meta/"):
			out = append(out, rotPlace{"meta " + databaseFile(name), -1, path, 0, st.Size()})
		case strings.HasPrefix(rel, "router/map/"):
			out = append(out, rotPlace{"map " + databaseFile(name), -1, path, 0, st.Size()})
		default:
			out = append(out, rotPlace{rel, -1, path, 0, st.Size()})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func databaseFile(name string) string {
	switch {
	case strings.HasSuffix(name, ".sst"):
		return "table"
	case strings.HasSuffix(name, ".log"):
		return "log"
	case strings.HasPrefix(name, "MANIFEST"):
		return "manifest"
	case strings.HasPrefix(name, "OPTIONS"):
		return "options"
	}
	return strings.ToLower(name)
}

// blocksOf tells the blocks of a data file or journal apart: those that begin with a magic of ours are headers,
// what follows and is not zeros is payload, and zeros are free.
func blocksOf(t *testing.T, path string, asd int, what string, from int64) (out []rotPlace) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var zeros [4096]byte
	for off := from; off+4096 <= int64(len(b)); off += 4096 {
		p := rotPlace{what + " payload", asd, path, off, 4096}
		switch block := b[off : off+4096]; {
		case bytes.HasPrefix(block, []byte("vstor")):
			p.kind, p.len = what+" header", 256
		case bytes.Equal(block, zeros[:]):
			p.kind = what + " free"
		}
		if n := len(out); n > 0 && out[n-1].kind == p.kind && p.len == 4096 && out[n-1].off+out[n-1].len == off {
			out[n-1].len += 4096
			continue
		}
		out = append(out, p)
	}
	return out
}

// byKind sorts places; those of ASDs only where asds has them, if it has any.
func byKind(places []rotPlace, asds ...int) map[string][]rotPlace {
	out := map[string][]rotPlace{}
	for _, p := range places {
		if p.asd < 0 || len(asds) == 0 || slices.Contains(asds, p.asd) {
			out[p.kind] = append(out[p.kind], p)
		}
	}
	return out
}

// flip turns one bit of one of the places, each byte of them as likely as any other.
func flip(t *testing.T, places []rotPlace, rng *rand.Rand) string {
	t.Helper()
	var sum int64
	for _, p := range places {
		sum += p.len
	}
	at := rng.Int64N(sum)
	for _, p := range places {
		if at >= p.len {
			at -= p.len
			continue
		}
		f, err := os.OpenFile(p.path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var b [1]byte
		if _, err = f.ReadAt(b[:], p.off+at); err == nil {
			b[0] ^= 1 << rng.IntN(8)
			_, err = f.WriteAt(b[:], p.off+at)
		}
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%s at %d", p.path, p.off+at)
	}
	panic("no place")
}
