package api

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/felixge/fgprof"
	"github.com/valyala/fasthttp"

	"vstor/dataplane/errs"
)

// wallPath answers with a profile by wall clock: of all goroutines, those that wait too. The runtime's own profile of
// what blocks is no use here: it knows of channels and mutexes, and a loop waits in a system call.
const wallPath = "/debug/fgprof"

// wallMost is the longest profile by wall clock. Each of its hundred samples a second stops all goroutines.
const wallMost = 60 * time.Second

// wallBusy is set while one is taken: a second one would tell the same and cost as much again.
var wallBusy atomic.Bool

// wallProfile answers when the time is over, or the server closes.
func (s *Server) wallProfile(rc *fasthttp.RequestCtx) {
	n, err := strconv.Atoi(string(rc.QueryArgs().Peek("seconds")))
	d := time.Duration(n) * time.Second
	switch {
	case err != nil || d < time.Second || d > wallMost:
		replyError(rc, errs.New(errs.Invalid, "seconds must be a whole number from 1 to %d", wallMost/time.Second))
		return
	case !wallBusy.CompareAndSwap(false, true):
		replyError(rc, errs.New(errs.Busy, "somebody else takes a profile by wall clock: try again"))
		return
	}
	defer wallBusy.Store(false)
	var b bytes.Buffer
	stop := fgprof.Start(&b, fgprof.FormatPprof)
	select {
	case <-time.After(d):
	case <-s.ctx.Done():
	}
	if err := ended(stop); err != nil {
		replyError(rc, errs.Wrap(errs.IO, err, "the profile cannot be written"))
		return
	}
	rc.SetContentType("application/octet-stream")
	rc.SetBody(b.Bytes())
}

// ended stops a profile. One without a sample, of a moment, makes fgprof divide by zero, and nobody above recovers.
func ended(stop func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("it has no sample: %v", r)
		}
	}()
	return stop()
}

// Profile is one of what a process tells of where its time and memory go.
type Profile string

// The profiles. Of each what happened meanwhile is told, in the format of `go tool pprof`.
const (
	ProfileCPU    Profile = "/debug/pprof/profile"
	ProfileAllocs Profile = "/debug/pprof/allocs"
	ProfileWall   Profile = wallPath // of goroutines, whether they run or wait
)

// Profile takes a profile, for whole seconds, at most 60. It fails if the process does not answer in that and 35 more.
func (c *Client) Profile(ctx context.Context, p Profile, d time.Duration) ([]byte, error) {
	url := fmt.Sprintf("http://vstor%s?seconds=%d", p, int(d.Seconds()))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "cannot make the request")
	}
	patient := http.Client{Transport: c.http.Transport, Timeout: c.http.Timeout + d}
	resp, err := patient.Do(req)
	if err != nil {
		return nil, errs.Wrap(errs.Unreachable, err, "no profile can be had from %s", c.socket)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errs.New(errs.IO, "the profile ended in %s: %.200s", resp.Status, b)
	}
	return b, err
}
