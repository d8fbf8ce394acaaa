package link

import (
	"bytes"
	"errors"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vstor/dataplane/errs"
	"vstor/dataplane/wire"
)

func named(uint8) string { return "frame" }

// conns are the two ends of a connection.
func conns(t *testing.T) (ours, theirs net.Conn) {
	fd, theirs := pair(t)
	f := os.NewFile(uintptr(fd), "ours")
	defer f.Close()
	ours, err := net.FileConn(f)
	must(t, err)
	t.Cleanup(func() { ours.Close() })
	return ours, theirs
}

// A peer that turns one away closes the connection at once, so the first frame may find it broken: what was said
// before is the reason all the same.
func TestTurnedAwayBeforeTheFirstFrame(t *testing.T) {
	ours, theirs := conns(t)
	(&Shake{Conn: theirs, Refuse: 9}).TurnAway(errs.Busy, "no place")
	theirs.Close()
	asker := &Shake{Conn: ours, Refuse: 9, Name: named}
	must(t, asker.Begin(bytes.Repeat([]byte{1}, wire.SecretSize), 0))
	err := asker.Write(1, errs.OK, []byte("hello"))
	if errs.Of(err) != errs.Busy || !strings.Contains(err.Error(), "no place") {
		t.Errorf("turned away: %v (%v)", err, errs.Of(err))
	}
}

// One that broke without a refusal is unreachable, and that is the write's error.
func TestBrokenWithoutARefusal(t *testing.T) {
	for _, last := range [][]byte{nil, Sealed(3, errs.OK, []byte("another frame")), []byte("noise")} {
		ours, theirs := conns(t)
		_, err := theirs.Write(last)
		must(t, err)
		theirs.Close()
		asker := &Shake{Conn: ours, Refuse: 9, Name: named}
		err = asker.Write(1, errs.OK, nil)
		if errs.Of(err) != errs.Unreachable || !errors.Is(err, unix.EPIPE) {
			t.Errorf("broken after %q: %v (%v)", last, err, errs.Of(err))
		}
	}
}
