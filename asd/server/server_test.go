package server

import (
	"bytes"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"vstor/asd/proto"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
	"vstor/dataplane/wire"
)

func TestPutAndRead(t *testing.T) {
	w := newWorld(t, nil)
	p := w.dial()
	if p.p.ID != 3 || p.p.UUID != testUUID || p.p.Deployment != testDeploy || p.p.Requests != 256 ||
		p.p.Bytes != 2<<20 ||
		p.p.Incarnation == 0 {
		t.Errorf("welcomed by %+v", p.p)
	}
	sizes := []int{4096, 8192, 64 << 10, 68 << 10, 300 << 10, 1 << 20}
	for i, n := range sizes {
		must(t, p.put(i, n))
	}
	for i, n := range sizes {
		want := payload(i, n)
		a := p.call(proto.TReadRanges, rangesBody(rng(i, 0, 4096), rng(99, 0, 4096), rng(i, n-4096, 4096),
			rng(i, n-4096, 8192)), nil)
		must(t, a.err())
		kinds := []byte{byte(errs.OK), byte(errs.Absent), byte(errs.OK), byte(errs.Invalid)}
		if !bytes.Equal(a.body, kinds) || !bytes.Equal(a.data, append(bytes.Clone(want[:4096]), want[n-4096:]...)) {
			t.Errorf("fragment %d: kinds %v, %d bytes", i, a.body, len(a.data))
		}
		a = p.call(proto.TReadRanges, rangesBody(rng(i, 0, n)), nil)
		if must(t, a.err()); !bytes.Equal(a.data, want) {
			t.Errorf("fragment %d reads wrong", i)
		}
		a = p.call(proto.TGet, rangeBody(i, 100, n-200), nil)
		must(t, a.err())
		sum, err := proto.DecodeSum(proto.TGet, a.body)
		if must(t, err); !bytes.Equal(a.data, want[100:n-100]) || sum != xxhash.Sum64(a.data) {
			t.Errorf("fragment %d: verified read is wrong", i)
		}
		must(t, p.call(proto.TVerify, rangeBody(i, 0, 0), nil).err())
		a = p.call(proto.TLocate, rangeBody(i, 0, n), nil)
		must(t, a.err())
		es, err := proto.DecodeExtents(nil, a.body)
		if err != nil || len(es) != 1 || int(es[0].Len) != n {
			t.Errorf("fragment %d lies at %v, %v", i, es, err)
		}
	}
}

func TestPutAgainAndRefusals(t *testing.T) {
	w := newWorld(t, nil)
	p := w.dial()
	data := payload(1, 128<<10)
	must(t, p.put(1, 128<<10))
	must(t, p.put(1, 128<<10))
	wrong := putBody(2, data, nil)
	wrong[45] ^= 1
	long := make([]byte, 2<<20)
	for _, tc := range []struct {
		name       string
		body, data []byte
		kind       errs.Kind
	}{
		{"other content", putBody(1, payload(9, 128<<10), nil), payload(9, 128<<10), errs.Refused},
		{"damaged under way", wrong, data, errs.Corrupt},
		{"too long", putBody(2, long, nil), long, errs.Invalid},
		{"no whole blocks", putBody(2, data[:5000], nil), data[:5000], errs.Invalid},
		{"sums of another length", putBody(2, data, nil), data[:64<<10], errs.Invalid},
		{"no data", putBody(2, data[:0], nil), nil, errs.Invalid},
		{"SCO 0", func() []byte { b := putBody(2, data, nil); clear(b[8:12]); return b }(), data, errs.Invalid},
	} {
		if a := p.call(proto.TPut, tc.body, tc.data); a.Kind() != tc.kind || len(a.body) < 20 {
			t.Errorf("%s: %v", tc.name, a.err())
		}
	}
	must(t, p.call(proto.TFence, proto.AppendEpoch(nil, key(1).Namespace, 5), nil).err())
	if a := p.call(proto.TPut, putBody(4, data, nil), data); a.Kind() != errs.Refused {
		t.Errorf("an old epoch: %v", a.err())
	}
	if a := p.call(proto.TFence, proto.AppendEpoch(nil, key(1).Namespace, 4), nil); a.Kind() != errs.Refused {
		t.Errorf("a fence below: %v", a.err())
	}
	a := p.call(proto.TEpoch, proto.AppendEpoch(nil, key(1).Namespace, 0), nil)
	if ns, e, err := proto.DecodeEpoch(proto.TEpoch, a.body); err != nil || ns != key(1).Namespace || e != 5 {
		t.Errorf("epoch %d of %d, %v", e, ns, err)
	}
}

func TestListDeleteDescribe(t *testing.T) {
	w := newWorld(t, nil)
	p := w.dial()
	const n = 30
	for i := range n {
		data := payload(i, 4096)
		must(t, p.call(proto.TPut, putBody(i, data, bytes.Repeat([]byte{byte(i)}, i*10)), data).err())
	}
	for i := range n {
		a := p.call(proto.TDescribe, rangeBody(i, 0, 0), nil)
		if sum, err := proto.DecodeSum(proto.TDescribe, a.body); a.err() != nil || err != nil ||
			sum != xxhash.Sum64(a.data) ||
			!bytes.Equal(a.data, bytes.Repeat([]byte{byte(i)}, i*10)) {
			t.Errorf("descriptor %d: %v %v, %d bytes", i, a.err(), err, len(a.data))
		}
	}
	list := func(ns int, limit uint32) (all []proto.Fragment) {
		l := proto.List{Namespace: key(ns).Namespace, Limit: limit}
		if ns < 0 {
			l.Namespace = 0
		}
		for {
			a := p.call(proto.TList, l.Append(nil), nil)
			must(t, a.err())
			got, err := proto.DecodeList(nil, a.body, a.data)
			must(t, err)
			all = append(all, got...)
			if len(got) < int(limit) {
				return all
			}
			l.After = got[len(got)-1].Key
		}
	}
	for _, limit := range []uint32{1, 7, 1024} {
		all := list(-1, limit)
		if len(all) != n || !slices.IsSortedFunc(all, func(a, b proto.Fragment) int { return a.Key.Compare(b.Key) }) {
			t.Errorf("limit %d: listed %d", limit, len(all))
		}
	}
	if one := list(1, 4); len(one) != 10 || one[0].Len != 4096 || one[0].Epoch != 1 {
		t.Errorf("a namespace has %v", one)
	}
	var keys []byte
	for i := range 20 {
		keys = key(i).Append(keys)
	}
	body := proto.AppendSum(nil, xxhash.Sum64(keys))
	must(t, p.call(proto.TDelete, body, keys).err())
	must(t, p.call(proto.TDelete, body, keys).err())
	if all := list(-1, 1024); len(all) != n-20 {
		t.Errorf("%d are left", len(all))
	}
	if a := p.call(proto.TGet, rangeBody(1, 0, 4096), nil); a.Kind() != errs.Absent {
		t.Errorf("a deleted one: %v", a.err())
	}
	body[0] ^= 1
	if a := p.call(proto.TDelete, body, keys); a.Kind() != errs.Corrupt {
		t.Errorf("a damaged delete: %v", a.err())
	}
}

func TestInfoStatPing(t *testing.T) {
	w := newWorldOn(t, time.Hour, nil)
	p := w.dial()
	must(t, p.put(1, 8192))
	must(t, p.call(proto.TReadRanges, rangesBody(rng(1, 0, 8192)), nil).err())
	must(t, p.call(proto.TPing, nil, nil).err())
	var i proto.Info
	must(t, i.Decode(p.call(proto.TInfo, nil, nil).body))
	if i.ID != 3 || i.UUID != testUUID || i.Deployment != testDeploy || i.Quarantine != int64(time.Hour) ||
		i.Capacity == 0 {
		t.Errorf("info %+v", i)
	}
	var s proto.Stat
	must(t, s.Decode(p.call(proto.TStat, nil, nil).body))
	if s.Fragments != 1 || s.Puts != 1 || s.Reads != 1 || s.ReadBytes != 8192 || s.Connections != 1 || s.RSS < 1<<20 ||
		s.CPUNanos == 0 || s.Capacity != i.Capacity {
		t.Errorf("stat %+v", s)
	}
}

// Requests that this ASD does not know, or that are wrong in themselves, are answered; the connection goes on.
func TestWrongRequests(t *testing.T) {
	w := newWorld(t, nil)
	p := w.dial()
	many := make([]proto.Range, proto.RangesMax+1)
	for i := range many {
		many[i] = rng(i, 0, 4096)
	}
	keys := make([]byte, (proto.DeleteMax+1)*layout.FragKeySize)
	l := proto.List{}
	for _, tc := range []struct {
		name       string
		typ        uint8
		body, data []byte
		kind       errs.Kind
	}{
		{"unknown", 99, nil, nil, errs.Unsupported},
		{"unknown with body and data", 99, make([]byte, 100), make([]byte, 100000), errs.Unsupported},
		{"a hello", proto.THello, nil, nil, errs.Unsupported},
		{"ping with data", proto.TPing, nil, make([]byte, 10), errs.Unsupported},
		{"read with data", proto.TReadRanges, rangesBody(rng(1, 0, 4096)), make([]byte, 4096), errs.Invalid},
		{"unaligned", proto.TReadRanges, rangesBody(rng(1, 1, 4096)), nil, errs.Invalid},
		{"too many", proto.TReadRanges, rangesBody(many...), nil, errs.Invalid},
		{"too much", proto.TReadRanges, rangesBody(rng(1, 0, 1<<20), rng(1, 0, 4096)), nil, errs.Invalid},
		{"get of nothing", proto.TGet, rangeBody(1, 0, 0), nil, errs.Invalid},
		{"get of too much", proto.TGet, rangeBody(1, 0, 2<<20), nil, errs.Invalid},
		{"absent", proto.TGet, rangeBody(1, 0, 1), nil, errs.Absent},
		{"locate absent", proto.TLocate, rangeBody(1, 0, 1), nil, errs.Absent},
		{"verify absent", proto.TVerify, rangeBody(1, 0, 0), nil, errs.Absent},
		{"describe absent", proto.TDescribe, rangeBody(1, 0, 0), nil, errs.Absent},
		{"list of nothing", proto.TList, l.Append(nil), nil, errs.Invalid},
		{"delete of nothing", proto.TDelete, proto.AppendSum(nil, 0), nil, errs.Invalid},
		{"delete of too many", proto.TDelete, proto.AppendSum(nil, 0), keys, errs.Invalid},
		{"delete of half a key", proto.TDelete, proto.AppendSum(nil, 0), keys[:30], errs.Invalid},
		{"faults", proto.TFault, []byte("x"), nil, errs.Unsupported},
	} {
		if a := p.call(tc.typ, tc.body, tc.data); a.Kind() != tc.kind || len(a.body) == 0 {
			t.Errorf("%s: %v", tc.name, a.err())
		}
	}
	if w.srv.Stats().BadPeers != 0 {
		t.Error("counted as bad")
	}
}

// Bodies that do not parse end the connection.
func TestBadPeers(t *testing.T) {
	w := newWorld(t, nil)
	for i, f := range [][]byte{
		message(proto.TReadRanges, 1, 0, make([]byte, 27), nil),
		message(proto.TReadRanges, 1, 0, nil, nil),
		message(proto.TGet, 1, 0, make([]byte, 5), nil),
		message(proto.TPut, 1, 0, make([]byte, 5), make([]byte, 4096)),
		message(proto.TDelete, 1, 0, nil, make([]byte, 20)),
		message(proto.TList, 1, 0, make([]byte, 100), nil),
		message(proto.TFence, 1, 0, nil, nil),
		message(proto.TPing, 1, 0, []byte{1}, nil),
		message(proto.TCancel, 1, 0, nil, nil),
		message(proto.TPing|wire.Reply, 1, 0, nil, nil),
		bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 10),
	} {
		p := w.dial()
		_, err := p.nc.Write(f)
		must(t, err)
		if a, err := p.recv(); err == nil {
			t.Errorf("%d was answered: %s %v", i, proto.TypeName(a.Type), a.err())
		}
		if got := w.srv.Stats().BadPeers; got != uint64(i+1) {
			t.Errorf("%d: counted %d bad peers", i, got)
		}
	}
}

func TestFaults(t *testing.T) {
	var mu sync.Mutex
	var texts []string
	w := newWorld(t, func(o *Options) {
		o.AllowFaults, o.SetFaults = true, func(s string) error {
			mu.Lock()
			defer mu.Unlock()
			texts = append(texts, s)
			if s == "nonsense" {
				return errs.New(errs.Invalid, "no such fault: %s", s)
			}
			return nil
		}
	})
	p := w.dial()
	must(t, p.call(proto.TFault, []byte("hang"), nil).err())
	if a := p.call(proto.TFault, []byte("nonsense"), nil); a.Kind() != errs.Invalid ||
		!strings.Contains(string(a.body), "no such fault") {
		t.Error(a.err())
	}
	must(t, p.call(proto.TFault, nil, nil).err())
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(texts, []string{"hang", "nonsense", ""}) {
		t.Errorf("set %q", texts)
	}
}

// A read error of one range is that range's alone.
func TestReadErrors(t *testing.T) {
	w := newWorld(t, nil)
	p := w.dial()
	for i := range 3 {
		must(t, p.put(i, 8192))
	}
	es, err := proto.DecodeExtents(nil, p.call(proto.TLocate, rangeBody(1, 0, 8192), nil).body)
	must(t, err)
	w.drive.Set(dio.Rule{On: dio.Reads, Do: dio.FailIO, Chance: 1, Off: es[0].Off, Len: 4096})
	a := p.call(proto.TReadRanges, rangesBody(rng(0, 0, 8192), rng(1, 0, 8192), rng(1, 4096, 4096), rng(2,
		0, 4096)), nil)
	must(t, a.err())
	want := slices.Concat(payload(0, 8192), payload(1, 8192)[4096:], payload(2, 8192)[:4096])
	if !bytes.Equal(a.body, []byte{0, byte(errs.IO), 0, 0}) || !bytes.Equal(a.data, want) {
		t.Errorf("kinds %v, %d bytes", a.body, len(a.data))
	}
	if a := p.call(proto.TGet, rangeBody(1, 0, 8192), nil); a.Kind() != errs.IO {
		t.Errorf("verified: %v", a.err())
	}
	w.drive.Set(dio.Rule{On: dio.Reads, Do: dio.FlipBit, Chance: 1, Off: es[0].Off, Len: 4096})
	if a := p.call(proto.TGet, rangeBody(1, 0, 8192), nil); a.Kind() != errs.Corrupt {
		t.Errorf("verified: %v", a.err())
	}
	w.drive.Set(dio.Rule{On: dio.Writes, Do: dio.FailIO, Chance: 1})
	if err := p.put(9, 4096); errs.Of(err) != errs.IO {
		t.Errorf("put: %v", err)
	}
	w.drive.Set()
	must(t, p.put(10, 4096))
	var s proto.Stat
	must(t, s.Decode(p.call(proto.TStat, nil, nil).body))
	if s.ReadErrors < 2 || s.WriteErrors == 0 || s.Corrupt == 0 {
		t.Errorf("stat %+v", s)
	}
}
