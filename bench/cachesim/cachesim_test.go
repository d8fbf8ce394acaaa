package cachesim

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"vstor/dataplane/errs"
)

func small(capacity int64) size { return size{capacity: capacity, part: 10, entry: 1} }

func all(t *testing.T, s size) map[string]cache {
	out := map[string]cache{}
	for _, p := range Policies {
		c, err := newCache(p, s)
		if err != nil {
			t.Fatal(err)
		}
		if o, ok := c.(*ours); ok {
			t.Cleanup(o.pol.Free)
		}
		out[p] = c
	}
	return out
}

// What was asked for and fits is there, part by part, whatever the policy.
func TestEveryPolicyKeepsWhatFits(t *testing.T) {
	for name, c := range all(t, small(1000)) {
		for object := range uint64(10) {
			if c.access(object, 0b0110) != 0 || c.access(object, 0b1100) != 0b0100 || c.access(object, 0b1111) != 0b1110 {
				t.Errorf("%s: the parts of object %d are not as they were asked for", name, object)
			}
		}
		for object := range uint64(10) {
			if c.access(object, 0b1111) != 0b1111 {
				t.Errorf("%s: object %d of 10 that fit is not there", name, object)
			}
		}
	}
}

// No policy ever holds more than fits.
func TestEveryPolicyIsBounded(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	caches := all(t, small(500))
	for range 20000 {
		object, parts := rng.Uint64N(80), rng.Uint64()>>60
		if parts == 0 {
			continue
		}
		for name, c := range caches {
			c.access(object, parts)
			held := int64(0)
			switch c := c.(type) {
			case *lru:
				held = c.list.bytes
			case *arc:
				held = c.t1.bytes + c.t2.bytes
				if n := c.t1.n + c.t2.n + c.b1.n + c.b2.n; n != len(c.table) {
					t.Fatalf("ARC has %d entries in lists and %d in its table", n, len(c.table))
				}
			case *s3fifo:
				held = c.small.bytes + c.main.bytes
				if n := c.small.n + c.main.n + c.ghost.n; n != len(c.table) {
					t.Fatalf("S3-FIFO has %d entries in lists and %d in its table", n, len(c.table))
				}
			case *ours:
				held = c.pol.Used()
			}
			if held > 500 {
				t.Fatalf("%s holds %d of 500", name, held)
			}
		}
	}
}

// The textbook: LRU gets nothing out of a loop that is a little too long, and ours does; after a scan all but LRU still
// have what was hot.
func TestLoopAndScan(t *testing.T) {
	for name, c := range all(t, small(11*100)) {
		hits := 0
		for range 20 {
			for object := range uint64(120) {
				if c.access(object, 1) != 0 {
					hits++
				}
			}
		}
		if name == "LRU" && hits > 0 || name == "vstor" && hits < 500 {
			t.Errorf("%s: %d hits in a loop", name, hits)
		}
	}
	for name, c := range all(t, small(11*100)) {
		for range 10 {
			for object := range uint64(50) {
				c.access(object, 1)
			}
		}
		for object := range uint64(1000) {
			c.access(10000+object, 1)
		}
		hits := 0
		for object := range uint64(50) {
			if c.access(object, 1) != 0 {
				hits++
			}
		}
		if name == "LRU" && hits > 0 || name != "LRU" && hits < 45 {
			t.Errorf("%s: %d of 50 hot objects are left after a scan", name, hits)
		}
	}
}

// A write moves a block: what was cached of it is not asked for any more.
func TestWritesMoveBlocks(t *testing.T) {
	list := []Access{{Addr: 10, Count: 4}, {Addr: 11, Count: 2, Write: true}, {Addr: 10, Count: 4},
		{Disk: 1, Addr: 10, Count: 1}}
	i := 0
	tr := NewTrace("x", func(a *Access) bool {
		if i == len(list) {
			return false
		}
		*a = list[i]
		i++
		return true
	})
	want := []read{{10, 4}, {10, 1}, {logStart, 2}, {13, 1}, {1<<diskShift + 10, 1}}
	if len(tr.reads) != len(want) {
		t.Fatalf("%v, want %v", tr.reads, want)
	}
	for i := range want {
		if tr.reads[i] != want[i] {
			t.Errorf("read %d is %v, want %v", i, tr.reads[i], want[i])
		}
	}
	if tr.Reads != 3 || tr.Blocks != 9 || tr.Unique != 7 {
		t.Errorf("%d reads of %d blocks, %d different", tr.Reads, tr.Blocks, tr.Unique)
	}
}

func TestReadCSV(t *testing.T) {
	for _, c := range []struct {
		f      Format
		text   string
		reads  int
		blocks int64
		says   string
	}{
		{"msr", "128166372003061629,hm,0,Read,383496192,32768,413\n128166372016382155,hm,1,Write,2822144,4096,1\n" +
			"128166372026382245,hm,1,Read,2822145,4096,5\n", 2, 10, ""},
		{"ali", "419,W,8792731648,16384,1577808144360767\n725,R,59110326272,360448,1577808144360813\n", 1, 88, ""},
		{"ali", "device_id,opcode,offset,length,timestamp\n1,R,0,1,2\n", 1, 1, ""},
		{"tencent", "1538323200,12910952,128,0,1063\n1538323200,6338688,8,1,1627\n", 1, 16, ""},
		{"msr", "1,hm,0,Read,0,4096,1\nnonsense\n", 0, 0, `line 2 is no msr trace: "nonsense"`},
		{"ali", "1,R,0,4096,1\n1,R,-5,4096,1\n", 0, 0, "line 2"},
		{"ali", "1,R,99999999999999999,4096,1\n", 0, 0, "holds no read"},
		{"tencent", "", 0, 0, "holds no read"},
		{"fio", "", 0, 0, "msr, ali or tencent"},
	} {
		tr, err := ReadCSV("trace", strings.NewReader(c.text), c.f, 0)
		if c.says != "" {
			if errs.Of(err) != errs.Invalid || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s %q: %v, want %q", c.f, c.text, err, c.says)
			}
			continue
		}
		if err != nil || tr.Reads != c.reads || tr.Blocks != c.blocks {
			t.Errorf("%s %q: %+v, %v", c.f, c.text, tr, err)
		}
	}
}

func FuzzReadCSV(f *testing.F) {
	f.Add([]byte("1,hm,0,Read,0,4096,1\n"), byte(0))
	f.Add([]byte("1,R,0,4096,1\n"), byte(1))
	f.Add([]byte("1,8,8,0,7\n"), byte(2))
	f.Fuzz(func(t *testing.T, b []byte, which byte) {
		tr, err := ReadCSV("x", bytes.NewReader(b), Formats[int(which)%len(Formats)], 100)
		if err == nil && (tr.Reads == 0 || tr.Unique > tr.Blocks) {
			t.Errorf("%+v", tr)
		}
	})
}

// A run gives the same figures every time, in their order, and plots that a browser reads.
func TestRun(t *testing.T) {
	var texts [2]string
	for i := range texts {
		var out bytes.Buffer
		for _, tr := range Generated(3000) {
			r, err := Run(tr)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Print(&out); err != nil {
				t.Fatal(err)
			}
			for _, c := range r.Cells {
				if c.HitRatio < 0 || c.HitRatio > 1 || c.Amplified < 0.99 {
					t.Errorf("%s: %+v", r.Trace, c)
				}
			}
			svg := r.SVG()
			d := xml.NewDecoder(bytes.NewReader(svg))
			for err == nil {
				_, err = d.Token()
			}
			if !errors.Is(err, io.EOF) || len(svg) > 60<<10 {
				t.Errorf("%s: a plot of %d bytes: %v", r.Trace, len(svg), err)
			}
		}
		texts[i] = out.String()
	}
	if texts[0] != texts[1] {
		t.Error("two runs differ")
	}
}
