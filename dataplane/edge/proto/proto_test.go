package proto

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/wire"
)

var rewrite = flag.Bool("rewrite", false, "rewrite testdata")

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func filled(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

// body is what a message with a body of its own has.
type body interface {
	Append([]byte) []byte
	Decode([]byte) error
}

func bodies() map[string]body {
	return map[string]body{
		"hello": &Hello{Lowest: 1, Highest: 2, Caps: 3, Deployment: [16]byte(filled(4, 16)), Opener: Opener(filled(5, 16)),
			Nonce: [32]byte(filled(6, 32)), VDisk: "db", Edge: "edge on host"},
		"welcome": &Welcome{Version: 1, Caps: 2, Nonce: [32]byte(filled(3, 32)), Proof: [32]byte(filled(4, 32))},
		"ready":   &Ready{Requests: 1, Bytes: 2 << 20, Deployment: [16]byte(filled(3, 16))},
		"open":    &Open{Mode: Exclusive, Takeover: true, Former: 7},
		"opened": &Opened{Seq: 1, Volume: 2, Size: 3 << 12, Epoch: 4, Session: 5, Lease: 20 * time.Second, Mode: Exclusive,
			ReadOnly: true},
		"renewed":  &Renewed{Seq: 1, Lease: 20 * time.Second},
		"stats":    &Stats{Reads: 1, Located: 2, Asked: 3, Cached: 4},
		"manifest": &Object{NS: 1, SCO: 2},
		"rot": &Rot{Key: layout.FragKey{Namespace: 1, SCO: 2, Put: 3, Chunk: 4, Frag: 5, Version: 6}, ASD: 7,
			Kind: errs.Corrupt},
		"invalidate": &Invalidate{Object{1, 2}, Range{3, 4}},
	}
}

func sampleLocations() *Locations {
	return &Locations{Seq: 9, Spaces: []ids.NamespaceID{7, 8}, Blocks: []layout.Location{{SCO: 1, Off: 2, NS: 1, Sum: 3},
		{Off: layout.OffTrimmed}, Asked}}
}

func sampleExtents() []block.Extent {
	return []block.Extent{{Len: 8192}, {Len: 4096, State: block.Hole | block.ReadsZero}}
}

// encoded is every format of the package as bytes.
func encoded() map[string][]byte {
	out := map[string][]byte{}
	for name, m := range bodies() {
		out[name] = m.Append(nil)
	}
	out["range"] = (&Range{Addr: 1, Count: 2}).Append(nil)
	out["write"] = (&Write{Addr: 1, Count: 2, Sums: []uint32{3, 4}}).Append(nil)
	out["read-reply"] = AppendRead(nil, 1, []uint32{2, 3})
	out["ack"] = AppendAck(nil, 1)
	out["extents"] = AppendExtents(nil, 1, sampleExtents())
	out["locations"] = sampleLocations().Append(nil)
	secret := filled(0x5e, wire.SecretSize)
	router, edge := ProveRouter(secret, out["hello"], out["welcome"]), ProveEdge(secret, out["hello"], out["welcome"])
	out["proofs"] = append(router[:], edge[:]...)
	return out
}

func TestGolden(t *testing.T) {
	for name, b := range encoded() {
		var sb strings.Builder
		for off := 0; off < len(b); off += 32 {
			sb.WriteString(hex.EncodeToString(b[off:min(off+32, len(b))]) + "\n")
		}
		path := "testdata/" + name + ".hex"
		if *rewrite {
			must(t, os.MkdirAll("testdata", 0o755))
			must(t, os.WriteFile(path, []byte(sb.String()), 0o644))
		}
		want, err := os.ReadFile(path)
		must(t, err)
		if string(want) != sb.String() {
			t.Errorf("%s: the format has changed:\n%swant\n%s", name, sb.String(), want)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	for name, m := range bodies() {
		b := m.Append([]byte("before"))[6:]
		got := reflect.New(reflect.TypeOf(m).Elem()).Interface().(body)
		if err := got.Decode(b); err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		for cut := range b {
			if err := got.Decode(b[:cut]); errs.Of(err) != errs.Corrupt {
				t.Errorf("%s: cut to %d bytes: %v", name, cut, err)
			}
		}
		if err := got.Decode(append(bytes.Clone(b), 0)); errs.Of(err) != errs.Corrupt {
			t.Errorf("%s: with a byte more: %v", name, err)
		}
	}
}

func TestData(t *testing.T) {
	all := encoded()
	w := Write{Sums: []uint32{9, 9, 9}}
	if err := w.Decode(all["write"], 8192); err != nil || w.Addr != 1 || w.Count != 2 || w.Sums[1] != 4 {
		t.Error(w, err)
	}
	if err := w.Decode(all["write"], 4096); errs.Of(err) != errs.Corrupt {
		t.Error("a write of two blocks with the data of one:", err)
	}
	seq, sums, err := DecodeRead(nil, all["read-reply"], 2)
	if err != nil || seq != 1 || !reflect.DeepEqual(sums, []uint32{2, 3}) {
		t.Error(seq, sums, err)
	}
	if _, _, err := DecodeRead(nil, all["read-reply"], 3); errs.Of(err) != errs.Corrupt {
		t.Error(err)
	}
	_, es, err := DecodeExtents(nil, all["extents"], 3)
	if err != nil || !reflect.DeepEqual(es, sampleExtents()) {
		t.Error(es, err)
	}
	if _, _, err := DecodeExtents(nil, all["extents"], 2); errs.Of(err) != errs.Corrupt {
		t.Error("extents beyond the range:", err)
	}
	var l Locations
	if err := l.Decode(all["locations"], 3); err != nil || !reflect.DeepEqual(&l, sampleLocations()) {
		t.Error(l, err)
	}
	if err := l.Decode(all["locations"], 4); errs.Of(err) != errs.Corrupt {
		t.Error("fewer locations than were asked for:", err)
	}
	bad := sampleLocations()
	bad.Blocks[0].NS = 2
	if err := l.Decode(bad.Append(nil), 3); errs.Of(err) != errs.Corrupt {
		t.Error("a location in no namespace:", err)
	}
	var r Range
	for _, tc := range []struct {
		r  Range
		ok bool
	}{{Range{1, 256}, true}, {Range{1, 257}, false}, {Range{1, 0}, false}, {Range{addrMax - 1, 1}, true},
		{Range{addrMax - 1, 2}, false}, {Range{1 << 63, 1}, false}} {
		if err := r.Decode(TRead, tc.r.Append(nil), 256); (err == nil) != tc.ok {
			t.Errorf("%+v: %v", tc.r, err)
		}
	}
}

// Each side proves a role of its own: an answer that is sent back is no proof.
func TestProofs(t *testing.T) {
	all := encoded()
	secret := filled(0x5e, wire.SecretSize)
	if ProveRouter(secret, all["hello"], all["welcome"]) == ProveEdge(secret, all["hello"], all["welcome"]) {
		t.Error("both roles have one proof")
	}
}

func frame(t uint8, body []byte, data uint32) (wire.Header, []byte) {
	return wire.Header{Type: t, ID: 1, Body: uint32(len(body)), Data: data}, body
}

func TestPrint(t *testing.T) {
	all := encoded()
	for _, tc := range []struct {
		t    uint8
		body string
		data uint32
		want string
	}{
		{THello, "hello", 0, `wants vDisk "db"`}, {TOpen, "open", 0, "exclusive, takeover true"},
		{TOpen | wire.Reply, "opened", 0, "Session:5"}, {TWrite, "write", 8192, "2 blocks from 1"},
		{TRead, "range", 0, "2 blocks from 1"}, {TRead | wire.Reply, "read-reply", 8192, "sequence 1, sums [0x2 0x3]"},
		{TFlush | wire.Reply, "ack", 0, "sequence 1"}, {TExtents | wire.Reply, "extents", 0, "Len:8192"},
		{TLocations | wire.Reply, "locations", 0, "in namespaces [7 8]"}, {TManifest, "manifest", 0, "SCO 2"},
		{TInvalidate, "invalidate", 0, "SCO 2 of namespace 1"}, {TLocations | wire.Reply, "ack", 0, "does not parse"},
		{TRenew | wire.Reply, "renewed", 0, "Lease:20s"}, {TStats, "stats", 0, "Located:2"},
		{TRot, "rot", 0, "fragment 1/2/3/4/5.6 on ASD 7: corrupt"},
		{TReady, "ready", 0, "1 requests"}, {TWelcome, "welcome", 0, "version 1"},
	} {
		h, body := frame(tc.t, all[tc.body], tc.data)
		if got := Print(&h, body); !strings.Contains(got, tc.want) {
			t.Errorf("%s: %q lacks %q", TypeName(tc.t), got, tc.want)
		}
	}
	h, body := frame(TWrite|wire.Reply, []byte("it is fenced"), 0)
	h.Arg = uint32(errs.Refused)
	if got := Print(&h, body); !strings.Contains(got, `refused: "it is fenced"`) {
		t.Error(got)
	}
}

// FuzzPrint feeds every decoder.
func FuzzPrint(f *testing.F) {
	for _, b := range encoded() {
		for typ := range names {
			f.Add(typ, b)
			f.Add(typ|wire.Reply, b)
		}
	}
	f.Fuzz(func(_ *testing.T, typ uint8, b []byte) {
		h, body := frame(typ, b, uint32(len(b)))
		Print(&h, body)
	})
}

// FuzzLocations: what decodes is what was encoded.
func FuzzLocations(f *testing.F) {
	f.Add(sampleLocations().Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var l Locations
		for n := range uint64(8) {
			if l.Decode(b, n) == nil && !bytes.Equal(l.Append(nil), b) {
				t.Fatalf("%x became %x", b, l.Append(nil))
			}
		}
	})
}
