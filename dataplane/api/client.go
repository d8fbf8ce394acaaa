package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"vstor/dataplane/config"
	"vstor/dataplane/errs"
	"vstor/dataplane/units"
)

// SocketName is the API's socket below a deployment's folder.
const SocketName = "api.sock"

// Client talks to a running deployment over its socket. Errors have the Kind and the sentence that the
// server gave; Unreachable means that nothing serves the folder. Safe for concurrent use.
type Client struct {
	dir    string
	socket string
	http   http.Client
}

// NewClient makes a client of the deployment in dir. It connects when it is first used.
func NewClient(dir string) *Client {
	c := newClient(filepath.Join(dir, SocketName))
	c.dir = dir
	return c
}

// NewProcessClient makes a client of a process without a deployment, by its socket: of its profiles and metrics.
func NewProcessClient(socket string) *Client { return newClient(socket) }

func newClient(socket string) *Client {
	c := &Client{socket: socket}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	c.http.Transport = &http.Transport{DialContext: dial, MaxIdleConns: 2, IdleConnTimeout: time.Second}
	c.http.Timeout = requestTimeout + 5*time.Second
	return c
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// CreateVDisk makes a vDisk of size bytes, rounded up to 4 KiB.
func (c *Client) CreateVDisk(ctx context.Context, name string, size int64) (VDisk, error) {
	var v VDisk
	err := c.do(ctx, http.MethodPost, "vdisks", CreateRequest{Name: name, SizeBytes: size}, &v)
	return v, err
}

// ListVDisks lists all vDisks.
func (c *Client) ListVDisks(ctx context.Context) ([]VDisk, error) {
	var l vdiskList
	err := c.do(ctx, http.MethodGet, "vdisks", nil, &l)
	return l.VDisks, err
}

// ShowVDisk shows one.
func (c *Client) ShowVDisk(ctx context.Context, name string) (VDisk, error) {
	var v VDisk
	if err := units.CheckName(name); err != nil {
		return v, err
	}
	err := c.do(ctx, http.MethodGet, "vdisks/"+url.PathEscape(name), nil, &v)
	return v, err
}

// SetVDisk changes what s names.
func (c *Client) SetVDisk(ctx context.Context, name string, s VDiskSettings) (VDiskChange, error) {
	var v VDiskChange
	if err := units.CheckName(name); err != nil {
		return v, err
	}
	err := c.do(ctx, http.MethodPatch, "vdisks/"+url.PathEscape(name), s, &v)
	return v, err
}

// VDiskStats tells what the clients of a vDisk got.
func (c *Client) VDiskStats(ctx context.Context, name string) (VDiskStats, error) {
	var s VDiskStats
	if err := units.CheckName(name); err != nil {
		return s, err
	}
	err := c.do(ctx, http.MethodGet, "vdisks/"+url.PathEscape(name)+"/stats", nil, &s)
	return s, err
}

// RemoveVDisk removes one.
func (c *Client) RemoveVDisk(ctx context.Context, name string) error {
	if err := units.CheckName(name); err != nil {
		return err
	}
	return c.do(ctx, http.MethodDelete, "vdisks/"+url.PathEscape(name), nil, nil)
}

// ListASDs lists all ASDs.
func (c *Client) ListASDs(ctx context.Context) ([]ASD, error) {
	var l asdList
	err := c.do(ctx, http.MethodGet, "asds", nil, &l)
	return l.ASDs, err
}

// ShowASD shows one.
func (c *Client) ShowASD(ctx context.Context, id uint32) (ASD, error) {
	var a ASD
	err := c.do(ctx, http.MethodGet, "asds/"+strconv.FormatUint(uint64(id), 10), nil, &a)
	return a, err
}

// Faults breaks an ASD on purpose.
func (c *Client) Faults(ctx context.Context, id uint32, rules string) error {
	return c.do(ctx, http.MethodPost, "asds/"+strconv.FormatUint(uint64(id), 10)+"/faults", FaultsRequest{rules}, nil)
}

// ListCaches lists what vDisks have of the caches.
func (c *Client) ListCaches(ctx context.Context) ([]CacheShare, error) {
	var l cacheList
	err := c.do(ctx, http.MethodGet, "caches", nil, &l)
	return l.Caches, err
}

// Status tells how the deployment is doing.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.do(ctx, http.MethodGet, "status", nil, &s)
	return s, err
}

// Metrics is the page of metrics, in the Prometheus text format.
func (c *Client) Metrics(ctx context.Context) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://vstor/metrics", nil)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "cannot make the request")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errs.New(errs.IO, "the metrics page ended in %s", resp.Status)
	}
	if err != nil {
		return nil, c.unreachable(err)
	}
	return b, nil
}

// Reload has certificates and keys read again.
func (c *Client) Reload(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "reload", nil, nil)
}

// Memory tells where the memory is.
func (c *Client) Memory(ctx context.Context) (Memory, error) {
	var m Memory
	err := c.do(ctx, http.MethodGet, "status/memory", nil, &m)
	return m, err
}

// maxAnswer bounds what a client reads of an answer: 100,000 vDisks fit.
const maxAnswer = 64 << 20

func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return errs.Wrap(errs.Invalid, err, "cannot write the request")
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://vstor"+prefix+path, body)
	if err != nil {
		return errs.Wrap(errs.Invalid, err, "cannot make the request")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return c.unreachable(err)
	}
	if resp.StatusCode >= 300 {
		return parseError(resp.StatusCode, b)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return errs.Wrap(errs.Version, err, "the answer of %s is not what this vstor expects", c.dir)
	}
	return nil
}

func (c *Client) unreachable(cause error) error {
	if c.dir == "" {
		return errs.Wrap(errs.Unreachable, cause, "nothing answers on %s", c.socket)
	}
	if !config.IsDeployment(c.dir) {
		return errs.New(errs.Unreachable, "%s is no running vstor deployment: start one with `vstor up --dir %s`, "+
			"or name the right folder with --dir or VSTOR_DIR", c.dir, c.dir)
	}
	if os.IsPermission(cause) {
		return errs.New(errs.Unreachable, "%s belongs to another user: only that user and root may talk to it", c.dir)
	}
	if ne, ok := cause.(net.Error); ok && ne.Timeout() {
		return errs.New(errs.Unreachable, "the deployment in %s runs but does not answer", c.dir)
	}
	return errs.New(errs.Unreachable, "nothing runs the deployment in %s: start it with `vstor up --dir %s`", c.dir, c.dir)
}

func parseError(code int, b []byte) error {
	var e errorBody
	if err := json.Unmarshal(b, &e); err != nil || e.Error == "" {
		return errs.New(errs.IO, "the deployment answered %d %s", code, http.StatusText(code))
	}
	for k := errs.Invalid; k <= errs.Unsupported; k++ {
		if k.String() == e.Kind {
			return errs.New(k, "%s", e.Error)
		}
	}
	return errs.New(errs.IO, "%s", e.Error)
}
