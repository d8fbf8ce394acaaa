package errs

import (
	"errors"
	"fmt"
	"io"
	"testing"
)

func TestOf(t *testing.T) {
	full := New(Full, "drive %d is full", 3)
	for _, c := range []struct {
		err  error
		want Kind
	}{
		{nil, OK}, {full, Full}, {fmt.Errorf("put: %w", full), Full}, {io.EOF, IO}, {Absent, Absent},
		{Wrap(Corrupt, io.EOF, "header"), Corrupt},
	} {
		if got := Of(c.err); got != c.want {
			t.Errorf("Of(%v) = %v, want %v", c.err, got, c.want)
		}
	}
	if !errors.Is(Wrap(Corrupt, io.EOF, "header"), io.EOF) || !errors.Is(full, Full) {
		t.Error("cause or kind is lost in wrapping")
	}
	if got := Wrap(IO, io.EOF, "read").Error(); got != "read: EOF" {
		t.Errorf("message %q", got)
	}
}
