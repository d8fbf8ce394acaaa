package stat

import (
	"bytes"
	"math"
	"regexp"
	"sort"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

func TestBucketsAreContiguous(t *testing.T) {
	last := uint64(0)
	for i := range Buckets {
		b := boundOf(i)
		if b <= last {
			t.Fatalf("step %d ends at %d, the one before at %d", i, b, last)
		}
		if bucketOf(b) != i || bucketOf(last+1) != i {
			t.Fatalf("step %d is (%d, %d], yet its ends fall into %d and %d", i, last, b, bucketOf(last+1), bucketOf(b))
		}
		if i > 32 && float64(b-last)/float64(last) > 1.0/16 {
			t.Fatalf("step %d is %d wide at %d", i, b-last, last)
		}
		last = b
	}
	if last != 1<<maxBits {
		t.Fatalf("the last step ends at %d, want 2^%d", last, maxBits)
	}
	if bucketOf(math.MaxUint64) != Buckets-1 || bucketOf(0) != 0 {
		t.Fatal("the ends of the range fall outside the steps")
	}
}

func TestQuantilesAgainstSorting(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		vals := rapid.SliceOfN(rapid.Int64Range(0, 1<<36), 1, 300).Draw(t, "vals")
		var a, b Histogram
		var sum uint64
		for i, v := range vals {
			if i%2 == 0 {
				a.Record(v)
			} else {
				b.Record(v)
			}
			sum += uint64(v)
		}
		var s, other Snapshot
		a.AddTo(&s)
		b.AddTo(&other)
		s.Merge(&other)
		sort.Slice(vals, func(i, j int) bool { return vals[i] < vals[j] })
		if s.Count != uint64(len(vals)) || s.Sum != sum || s.Max != uint64(vals[len(vals)-1]) {
			t.Fatalf("count %d sum %d max %d of %v", s.Count, s.Sum, s.Max, vals)
		}
		q := rapid.Float64Range(0, 1).Draw(t, "q")
		exact := uint64(vals[min(int(q*float64(len(vals))), len(vals)-1)])
		if got := s.Quantile(q); got < exact || float64(got) > float64(exact)*1.0625+1 {
			t.Fatalf("quantile %v is %d, exact %d", q, got, exact)
		}
		pow := rapid.IntRange(0, 36).Draw(t, "pow")
		n := sort.Search(len(vals), func(i int) bool { return vals[i] > 1<<pow })
		if got := s.CountUpTo(pow); got != uint64(n) {
			t.Fatalf("%d are up to 2^%d, CountUpTo says %d", n, pow, got)
		}
	})
}

func TestReadWhileWriting(t *testing.T) {
	var h Histogram
	var c Counter
	var g Gauge
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for i := range int64(20000) {
			h.Record(i * 100)
			c.Inc()
			g.Set(i)
		}
	}()
	for range 200 {
		var s Snapshot
		h.AddTo(&s)
		_, _ = c.Load(), g.Load()
	}
	wg.Wait()
	var s, zero Snapshot
	h.AddTo(&s)
	if s.Count != 20000 || c.Load() != 20000 {
		t.Fatalf("counted %d and %d of 20000", s.Count, c.Load())
	}
	s.Sub(&s)
	if s.Count != 0 || s.Counts != zero.Counts {
		t.Fatal("a snapshot less itself is not empty")
	}
}

func TestRecordAllocatesNothing(t *testing.T) {
	var h Histogram
	var c Counter
	if n := testing.AllocsPerRun(1000, func() { h.Record(12345); c.Add(2) }); n != 0 {
		t.Fatalf("%v allocations per record", n)
	}
}

func TestPage(t *testing.T) {
	var h Histogram
	h.Record(4096)
	h.Record(4097)
	h.Record(1 << 39)
	var s Snapshot
	h.AddTo(&s)
	var p Page
	p.Gauge("vstor_asd_used_bytes", "Bytes used on the drive.", 10, "asd", "0")
	p.Counter("vstor_reads_total", "Reads.", 1.5e18)
	p.Gauge("vstor_asd_used_bytes", "Bytes used on the drive.", 0.25, "asd", "a\"b\\c\nd")
	p.Histogram("vstor_read_seconds", "Time of a read.", &s, "vdisk", "demo")
	var out bytes.Buffer
	if _, err := p.WriteTo(&out); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	for _, want := range []string{
		"# HELP vstor_asd_used_bytes Bytes used on the drive.\n# TYPE vstor_asd_used_bytes gauge\n" +
			"vstor_asd_used_bytes{asd=\"0\"} 10\nvstor_asd_used_bytes{asd=\"a\\\"b\\\\c\\nd\"} 0.25\n",
		"vstor_reads_total 1.5e+18\n",
		"vstor_read_seconds_bucket{vdisk=\"demo\",le=\"4.096e-06\"} 1\n",
		"vstor_read_seconds_bucket{vdisk=\"demo\",le=\"8.192e-06\"} 2\n",
		"vstor_read_seconds_bucket{vdisk=\"demo\",le=\"17.179869184\"} 2\n",
		"vstor_read_seconds_bucket{vdisk=\"demo\",le=\"+Inf\"} 3\n",
		"vstor_read_seconds_count{vdisk=\"demo\"} 3\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks\n%s\nin\n%s", want, text)
		}
	}
	const labels = `(\{([a-z_]+="([^"\\\n]|\\.)*",?)+\})?`
	line := regexp.MustCompile(`^(# (HELP|TYPE) [a-z0-9_]+ .+|[a-z0-9_]+` + labels + ` [-+0-9.e]+)$`)
	for _, l := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if !line.MatchString(l) {
			t.Errorf("not in the text format: %s", l)
		}
	}
}

func BenchmarkRecord(b *testing.B) {
	var h Histogram
	for i := 0; b.Loop(); i++ {
		h.Record(int64(i&0xfffff) + 5000)
	}
}

func BenchmarkCounter(b *testing.B) {
	var c Counter
	for b.Loop() {
		c.Inc()
	}
}

// What Each tells can be put together again.
func TestEachAndPut(t *testing.T) {
	var h Histogram
	for _, ns := range []int64{0, 1, 31, 32, 33, 1000, 1000, 1 << 30, 1 << 41} {
		h.Record(ns)
	}
	var s, again Snapshot
	h.AddTo(&s)
	last := uint64(0)
	s.Each(func(le, n uint64) {
		if le <= last || n == 0 {
			t.Errorf("step %d with %d after step %d", le, n, last)
		}
		last = le
		again.Put(le, n)
	})
	if again.Counts != s.Counts || again.Count != s.Count {
		t.Error("the steps are not the same")
	}
}
