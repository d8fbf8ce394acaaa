package bench

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/pprof/profile"
)

// A head says where most was counted, a function that calls itself once, and files of two jobs or rounds differ.
func TestProfileHeads(t *testing.T) {
	fn := func(id uint64, name string) *profile.Location {
		f := &profile.Function{ID: id, Name: name}
		return &profile.Location{ID: id, Line: []profile.Line{{Function: f}}}
	}
	leaf, mid, top := fn(1, "copy"), fn(2, "read"), fn(3, "loop")
	p := &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}},
		Sample: []*profile.Sample{
			{Location: []*profile.Location{leaf, mid, mid, top}, Value: []int64{3, 30}},
			{Location: []*profile.Location{mid, top}, Value: []int64{1, 10}},
		},
	}
	for _, l := range []*profile.Location{leaf, mid, top} {
		p.Location, p.Function = append(p.Location, l), append(p.Function, l.Line[0].Function)
	}
	var file bytes.Buffer
	if err := p.Write(&file); err != nil {
		t.Fatal(err)
	}
	dir, at := t.TempDir(), step{job: Job{Name: "4K random read QD32, cold"}, target: local}
	again := at
	again.round = 1
	for _, s := range []step{at, again} {
		took := map[string][]byte{profileName(s, "asd-3", "cpu"): file.Bytes()}
		if err := keepProfiles(dir, took); err != nil {
			t.Fatal(err)
		}
	}
	const name = "4K-random-read-QD32-cold.vstor-short.asd-3.cpu"
	for _, f := range []string{name + ".pb.gz", name + ".2.pb.gz"} {
		if b, err := os.ReadFile(filepath.Join(dir, f)); err != nil || !bytes.Equal(b, file.Bytes()) {
			t.Errorf("%s: %d bytes, %v", f, len(b), err)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, profilesText))
	if err != nil {
		t.Fatal(err)
	}
	want := ": 40 nanoseconds\n   75.0 %  with callees  75.0 %  copy\n   25.0 %  with callees 100.0 %  read\n\n"
	if n := strings.Count(string(text), want); n != 2 {
		t.Errorf("it stands there %d times, not 2:\n%s", n, text)
	}
	if keepProfiles(dir, map[string][]byte{"x": []byte("no profile")}) == nil {
		t.Error("what is no profile was kept")
	}
}
