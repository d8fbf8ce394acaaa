package api

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"vstor/dataplane/config"
	"vstor/dataplane/errs"
)

// bare is a client of a server that has no System.
func bare(t *testing.T) *Client {
	c, _ := bareServer(t)
	return c
}

func bareServer(t *testing.T) (*Client, *Server) {
	dir := t.TempDir()
	l, err := config.ListenUnix(filepath.Join(dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(nil, slog.New(slog.NewTextHandler(io.Discard, nil)))
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	c := NewProcessClient(filepath.Join(dir, SocketName))
	t.Cleanup(func() {
		c.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return c, s
}

// A process without a deployment tells of itself, and says what it has when it is asked for more.
func TestWithoutSystem(t *testing.T) {
	c := bare(t)
	for _, q := range []struct {
		path string
		code int
		says string
	}{
		{"/healthz", http.StatusOK, "ok\n"},
		{"/readyz", http.StatusOK, "ready\n"},
		{"/metrics", http.StatusOK, "process_resident_memory_bytes "},
		{"/api/v1/vdisks", http.StatusNotFound, "its deployment's API has the rest"},
		{"/", http.StatusNotFound, "has only"},
		{"/debug/fgprof", http.StatusBadRequest, "from 1 to 60"},
		{"/debug/fgprof?seconds=61", http.StatusBadRequest, "from 1 to 60"},
	} {
		resp, err := c.http.Get("http://vstor" + q.path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != q.code || !strings.Contains(string(b), q.says) {
			t.Errorf("%s: %s %s %v", q.path, resp.Status, b, err)
		}
	}
	if _, err := c.Status(context.Background()); errs.Of(err) != errs.Absent {
		t.Error(err)
	}
}

// Profiles of each kind can be read, and the one by wall clock has who waits.
func TestProfiles(t *testing.T) {
	c := bare(t)
	release := make(chan struct{})
	defer close(release)
	go waitsForAProfile(release)
	for _, kind := range []Profile{ProfileCPU, ProfileAllocs, ProfileWall} {
		b, err := c.Profile(context.Background(), kind, time.Second)
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		p, err := profile.ParseData(b)
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		if kind == ProfileWall && !strings.Contains(p.String(), "waitsForAProfile") {
			t.Errorf("who waits is not in it:\n%s", p)
		}
	}
	if _, err := c.Profile(context.Background(), "/debug/nothing", time.Second); err == nil {
		t.Error("what is no profile was given")
	}
}

// One profile by wall clock is taken at a time, and a server that closes does not wait for its end.
func TestWallProfileEndsWithItsServer(t *testing.T) {
	c, s := bareServer(t)
	first := make(chan error, 1)
	go func() {
		_, err := c.Profile(context.Background(), ProfileWall, wallMost)
		first <- err
	}()
	for end := time.Now().Add(time.Minute); !wallBusy.Load(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no profile is taken")
		}
	}
	if _, err := c.Profile(context.Background(), ProfileWall, time.Second); err == nil {
		t.Error("two are taken at a time")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	<-first
	if wallBusy.Load() {
		t.Error("it goes on without its server")
	}
}

//go:noinline
func waitsForAProfile(c chan struct{}) { <-c }
