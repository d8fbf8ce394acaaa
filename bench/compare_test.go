package bench

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"vstor/dataplane/errs"
)

func TestCompare(t *testing.T) {
	a, b := sampleRun(), sampleRun()
	for i := range b.Cells {
		c := &b.Cells[i]
		switch {
		case c.Job != coldRead:
			c.IOPS += 0.5 // less than the rounds lie apart
		case c.Target == embedded:
			c.IOPS *= 1.5
		default:
			c.IOPS *= 2
		}
	}
	c, err := Compare(a, b)
	if err != nil || len(c.Changes) != 4 || len(c.Doubts) != 0 {
		t.Fatalf("%+v %v", c, err)
	}
	for _, x := range c.Changes {
		switch {
		case x.Job != coldRead:
			if x.Word != "within the spread" || x.Chance != 1 {
				t.Errorf("%+v", x)
			}
		case x.Word != "BETTER" || math.Abs(x.Chance-0.1) > 1e-9:
			t.Errorf("%+v", x)
		case x.Target == embedded && (math.Abs(x.Percent-50) > 1e-9 || math.Abs(x.BesidePercent+25) > 1e-9):
			t.Errorf("half as much again, where the peer doubled: %+v", x)
		case x.Target == qemu && (math.Abs(x.Percent-100) > 1e-9 || x.BesidePercent != 0):
			t.Errorf("%+v", x)
		}
	}
	var out bytes.Buffer
	if err := c.Print(&out); err != nil {
		t.Fatal(err)
	}
	squeezed := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{"vstor 150 225 +50.0% -25.0% 1% : 1% BETTER", "A change counts when"} {
		if !strings.Contains(squeezed, want) {
			t.Errorf("%q is missing:\n%s", want, out.String())
		}
	}
}

// The word for rounds of two runs.
func TestJudge(t *testing.T) {
	for _, tc := range []struct {
		figure Figure
		a, b   []float64
		want   string
	}{
		{IOPS, []float64{1, 2, 3}, []float64{4, 5, 6}, "BETTER"},
		{IOPS, []float64{4, 5, 6}, []float64{1, 2, 3}, "WORSE"},
		{Latency, []float64{1, 2, 3}, []float64{4, 5, 6}, "WORSE"},
		{P99, []float64{4, 5, 6}, []float64{1, 2, 3}, "BETTER"},
		{IOPS, []float64{1, 2, 4}, []float64{4, 5, 6}, "within the spread"},
		{IOPS, []float64{1}, []float64{9}, "too few rounds"},
		{IOPS, []float64{1, 2}, []float64{8, 9, 10}, "too few rounds"}, // apart by luck in one case of five
	} {
		c := Change{Figure: tc.figure, A: tc.a[0], B: tc.b[0]}
		if c.judge(tc.a, tc.b); c.Word != tc.want {
			t.Errorf("%v %v, %s: %s, want %s", tc.a, tc.b, tc.figure, c.Word, tc.want)
		}
	}
	if n := binomial(10, 5); n != 252 {
		t.Error(n)
	}
}

// What is in one run only, what was disturbed, what was measured elsewhere.
func TestCompareDoubts(t *testing.T) {
	a, b := sampleRun(), sampleRun()
	b.Machine.Kernel, b.Quick = "7.0", true
	for i := range b.Cells {
		if b.Cells[i].Job != coldRead {
			b.Cells[i].Job = "new"
		} else {
			b.Cells[i].Disturbed = true
		}
	}
	c, err := Compare(a, b)
	if err != nil {
		t.Fatal(err)
	}
	words := map[string]string{}
	for _, x := range c.Changes {
		words[x.Job] = x.Word
	}
	if words[coldRead] != "disturbed" || words["new"] != "only in the second" ||
		words["70/30 4K QD32"] != "only in the first" {
		t.Error(words)
	}
	all := strings.Join(c.Doubts, "\n")
	if len(c.Doubts) != 3 || !strings.Contains(all, "another kernel: 6.12 in the first, 7.0 in the second") ||
		!strings.Contains(all, "the second run: DISTURBED") {
		t.Error(all)
	}
	for i := range b.Cells {
		b.Cells[i].Target = "other"
	}
	if _, err := Compare(a, b); errs.Of(err) != errs.Invalid {
		t.Error(err)
	}
}
