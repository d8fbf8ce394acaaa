package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vstor/dataplane/errs"
	"vstor/dataplane/volume/sco"
)

func TestSCO(t *testing.T) {
	h := sco.Header{Volume: 7, SCO: 9, Epoch: 1, SeqLo: 1, SeqHi: 3}
	path := filepath.Join(t.TempDir(), "sco")
	head := sco.Head(&h, []sco.Entry{{Addr: 5, Seq: 3, Sum: 0xabc}}, []sco.Hole{{Addr: 10, Count: 2, Seq: 2, Kind: 2}})
	if err := os.WriteFile(path, head, 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := run(&out, []string{"sco", path}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Volume:7", "block 5 at 2: sequence 3, checksum 00000abc", "hole {Addr:10 Count:2"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q lacks %q", out.String(), want)
		}
	}
}

// Whatever it is given it says a sentence.
func TestBadInput(t *testing.T) {
	zeros := filepath.Join(t.TempDir(), "zeros")
	if err := os.WriteFile(zeros, make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want errs.Kind
	}{
		{nil, errs.Invalid}, {[]string{"cheese", zeros}, errs.Invalid}, {[]string{"sco", zeros, "x"}, errs.Invalid},
		{[]string{"sco", zeros}, errs.Corrupt}, {[]string{"fragment", zeros}, errs.Absent},
		{[]string{"sco", zeros + "-not"}, errs.IO}, {[]string{"map", zeros}, errs.IO},
	} {
		if err := run(&bytes.Buffer{}, c.args); errs.Of(err) != c.want {
			t.Errorf("%v: %v, want %v", c.args, err, c.want)
		}
	}
}
