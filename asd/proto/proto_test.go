package proto

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"

	"vstor/dataplane/errs"
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

// body is what every message with a body of its own has.
type body interface {
	Append([]byte) []byte
	Decode([]byte) error
}

var sampleKey = layout.FragKey{Namespace: 1, SCO: 2, Put: 3, Chunk: 4, Frag: 5, Version: 6}

func filled(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

func bodies() map[string]body {
	return map[string]body{
		"hello": &Hello{Lowest: 1, Highest: 2, Caps: 3, Deployment: [16]byte(filled(4, 16)),
			UUID: [16]byte(filled(5, 16)), ID: 6,
			Nonce: [32]byte(filled(7, 32)), Name: "vstor on host"},
		"welcome": &Welcome{Version: 1, Caps: 2, Nonce: [32]byte(filled(3, 32)), Proof: [32]byte(filled(4, 32))},
		"ready": &Ready{Requests: 1, ID: 2, Bytes: 3, Incarnation: 4, Deployment: [16]byte(filled(5, 16)),
			UUID: [16]byte(filled(6, 16))},
		"list": &List{Namespace: 1, After: sampleKey, Limit: 7},
		"info": &Info{ID: 1, PID: 2, UUID: [16]byte(filled(3, 16)), Deployment: [16]byte(filled(4, 16)), Incarnation: 5,
			Capacity: 6, Quarantine: 7},
		"stat":   sampleStat(),
		"drive":  &Drive{Size: 1 << 30, Device: 2, Inode: 3},
		"lease":  &Lease{Nanos: 20e9, Told: 5},
		"forget": &Forget{Told: 7, Keys: []layout.FragKey{sampleKey, {Namespace: 9}}},
	}
}

// sampleFound is the reply to an Extents for three keys.
func sampleFound() []byte {
	b := []byte{4, 0, 0, 0, 0, 0, 0, 0}
	b = AppendFound(b, errs.OK, []layout.Extent{{Off: 2 << 20, Len: 4 << 20}})
	b = AppendFound(b, errs.Absent, nil)
	return AppendFound(b, errs.OK, []layout.Extent{{Off: 1 << 40, Len: 4096}, {Off: 1 << 41, Len: 8192}})
}

func sampleStat() *Stat {
	s := &Stat{Failed: "a sync failed"}
	for i, n := range s.numbers() {
		*n = int64(100 + i)
	}
	return s
}

func samplePut() *Put {
	return &Put{Key: sampleKey, Class: layout.ClassRepair, Epoch: 7, Sums: []uint64{8, 9, 10},
		Desc: []byte("a descriptor")}
}

func sampleFragments() []Fragment {
	return []Fragment{{Key: sampleKey, Len: 4096, Sum: 2, Epoch: 3, Time: 4, Class: layout.ClassCleaning},
		{Key: layout.FragKey{Namespace: 9}, Len: 8192}}
}

// encoded is every format of the package as bytes.
func encoded() map[string][]byte {
	out := map[string][]byte{}
	for name, m := range bodies() {
		out[name] = m.Append(nil)
	}
	out["put"] = samplePut().Append(nil)
	out["read-ranges"] = AppendReadRanges(nil, []Range{{sampleKey, 4096, 8192}, {sampleKey, 0, 4096}})
	out["extents"] = AppendExtents(nil, []layout.Extent{{Off: 4096, Len: 8192}, {Off: 1 << 40, Len: 4096}})
	out["epoch"] = AppendEpoch(nil, 1, 2)
	out["keys"] = AppendKeys(nil, []layout.FragKey{sampleKey, {Namespace: 9}})
	out["found"] = sampleFound()
	for _, f := range sampleFragments() {
		out["fragments"] = f.Append(out["fragments"])
	}
	secret := filled(0x5e, SecretSize)
	asd := ProveASD(secret, out["hello"], out["welcome"])
	asker := ProveAsker(secret, out["hello"], out["welcome"])
	out["proofs"] = append(asd[:], asker[:]...)
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
		b := m.Append([]byte("before"))
		got := reflect.New(reflect.TypeOf(m).Elem()).Interface().(body)
		if err := got.Decode(b[6:]); err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		for cut := range len(b) - 6 {
			err := got.Decode(b[6 : 6+cut])
			if name == "stat" && cut >= 8+28*8 || name == "hello" && err == nil ||
				name == "forget" && cut >= 8 && (cut-8)%layout.FragKeySize == 0 {
				continue // the text, or the keys, are what is left
			}
			if errs.Of(err) != errs.Corrupt {
				t.Errorf("%s of %d bytes: %v", name, cut, err)
			}
		}
		if err := got.Decode(append(b[6:], 0)); name != "stat" && errs.Of(err) != errs.Corrupt {
			t.Errorf("%s with a byte more: %v", name, err)
		}
	}
	put := samplePut()
	var p Put
	must(t, p.Decode(put.Append(nil), 3*layout.RegionSize-4096))
	if !reflect.DeepEqual(&p, put) {
		t.Errorf("put: %+v", p)
	}
	rs, err := DecodeReadRanges(nil, encoded()["read-ranges"])
	if err != nil || len(rs) != 2 || rs[0] != (Range{sampleKey, 4096, 8192}) {
		t.Errorf("ranges: %v %v", rs, err)
	}
	es, err := DecodeExtents(nil, encoded()["extents"])
	if err != nil || len(es) != 2 || es[1] != (layout.Extent{Off: 1 << 40, Len: 4096}) {
		t.Errorf("extents: %v %v", es, err)
	}
	data := encoded()["fragments"]
	fs, err := DecodeList(nil, AppendSum(nil, xxhash.Sum64(data)), data)
	if err != nil || !reflect.DeepEqual(fs, sampleFragments()) {
		t.Errorf("list: %v %v", fs, err)
	}
}

// Numbers that an older ASD does not send are 0, and those of a newer one are left out.
func TestStatOfOtherVersions(t *testing.T) {
	old := append([]byte{2, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 16)...)
	old[8], old[16] = 7, 8
	s := Stat{Puts: 99}
	must(t, s.Decode(append(old, "why"...)))
	if s.Incarnation != 7 || s.Capacity != 8 || s.Puts != 0 || s.Failed != "why" {
		t.Errorf("%+v", s)
	}
	newer := append([]byte{40, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 320)...)
	newer[8+27*8] = 5
	must(t, s.Decode(append(newer, "why"...)))
	if s.CPUNanos != 5 || s.Failed != "why" {
		t.Errorf("%+v", s)
	}
}

func TestRefusedBodies(t *testing.T) {
	whole := samplePut().Append(nil)
	many := make([]Range, RangesMax+1)
	for i := range many {
		many[i] = Range{sampleKey, 0, 4096}
	}
	keys := sampleKey.Append(nil)
	sum := AppendSum(nil, xxhash.Sum64(keys))
	put := func(b []byte, data uint32) error { var p Put; return p.Decode(b, data) }
	ranges := func(rs ...Range) error { _, err := DecodeReadRanges(nil, AppendReadRanges(nil, rs)); return err }
	del := func(body, data []byte) error { _, err := DecodeDelete(nil, body, data); return err }
	for name, tc := range map[string]struct {
		err  error
		kind errs.Kind
	}{
		"put, region missing": {put(whole, 4*layout.RegionSize), errs.Invalid},
		"put, no blocks":      {put(whole, 3*layout.RegionSize-1), errs.Invalid},
		"put, no data":        {put(whole, 0), errs.Invalid},
		"put, cut":            {put(whole[:len(whole)-1], 3*layout.RegionSize), errs.Corrupt},
		"put, long":           {put(append(whole, 0), 3*layout.RegionSize), errs.Corrupt},
		"put, empty":          {put(nil, 4096), errs.Corrupt},
		"ranges, none":        {ranges(), errs.Corrupt},
		"ranges, many":        {ranges(many...), errs.Invalid},
		"ranges, most":        {ranges(many[1:]...), errs.OK},
		"ranges, much":        {ranges(Range{sampleKey, 0, ReadMax}, Range{sampleKey, 0, 4096}), errs.Invalid},
		"ranges, much more": {ranges(Range{sampleKey, 0, 0xfffff000}, Range{sampleKey, 0, 0xfffff000}),
			errs.Invalid},
		"ranges, empty":      {ranges(Range{sampleKey, 0, 0}), errs.Invalid},
		"ranges, odd":        {ranges(Range{sampleKey, 1, 4096}), errs.Invalid},
		"delete":             {del(sum, keys), errs.OK},
		"delete, half a key": {del(sum, keys[:10]), errs.Corrupt},
		"delete, none":       {del(sum, nil), errs.Corrupt},
		"delete, damaged":    {del(AppendSum(nil, 1), keys), errs.Corrupt},
		"delete, no sum":     {del(nil, keys), errs.Corrupt},
		"data":               {CheckData(TGet, keys, xxhash.Sum64(keys)), errs.OK},
		"data, damaged":      {CheckData(TGet, keys, 1), errs.Corrupt},
		"extents": {func() error {
			_, err := DecodeExtents(nil, make([]byte,
				13))
			return err
		}(), errs.Corrupt},
		"extents, far out": {func() error {
			_, err := DecodeExtents(nil, filled(0xff,
				12))
			return err
		}(), errs.Corrupt},
		"list, part of an entry": {func() error { _, err := DecodeList(nil, sum, keys); return err }(), errs.Corrupt},
		"list, damaged": {func() error {
			_, err := DecodeList(nil, sum, make([]byte,
				56))
			return err
		}(), errs.Corrupt},
		"keys, none":             {keysErr(nil), errs.Corrupt},
		"keys, half of one":      {keysErr(keys[:10]), errs.Corrupt},
		"keys, most":             {keysErr(make([]byte, LocateMax*20)), errs.OK},
		"keys, many":             {keysErr(make([]byte, LocateMax*20+20)), errs.Invalid},
		"drive of half a block":  {new(Drive).Decode((&Drive{Size: 2048}).Append(nil)), errs.Corrupt},
		"drive of no size":       {new(Drive).Decode((&Drive{Size: -4096}).Append(nil)), errs.Corrupt},
		"lease that began":       {new(Lease).Decode((&Lease{Nanos: -1}).Append(nil)), errs.Corrupt},
		"ready without requests": {new(Ready).Decode((&Ready{Bytes: 1}).Append(nil)), errs.Corrupt},
		"stat with many numbers": {new(Stat).Decode(filled(0xff, 100)), errs.Corrupt},
		"hello with a long name": {new(Hello).Decode(append(make([]byte, 52), append([]byte{100},
			make([]byte, 35+100)...)...)), errs.Corrupt},
		"hello cuts its own name": {new(Hello).Decode((&Hello{Name: strings.Repeat("x", 100)}).Append(nil)), errs.OK},
	} {
		if errs.Of(tc.err) != tc.kind {
			t.Errorf("%s: %v (%v)", name, tc.err, errs.Of(tc.err))
		}
	}
}

func keysErr(b []byte) error {
	_, err := DecodeKeys(nil, b)
	return err
}

// No proof serves in the other direction, for another secret, or after another exchange.
func TestProofs(t *testing.T) {
	secret, hello, welcome := filled(1, 32), filled(2, 100), filled(3, welcomeSize)
	first := ProveASD(secret, hello, welcome)
	others := [][ProofSize]byte{ProveAsker(secret, hello, welcome), ProveASD(filled(9, 32), hello, welcome),
		ProveASD(secret, hello[1:], welcome), ProveASD(secret, hello, filled(4, welcomeSize)),
		ProveASD(secret, append(hello, 3), welcome[1:])}
	for i, o := range others {
		if SameProof(first, o) {
			t.Errorf("proof %d is the same", i)
		}
	}
	proven := bytes.Clone(welcome)
	copy(proven[welcomeSize-ProofSize:], first[:])
	if !SameProof(first, ProveASD(secret, hello, proven)) {
		t.Error("the proof's own place counts")
	}
}

func TestNamesAndPrint(t *testing.T) {
	if TypeName(TPut) != "put" || TypeName(TPut|wire.Reply) != "put reply" || TypeName(77) != "type 0x4d" {
		t.Error(TypeName(TPut), TypeName(TPut|wire.Reply), TypeName(77))
	}
	e := encoded()
	for typ, b := range map[uint8][]byte{THello: e["hello"], TWelcome: e["welcome"], TReady: e["ready"],
		TPut:        e["put"],
		TReadRanges: e["read-ranges"], TLocate | wire.Reply: e["extents"], TFence: e["epoch"], TList: e["list"],
		TInfo | wire.Reply: e["info"], TStat | wire.Reply: e["stat"], TCancel: make([]byte, 8), TFault: []byte("hang"),
		TDrive: e["drive"], TExtents: e["keys"], TExtents | wire.Reply: e["found"], TLease | wire.Reply: e["lease"],
		TForget: e["forget"], TReadRanges | wire.Reply: {0, 2}} {
		h := wire.Header{Type: typ, ID: 12, Body: uint32(len(b)), Data: 3 * layout.RegionSize}
		if s := Print(&h, b, nil); !strings.HasPrefix(s, TypeName(typ)+" id 12") || strings.Contains(s, "parse") {
			t.Error(s)
		}
		if s := Print(&h, append(b, 1), nil); len(s) < 20 {
			t.Error(s)
		}
	}
	h := wire.Header{Type: TPut | wire.Reply, Arg: uint32(errs.Full)}
	if s := Print(&h, []byte("no space"), nil); !strings.HasSuffix(s, `full: "no space"`) {
		t.Error(s)
	}
}

// fuzzFound reads b as a reply to an Extents to its end: what parses is the same when it is written again.
func fuzzFound(t *testing.T, b []byte) {
	f := NewFound(b)
	again := binary.LittleEndian.AppendUint64(nil, f.Incarnation)
	for f.c.Left() > 0 {
		es, k := f.Next(nil)
		if len(es) > ExtentsMax || k == errs.OK && len(es) == 0 {
			t.Fatalf("%v with %d extents", k, len(es))
		}
		again = AppendFound(again, k, es)
	}
	if f.Done() == nil && !bytes.Equal(again, b) {
		t.Fatal("found extents changed")
	}
}

// What an ASD cannot have said of extents is an error.
func TestFoundNonsense(t *testing.T) {
	good := sampleFound()
	f := NewFound(good)
	es, k := f.Next(nil)
	if k != errs.OK || len(es) != 1 || es[0] != (layout.Extent{Off: 2 << 20, Len: 4 << 20}) || f.Incarnation != 4 {
		t.Fatal(es, k, f.Incarnation)
	}
	if es, k = f.Next(es); k != errs.Absent || len(es) != 1 {
		t.Fatal(es, k)
	}
	if es, k = f.Next(es[:0]); k != errs.OK || len(es) != 2 || f.Done() != nil {
		t.Fatal(es, k, f.Done())
	}
	one := func(k errs.Kind, es ...layout.Extent) []byte { return AppendFound(make([]byte, 8), k, es) }
	odd := one(errs.OK, layout.Extent{Off: 4096, Len: 4096})
	odd[10] = 1
	for name, b := range map[string][]byte{
		"cut": good[:23], "long": append(bytes.Clone(good), 0), "OK without any": one(errs.OK), "odd": odd,
		"absent with one": one(errs.Absent, layout.Extent{Off: 4096, Len: 4096}),
		"empty":           one(errs.OK, layout.Extent{Off: 4096}),
		"half a block":    one(errs.OK, layout.Extent{Off: 4096, Len: 8}),
		"between blocks":  one(errs.OK, layout.Extent{Off: 8, Len: 4096}),
		"far out":         one(errs.OK, layout.Extent{Off: -4096, Len: 4096}),
		"many":            one(errs.OK, make([]layout.Extent, ExtentsMax+1)...),
		"no head":         make([]byte, 7),
	} {
		f := NewFound(b)
		for f.c.Left() > 0 && !f.bad {
			f.Next(nil)
		}
		if errs.Of(f.Done()) != errs.Corrupt {
			t.Errorf("%s: %v", name, f.Done())
		}
	}
}

// FuzzBodies: no body makes a decoder fail otherwise than with an error, and what parses survives being
// written and read again.
func FuzzBodies(f *testing.F) {
	for _, b := range encoded() {
		f.Add(b, []byte(nil), uint32(4096))
	}
	f.Add(AppendSum(nil, xxhash.Sum64(encoded()["fragments"])), encoded()["fragments"], uint32(0))
	f.Fuzz(func(t *testing.T, b, data []byte, n uint32) {
		for name, m := range bodies() {
			if m.Decode(b) != nil {
				continue
			}
			again := reflect.New(reflect.TypeOf(m).Elem()).Interface().(body)
			if err := again.Decode(m.Append(nil)); name != "stat" && (err != nil ||
				!bytes.Equal(again.Append(nil), m.Append(nil))) {
				t.Fatalf("%s: %+v became %+v, %v", name, m, again, err)
			}
		}
		if ks, err := DecodeKeys(nil, b); err == nil && !bytes.Equal(AppendKeys(nil, ks), b) {
			t.Fatal("keys changed")
		}
		fuzzFound(t, b)
		var p Put
		if p.Decode(b, n) == nil && !bytes.Equal(p.Append(nil)[40:], b[40:]) {
			t.Fatal("a put changed")
		}
		if rs, err := DecodeReadRanges(nil, b); err == nil && !bytes.Equal(AppendReadRanges(nil, rs), b) {
			t.Fatal("ranges changed")
		}
		if es, err := DecodeExtents(nil, b); err == nil && !bytes.Equal(AppendExtents(nil, es), b) {
			t.Fatal("extents changed")
		}
		DecodeList(nil, b, data)
		DecodeDelete(nil, b, data)
		for typ := range 256 {
			Print(&wire.Header{Type: uint8(typ), Data: n}, b, data)
		}
	})
}
