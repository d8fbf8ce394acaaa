package bench

import (
	"os"
	"path/filepath"
	"testing"

	"vstor/dataplane/errs"
)

// What cannot be written behind a run is refused before it, and asking leaves nothing behind.
func TestCheckFiles(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(in("diary.md"), []byte("# A diary\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		opt  Options
		want errs.Kind
	}{
		{Options{}, errs.OK},
		{Options{JSON: in("a.json"), HTML: in("a.html"), Markdown: in("a.md")}, errs.OK},
		{Options{JSON: in("none/a.json")}, errs.IO},
		{Options{HTML: in("none/a.html")}, errs.IO},
		{Options{Markdown: in("none/a.md")}, errs.IO},
		{Options{Markdown: in("diary.md")}, errs.Refused},
	} {
		if err := checkFiles(&tc.opt); errs.Of(err) != tc.want {
			t.Errorf("%+v: %v", tc.opt, err)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("%v is left", left)
	}
}
