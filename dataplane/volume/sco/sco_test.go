package sco

import (
	"encoding/hex"
	"reflect"
	"testing"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

func sample(k Kind) (Header, []Entry, []Hole) {
	h := Header{Kind: k, Volume: 7, SCO: 9, Epoch: 3, SeqLo: 100, SeqHi: 220}
	var es []Entry
	for i := range 300 {
		e := Entry{Addr: ids.BlockAddr(i * 5), Seq: ids.Seq(100 + i%100), Sum: uint32(i) * 77}
		if k == Cleaning {
			e.Old = layout.Location{SCO: 2, Off: uint16(i), NS: 1, Sum: e.Sum}
		}
		es = append(es, e)
	}
	return h, es, []Hole{{Addr: 1 << 33, Count: 1 << 32, Seq: 201, Kind: layout.OffTrimmed}}
}

func parse(head []byte) (Header, []Entry, []Hole, []uint16, error) {
	h, err := ParseHeader(head)
	if err != nil {
		return h, nil, nil, nil, err
	}
	var es []Entry
	var hs []Hole
	var offs []uint16
	err = h.ParseIndex(head[ids.BlockSize:], func(off uint16, e Entry) {
		es, offs = append(es, e), append(offs, off)
	}, func(x Hole) { hs = append(hs, x) })
	return h, es, hs, offs, err
}

func TestRoundTrip(t *testing.T) {
	for _, k := range []Kind{Write, Cleaning} {
		h, es, hs := sample(k)
		head := Head(&h, es, hs)
		h2, es2, hs2, offs, err := parse(head)
		if err != nil || h2 != h || !reflect.DeepEqual(es, es2) || !reflect.DeepEqual(hs, hs2) {
			t.Fatalf("kind %d: %v %+v", k, err, h2)
		}
		if int(offs[0]) != h.DataStart() || len(head) != h.DataStart()*ids.BlockSize {
			t.Errorf("data starts at %d, the head has %d bytes", offs[0], len(head))
		}
	}
}

func TestEveryFlipIsNoticed(t *testing.T) {
	h, es, hs := sample(Cleaning)
	head := Head(&h, es, hs)
	for i := range ids.BlockSize + h.IndexLen() {
		head[i] ^= 1 << (i % 8)
		if _, _, _, _, err := parse(head); err == nil {
			t.Fatalf("a flip in byte %d went unnoticed", i)
		}
		head[i] ^= 1 << (i % 8)
	}
}

func TestCapacity(t *testing.T) {
	for _, k := range []Kind{Write, Cleaning} {
		for _, size := range []int64{64 << 20, 1 << 20, 256 << 20, 1 << 30} {
			for _, holes := range []int{0, 1, 4096} {
				n := Capacity(k, size, holes)
				limit := min(size, MaxBlocks*ids.BlockSize)
				if n > 0 && Size(k, n, holes) > limit {
					t.Errorf("%d entries and %d holes need %d of %d bytes", n, holes, Size(k, n, holes), limit)
				}
				if Size(k, n+1, holes) <= limit {
					t.Errorf("capacity %d wastes room in %d bytes with %d holes", n, limit, holes)
				}
			}
		}
	}
}

func TestGolden(t *testing.T) {
	h := Header{Volume: 1, SCO: 2, Epoch: 3, SeqLo: 4, SeqHi: 5}
	head := Head(&h, []Entry{{Addr: 6, Seq: 5, Sum: 7}}, []Hole{{Addr: 8, Count: 9, Seq: 4, Kind: 2}})
	const wantHeader = "5653434f01000000001000000100000074f854f12b86d8e7" +
		"01000000000000000200000001000000030000000000000004000000000000000500000000000000465e5f5cb7ffd7ca"
	const wantIndex = "0600000000000000050000000000000007000000" +
		"0800000000000000090000000000000004000000000000000200000000000000"
	if got := hex.EncodeToString(head[:72]); got != wantHeader {
		t.Errorf("header\n got %s\nwant %s", got, wantHeader)
	}
	if got := hex.EncodeToString(head[ids.BlockSize:][:h.IndexLen()]); got != wantIndex {
		t.Errorf("index\n got %s\nwant %s", got, wantIndex)
	}
}

func TestForeign(t *testing.T) {
	if _, err := ParseHeader(make([]byte, 4096)); errs.Of(err) != errs.Corrupt {
		t.Errorf("zeros: %v", err)
	}
	h, es, hs := sample(Write)
	head := Head(&h, es, hs)
	head[4] = 2
	if _, err := ParseHeader(head); errs.Of(err) != errs.Version {
		t.Errorf("a later version: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	h, es, hs := sample(Write)
	f.Add(Head(&h, es, hs))
	f.Add([]byte("VSCO"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHeader(b)
		if err != nil {
			return
		}
		n := 0
		if h.ParseIndex(b[ids.BlockSize:], func(uint16, Entry) { n++ }, func(Hole) {}) == nil && n != int(h.Entries) {
			t.Errorf("%d entries of %d", n, h.Entries)
		}
	})
}
