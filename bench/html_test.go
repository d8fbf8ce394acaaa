package bench

import (
	"bytes"
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vstor/dataplane/errs"
)

// The page has each plot, is well formed, and fetches nothing.
func TestHTML(t *testing.T) {
	page := string(sampleRun().HTML())
	for want, n := range map[string]int{"<svg": 13, ">More is better": 1, ">Less is better": 0, "1.50x met": 1,
		"<td>150 (1.50x)</td>": 1,
		"1.20x MISSED":         1, `<td class="bad">MISSED</td>`: 1, "A CPU &lt;1&gt;": 1, "Rounds: 3;": 1,
		">latency, us, logarithmic<": 2, ">percentile of the IOs<": 2, ">seconds<": 2, ">ratio to qemu-nbd, ": 1,
		">20 us</text>":             2,
		"vstor, second 2: 150 IOPS": 1, "vstor, 99 % of the IOs within: 33.3 us": 1, "figcaption>": 0, "make bench ": 1,
		"vstor bench --out run.json": 1, "Linux 6.12": 1, "Latency by percentile": 1, "IOPS over time": 1,
		"prefers-color-scheme:dark": 1, `class="goal"`: 2} {
		if got := strings.Count(page, want); got != n {
			t.Errorf("%q is there %d times, want %d", want, got, n)
		}
	}
	for _, bad := range []string{"http:", "https:", "<script", "<link", "<img", "url(", "@import", "A CPU <1>", "NaN",
		"Inf"} {
		if strings.Contains(page, bad) {
			t.Errorf("%q is in the page", bad)
		}
	}
	d := xml.NewDecoder(strings.NewReader(page))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	for {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// Runs that lack what plots need have a page still.
func TestHTMLOfLittle(t *testing.T) {
	r := sampleRun()
	for i := range r.Cells {
		r.Cells[i].Series, r.Cells[i].Percentiles, r.Cells[i].CPUUsPerIO, r.Cells[i].Disturbed = nil, nil, 0, true
	}
	r.Quick = true
	r.Rows = []Row{r.row(Job{Name: coldRead, Figure: Latency}, Goal{Target: embedded, Base: qemu, Ratio: 1.3}),
		r.row(Job{Name: "none", Figure: Latency}, Goal{Target: embedded, Base: qemu, Ratio: 1.3})}
	page := string(r.HTML())
	for want, n := range map[string]int{"<svg": 1, ">Less is better": 1, "IOPS over time": 0, ">not measured</text>": 1,
		">disturbed</text>": 1, "DISTURBED: in 12 of 12": 2, "quick run": 1, "make bench-quick": 1} {
		if got := strings.Count(page, want); got != n {
			t.Errorf("%q is there %d times, want %d", want, got, n)
		}
	}
}

// A plot says of whom it has nothing, and whose figures others disturbed: they are drawn as the rest is. A second alone
// is drawn too.
func TestHTMLNotes(t *testing.T) {
	r := sampleRun()
	for i := range r.Cells {
		switch c := &r.Cells[i]; {
		case c.Target == qemu && c.Job == coldRead:
			c.Series = nil
		case c.Target == embedded && c.Job == coldRead:
			c.Disturbed, c.Series = true, c.Series[:1]
		}
	}
	r.Profiled = true
	page := string(r.HTML())
	for want, n := range map[string]int{"disturbed:</b> vstor</figcaption>": 2,
		"disturbed:</b> vstor; no whole second was logged: qemu-nbd</figcaption>": 1, "Profiles were taken": 1,
		`<circle r="4" stroke="var(--s0)"`: 1, "second 1: 149 IOPS": 1} {
		if got := strings.Count(page, want); got != n {
			t.Errorf("%q is there %d times, want %d", want, got, n)
		}
	}
}

// A target has its colour whatever else was measured, and of one round there is no spread.
func TestColoursAndSpread(t *testing.T) {
	r := sampleRun()
	r.Cells = append(r.Cells, Cell{Job: coldRead, Target: "another"}, Cell{Job: coldRead, Target: cephRep})
	if got := r.targets(); !slices.Equal(got, []string{embedded, qemu, cephRep, "another"}) || colour(qemu) != 3 {
		t.Error(got)
	}
	if got := r.table()[0][9]; got != "1% : 1%" {
		t.Error(got)
	}
	r.Cells = slices.DeleteFunc(r.Cells, func(c Cell) bool { return c.Round > 0 })
	if got := r.table()[0][9]; got != "-" {
		t.Error(got)
	}
}

func TestCurve(t *testing.T) {
	p := curveOf([]Cell{{Percentiles: map[string]float64{"99.000000": 5, "50.000000": 1, "99.999900": 9, "x": 1}},
		{Percentiles: map[string]float64{"99.000000": 7}}})
	if len(p) != 2 || p[0].Y != 1 || p[1].X < 1.999 || p[1].X > 2.001 || p[1].Y != 6 {
		t.Error(p)
	}
	if c := middleCell([]Cell{{IOPS: 3}, {IOPS: 1}, {IOPS: 2}}); c.IOPS != 2 {
		t.Error(c)
	}
}

func TestMarkdown(t *testing.T) {
	var b bytes.Buffer
	sampleRun().markdown(&b)
	golden(t, "summary.md", b.Bytes())
}

// The end of a run: all files, and from the stored one the same page.
func TestPublish(t *testing.T) {
	dir := t.TempDir()
	opt := Options{JSON: filepath.Join(dir, "r.json"), HTML: filepath.Join(dir, "r.html"),
		Markdown: filepath.Join(dir, "r.md"), MinJournals: 4}
	r := sampleRun()
	r.Rows, r.Format, r.Command = nil, 0, ""
	var out bytes.Buffer
	if err := r.publish(&opt, &out); err != nil || len(r.Rows) < 2 || !strings.Contains(out.String(), "1.50") {
		t.Fatalf("%v\n%s", err, out.String())
	}
	again, err := Load(opt.JSON)
	if err != nil || again.Command == "" || again.Vstor == "" {
		t.Fatalf("%+v %v", again, err)
	}
	page, _ := os.ReadFile(opt.HTML)
	if !bytes.Equal(again.HTML(), page) {
		t.Error("the page of the stored run is another one")
	}
	if b, _ := os.ReadFile(opt.Markdown); !strings.Contains(string(b), marker) {
		t.Errorf("%s", b)
	}
	opt.HTML = filepath.Join(dir, "none", "r.html")
	if err := r.publish(&opt, &out); errs.Of(err) != errs.IO {
		t.Error(err)
	}
}

// What stands below the marker is people's, byte for byte; a file without one is not ours to replace.
func TestMarkdownKeepsWhatIsWrittenByHand(t *testing.T) {
	path := filepath.Join(t.TempDir(), "B.md")
	write := func() string {
		t.Helper()
		if err := sampleRun().Write("", path); err != nil {
			t.Fatal(err)
		}
		b, _ := os.ReadFile(path)
		return string(b)
	}
	first := write()
	if !strings.HasSuffix(first, marker+"\n"+handWritten) {
		t.Error(first)
	}
	const mine = "\n## By hand\n\n" + "no newline at the end, and a marker again: " + marker + "\nend"
	head, _, _ := strings.Cut(first, marker)
	if err := os.WriteFile(path, []byte("an older run\n"+marker+"\n"+mine), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := write(); got != head+marker+"\n"+mine {
		t.Errorf("%s", got)
	}
	if again := write(); again != head+marker+"\n"+mine {
		t.Error("the second time changes it")
	}
	if err := os.WriteFile(path, []byte("# A diary\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := sampleRun().Write("", path); errs.Of(err) != errs.Refused {
		t.Error(err)
	}
	if b, _ := os.ReadFile(path); string(b) != "# A diary\n" {
		t.Errorf("%s", b)
	}
	if _, err := os.Stat(path + ".new"); err == nil {
		t.Error("a file is left over")
	}
}
