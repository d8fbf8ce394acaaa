package stat

import (
	"strings"
	"testing"
)

// Pages of several processes become one: a family has one HELP and one TYPE, each sample says whose it is.
func TestMerge(t *testing.T) {
	var child, p Page
	child.Counter("vstor_x_total", "how many, with a \\ in it", 3, "vdisk", "a b")
	child.Gauge("vstor_y", "how much", 4)
	child.Histogram("vstor_z_seconds", "how long", &Snapshot{Count: 1, Sum: 1e9})
	var text strings.Builder
	child.WriteTo(&text)
	p.Counter("vstor_x_total", "how many, with a \\ in it", 1)
	p.Merge([]byte(text.String()), "process", "edge-0")
	bad := "garbage\n# TYPE vstor_y counter\nvstor_y 9\n# TYPE 7 gauge\n7 7\n"
	p.Merge([]byte(text.String()+bad), "process", "router-0")
	var out strings.Builder
	p.WriteTo(&out)
	got := out.String()
	for _, want := range []string{
		"vstor_x_total 1\n", `vstor_x_total{process="edge-0",vdisk="a b"} 3` + "\n", `vstor_y{process="edge-0"} 4` + "\n",
		`vstor_y{process="router-0"} 4` + "\n", `vstor_z_seconds_bucket{process="router-0",le="+Inf"} 1` + "\n",
		`vstor_z_seconds_count{process="edge-0"} 1` + "\n",
	} {
		if strings.Count(got, want) != 1 {
			t.Errorf("%q is not there once:\n%s", want, got)
		}
	}
	if strings.Count(got, "# TYPE") != 3 || strings.Count(got, "# HELP") != 3 || strings.Contains(got, "garbage") ||
		strings.Contains(got, " 9\n") || strings.Contains(got, "7 7") {
		t.Errorf("not one page:\n%s", got)
	}
}
