package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vstor/asd/proto"
	"vstor/dataplane/layout"
	"vstor/dataplane/wire"
	"vstor/fragcache"
)

func dump(stdin []byte, args ...string) (int, string, string) {
	var out, errOut bytes.Buffer
	code := run(args, bytes.NewReader(stdin), &out, &errOut)
	return code, out.String(), errOut.String()
}

// frame is the first n bytes of a ping.
func frame(t *testing.T, n int) []byte {
	t.Helper()
	b := make([]byte, wire.HeaderSize)
	h := wire.Header{Type: proto.TPing, ID: 7}
	h.Seal(b)
	return b[:n]
}

// forget is a Forget of one key.
func forget(key layout.FragKey) []byte {
	m := proto.Forget{Told: 3, Keys: []layout.FragKey{key}}
	b := m.Append(make([]byte, wire.HeaderSize))
	h := wire.Header{Type: proto.TForget, Body: uint32(len(b) - wire.HeaderSize)}
	h.Seal(b)
	return b
}

// cached is the header of a fragment in the cache.
func cached() []byte {
	b := make([]byte, layout.FragHeaderSize)
	h := fragcache.Header{Key: layout.FragKey{Namespace: 1, SCO: 2, Put: 3, Chunk: 4, Frag: 5, Version: 6}, Len: 4096,
		Place: fragcache.Place{Seq: 1}, Sums: []uint64{1}}
	h.Encode(b)
	return b
}

func TestDump(t *testing.T) {
	key := layout.FragKey{Namespace: 7, SCO: 8, Put: 9, Chunk: 1, Frag: 2, Version: 3}.Append(nil)
	path := filepath.Join(t.TempDir(), "key")
	os.WriteFile(path, append([]byte("head"), key...), 0o600)
	for _, c := range []struct {
		stdin []byte
		args  string
		code  int
		says  string
	}{
		{nil, "key " + path + " 4", 0, "Namespace      7\n"},
		{key, "key -", 0, "Chunk          1\n"},
		{layout.Location{SCO: 5, Sum: 6}.Append(nil), "location -", 0, "SCO            5\n"},
		{frame(t, 32), "frames -", 0, "ping"},
		{forget(layout.FragKey{Namespace: 77}), "frames -", 0, "told of 3 deletes"},
		{frame(t, 31), "frames -", 1, "cut off after 31 bytes"},
		{frame(t, 32), "edge-frames -", 0, "open id 7"},
		{cached(), "cached -", 0, "1/2/3/4/5.6"},
		{[]byte("abc"), "hex -", 0, "|abc|"},
		{[]byte("abc"), "hex - 1", 0, "|bc|"},
		{[]byte("abc"), "location -", 1, "12 bytes"},
		{[]byte("abc"), "hex - 10", 1, "ends before offset 10"},
		{nil, "hex /nowhere", 1, "cannot open"},
		{nil, "hex", 2, "types:"},
		{nil, "what -", 2, `no type "what"`},
		{nil, "hex - x", 2, "powers of 1024"},
	} {
		code, out, errOut := dump(c.stdin, strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(out+errOut, c.says) {
			t.Errorf("vstor-dump %s: %d %q %q; want %d and %q", c.args, code, out, errOut, c.code, c.says)
		}
	}
}

// Garbage of any length is refused by every type but hex, with one line.
func TestGarbageIsRefused(t *testing.T) {
	for _, f := range formats() {
		if f.name == "hex" || f.name == "location" || f.name == "key" || f.name == "asd" || f.name == "journal" ||
			f.name == "fragcache" {
			continue
		}
		for _, n := range []int{0, 1, 16, 100, 4096, 9000} {
			code, _, errOut := dump(bytes.Repeat([]byte{0xa5}, n), f.name, "-")
			if code != 1 || strings.Count(errOut, "\n") != 1 {
				t.Errorf("%d bytes of garbage as %s: %d %q", n, f.name, code, errOut)
			}
		}
	}
}
