package bench

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"vstor/bench/nbdc"
	"vstor/dataplane/errs"
)

// A bare server reads the file, writes all that it answers, refuses what no job asks for, and leaves no socket.
func TestBareServer(t *testing.T) {
	const size = 64 << 20
	dir := t.TempDir()
	b := BareServer{Socket: filepath.Join(dir, "s"), File: filepath.Join(dir, "raw"), CPU: -1, Log: quiet}
	content := bytes.Repeat([]byte("raw!"), size/4)
	if err := os.WriteFile(b.File, content, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- RunBareServer(ctx, b, new(bytes.Buffer)) }()
	c := dialBare(t, b.Socket, ended)
	page := make([]byte, 8192)
	if err := c.Read(page, size-8192); err != nil || !bytes.Equal(page, content[:8192]) {
		t.Errorf("read: %v, %.8q", err, page)
	}
	before := driveWritten(dir)
	for i := range int64(64) {
		if err := c.Write(make([]byte, 256<<10), i<<18, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Flush(); err != nil {
		t.Error(err)
	}
	if wrote := driveWritten(dir) - before; before > 0 && wrote < 64<<18 {
		t.Errorf("%d bytes were answered, and %d written", 64<<18, wrote)
	}
	if err := c.Write(page, 512, 0); err == nil {
		t.Error("a write of parts of blocks is taken")
	}
	if err := c.Read(page, 0); err != nil {
		t.Errorf("after a refusal: %v", err)
	}
	c.Close()
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(b.Socket); err == nil {
		t.Error("the socket is there yet")
	}
}

// dialBare waits until it listens.
func dialBare(t *testing.T, socket string, ended <-chan error) *nbdc.Conn {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		c, err := nbdc.Dial("unix", socket, volume)
		if err == nil {
			return c
		}
		select {
		case err := <-ended:
			t.Fatal("ended: ", err)
		default:
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// What it cannot serve it says, and ends.
func TestBareServerRefuses(t *testing.T) {
	dir := t.TempDir()
	b := BareServer{Socket: filepath.Join(dir, "s"), File: filepath.Join(dir, "raw"), CPU: -1, Log: quiet}
	if err := RunBareServer(t.Context(), b, new(bytes.Buffer)); errs.Of(err) != errs.IO {
		t.Errorf("without a file: %v", err)
	}
	if err := os.WriteFile(b.File, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := RunBareServer(t.Context(), b, new(bytes.Buffer)); errs.Of(err) != errs.Invalid {
		t.Errorf("with a small file: %v", err)
	}
}
