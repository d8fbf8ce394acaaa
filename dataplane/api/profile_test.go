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
	dir := t.TempDir()
	l, err := config.ListenUnix(filepath.Join(dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(nil, slog.New(slog.NewTextHandler(io.Discard, nil)))
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	c := NewClient(dir)
	t.Cleanup(func() {
		c.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return c
}

// A process without a deployment tells of itself, and says what it has when it is asked for more.
func TestWithoutSystem(t *testing.T) {
	c := bare(t)
	for path, want := range map[string]string{"/healthz": "ok\n", "/readyz": "ready\n",
		"/metrics": "process_resident_memory_bytes ", "/api/v1/vdisks": "its deployment's API has the rest",
		"/": "has only"} {
		resp, err := c.http.Get("http://vstor" + path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if missing := strings.Contains(want, "has "); err != nil || !strings.Contains(string(b), want) ||
			missing != (resp.StatusCode == http.StatusNotFound) {
			t.Errorf("%s: %s %s %v", path, resp.Status, b, err)
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

//go:noinline
func waitsForAProfile(c chan struct{}) { <-c }
