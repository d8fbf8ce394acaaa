package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/felixge/fgprof"
	"github.com/valyala/fasthttp/fasthttpadaptor"

	"vstor/dataplane/errs"
)

// wallPath answers with a profile by wall clock.
const wallPath = "/debug/fgprof"

// wallProfile samples all goroutines, those that wait too. The runtime's own profile of what blocks is no use here: it
// knows of channels and mutexes, and a loop waits in a system call.
var wallProfile = fasthttpadaptor.NewFastHTTPHandler(fgprof.Handler())

// Profile is one of what a process tells of where its time and memory go.
type Profile string

// The profiles. Of each what happened meanwhile is told, in the format of `go tool pprof`.
const (
	ProfileCPU    Profile = "/debug/pprof/profile"
	ProfileAllocs Profile = "/debug/pprof/allocs"
	ProfileWall   Profile = wallPath // of goroutines, whether they run or wait
)

// Profile takes a profile, for whole seconds.
func (c *Client) Profile(ctx context.Context, p Profile, d time.Duration) ([]byte, error) {
	url := fmt.Sprintf("http://vstor%s?seconds=%d", p, int(d.Seconds()))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "cannot make the request")
	}
	patient := http.Client{Transport: c.http.Transport, Timeout: c.http.Timeout + d}
	resp, err := patient.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errs.New(errs.IO, "the profile ended in %s: %.200s", resp.Status, b)
	}
	return b, err
}
