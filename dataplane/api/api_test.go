package api

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"

	"vstor/dataplane/errs"
	"vstor/dataplane/stat"
)

// fake is a System without a deployment.
type fake struct {
	mu    sync.Mutex
	disks map[string]VDisk
	ready error

	reloads int
}

func (f *fake) CreateVDisk(_ context.Context, name string, size int64) (VDisk, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.disks[name]; ok {
		return VDisk{}, errs.New(errs.Exists, "the vDisk %s exists", name)
	}
	if size > 1<<40 {
		return VDisk{}, errs.New(errs.Full, "no room for %s", name)
	}
	f.disks[name] = VDisk{Name: name, SizeBytes: size}
	return f.disks[name], nil
}

func (f *fake) ListVDisks(context.Context) ([]VDisk, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []VDisk
	for _, v := range f.disks {
		out = append(out, v)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}

func (f *fake) ShowVDisk(_ context.Context, name string) (VDisk, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v, ok := f.disks[name]
	if !ok {
		return v, errs.New(errs.Absent, "there is no vDisk %s", name)
	}
	return v, nil
}

func (f *fake) SetVDisk(_ context.Context, name string, s VDiskSettings) (VDiskChange, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v, ok := f.disks[name]
	if !ok {
		return VDiskChange{}, errs.New(errs.Absent, "there is no vDisk %s", name)
	}
	if s.ReadOnly != nil {
		v.ReadOnly = *s.ReadOnly
	}
	if s.Allow != nil {
		v.Allow = s.Allow
	}
	f.disks[name] = v
	return VDiskChange{v, len(s.Allow)}, nil
}

func (f *fake) ListCaches(context.Context) ([]CacheShare, error) {
	return []CacheShare{{VDisk: "demo", Cache: "block-ram", Hits: 3, Misses: 1}}, nil
}

func (f *fake) VDiskStats(ctx context.Context, name string) (VDiskStats, error) {
	v, err := f.ShowVDisk(ctx, name)
	var h stat.Histogram
	h.Record(1000)
	h.Record(5000)
	var s stat.Snapshot
	h.AddTo(&s)
	return VDiskStats{Name: v.Name, Writes: NewLatency(&s), Reads: []RungStats{{Rung: "drive", Bytes: 8192}}}, err
}

func (f *fake) Reload(context.Context) error { f.reloads++; return nil }

func (f *fake) RemoveVDisk(_ context.Context, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if name == "busy" {
		return errs.New(errs.Busy, "the vDisk busy is in use")
	}
	delete(f.disks, name)
	return nil
}

func (f *fake) ListASDs(context.Context) ([]ASD, error) { return []ASD{{ID: 0}, {ID: 1}}, nil }

func (f *fake) Faults(_ context.Context, id uint32, rules string) error {
	if id != 3 || rules != "drive fail" {
		return errs.New(errs.Absent, "there is no ASD %d", id)
	}
	return nil
}

func (f *fake) ShowASD(_ context.Context, id uint32) (ASD, error) {
	if id > 1 {
		return ASD{}, errs.New(errs.Absent, "there is no ASD %d", id)
	}
	return ASD{ID: id, State: StateUp}, nil
}

func (f *fake) Status(context.Context) (Status, error) { return Status{State: StateUp, ASDs: 2}, nil }

func (f *fake) Memory(context.Context) (Memory, error) {
	return Memory{Pools: []Pool{{Name: "a", BoundBytes: 5}, {Name: "b", BoundBytes: 7}}}, nil
}

func (f *fake) WriteMetrics(p *stat.Page) { p.Gauge("vstor_vdisks", "vDisks.", float64(len(f.disks))) }
func (f *fake) Ready() error              { return f.ready }

func start(t *testing.T) (*fake, *Client, string) {
	t.Helper()
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "format"), []byte("vstor 1\n"), 0o600)
	l, err := net.Listen("unix", filepath.Join(dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{disks: map[string]VDisk{}}
	s := NewServer(f, slog.New(slog.NewTextHandler(io.Discard, nil)))
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	c := NewClient(dir)
	t.Cleanup(func() {
		c.Close()
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return f, c, dir
}

func TestClientAndServer(t *testing.T) {
	_, c, _ := start(t)
	ctx := context.Background()
	v, err := c.CreateVDisk(ctx, "demo", 4097)
	if err != nil || v.SizeBytes != 8192 {
		t.Fatal(v, err)
	}
	if _, err = c.CreateVDisk(ctx, "demo", 4096); errs.Of(err) != errs.Exists || err.Error() != "the vDisk demo exists" {
		t.Errorf("a second demo: %v", err)
	}
	if _, err = c.CreateVDisk(ctx, "big", 2<<40); errs.Of(err) != errs.Full {
		t.Errorf("big: %v", err)
	}
	for _, size := range []int64{0, -1, 65 << 40} {
		if _, err = c.CreateVDisk(ctx, "x", size); errs.Of(err) != errs.Invalid {
			t.Errorf("size %d: %v", size, err)
		}
	}
	if _, err = c.CreateVDisk(ctx, "../etc", 4096); errs.Of(err) != errs.Invalid {
		t.Errorf("a bad name: %v", err)
	}
	yes := true
	ch, err := c.SetVDisk(ctx, "demo", VDiskSettings{ReadOnly: &yes})
	if err != nil || !ch.ReadOnly || ch.Allow != nil || ch.Disconnected != 0 {
		t.Errorf("read-only: %+v %v", ch, err)
	}
	ch, err = c.SetVDisk(ctx, "demo", VDiskSettings{Allow: []string{"unix", "10.0.0.0/8"}})
	if err != nil || !ch.ReadOnly || len(ch.Allow) != 2 || ch.Disconnected != 2 {
		t.Errorf("an access list: %+v %v", ch, err)
	}
	if _, err = c.SetVDisk(ctx, "none", VDiskSettings{ReadOnly: &yes}); errs.Of(err) != errs.Absent {
		t.Errorf("none: %v", err)
	}
	if _, err = c.SetVDisk(ctx, "demo", VDiskSettings{}); errs.Of(err) != errs.Invalid {
		t.Errorf("no change: %v", err)
	}
	yes, quota := false, int64(1<<20)
	if _, err = c.SetVDisk(ctx, "demo", VDiskSettings{Cache: &yes, BlockCacheQuota: &quota}); err != nil {
		t.Error(err)
	}
	if quota = -1; err == nil {
		if _, err = c.SetVDisk(ctx, "demo", VDiskSettings{BlockCacheQuota: &quota}); errs.Of(err) != errs.Invalid {
			t.Errorf("a negative quota: %v", err)
		}
	}
	if l, err := c.ListCaches(ctx); err != nil || len(l) != 1 || l[0].HitRatio() != 0.75 {
		t.Errorf("caches: %+v %v", l, err)
	}
	st, err := c.VDiskStats(ctx, "demo")
	if err != nil || st.Name != "demo" || st.Writes.Count != 2 || st.Writes.Max != 5e-6 || st.Reads[0].Bytes != 8192 {
		t.Errorf("statistics: %+v %v", st, err)
	}
	if _, err = c.VDiskStats(ctx, "none"); errs.Of(err) != errs.Absent {
		t.Errorf("none: %v", err)
	}
	if err := c.Reload(ctx); err != nil {
		t.Error(err)
	}
	list, err := c.ListVDisks(ctx)
	if err != nil || len(list) != 1 || list[0].Name != "demo" {
		t.Error(list, err)
	}
	if _, err = c.ShowVDisk(ctx, "none"); errs.Of(err) != errs.Absent {
		t.Errorf("none: %v", err)
	}
	if err = c.RemoveVDisk(ctx, "busy"); errs.Of(err) != errs.Busy {
		t.Errorf("busy: %v", err)
	}
	if err = c.RemoveVDisk(ctx, "demo"); err != nil {
		t.Error(err)
	}
	if a, err := c.ListASDs(ctx); err != nil || len(a) != 2 {
		t.Error(a, err)
	}
	if err := c.Faults(ctx, 3, "drive fail"); err != nil {
		t.Error(err)
	}
	if err := c.Faults(ctx, 4, ""); errs.Of(err) != errs.Absent {
		t.Error(err)
	}
	if _, err := c.ShowASD(ctx, 9); errs.Of(err) != errs.Absent {
		t.Error(err)
	}
	if s, err := c.Status(ctx); err != nil || s.ASDs != 2 {
		t.Error(s, err)
	}
	m, err := c.Memory(ctx)
	if err != nil || m.PoolBytes != 12 || m.AllowanceBytes != MemoryAllowance || m.ResidentBytes < 1<<20 {
		t.Error(m, err)
	}
}

// What a stranger may send, and the status, kind and words it gets.
func TestHTTP(t *testing.T) {
	f, c, _ := start(t)
	do := func(method, path, body string) (int, string) {
		req, err := http.NewRequest(method, "http://vstor"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	for _, q := range []struct {
		method, path, body string
		code               int
		says               string
	}{
		{"GET", "/healthz", "", 200, "ok"},
		{"GET", "/readyz", "", 200, "ready"},
		{"GET", "/api/v1/vdisks", "", 200, `{"vdisks":[]}`},
		{"POST", "/api/v1/vdisks", `{"name":"a","size":"10G"}`, 201, `"size_bytes":10737418240`},
		{"POST", "/api/v1/vdisks", `{"name":"a","size":"10G"}`, 409, `"kind":"exists"`},
		{"POST", "/api/v1/vdisks", `{"name":"b","size":"10X"}`, 400, `powers of 1024`},
		{"POST", "/api/v1/vdisks", `{"name":"b","size":"1G","size_bytes":5}`, 400, `give one`},
		{"POST", "/api/v1/vdisks", `{"name":"b","sise":"1G"}`, 400, `sise`},
		{"POST", "/api/v1/vdisks", `{"name":"b"`, 400, `the body must be like`},
		{"POST", "/api/v1/vdisks", strings.Repeat("x", 70<<10), 413, `larger than 64 KiB`},
		{"PUT", "/api/v1/vdisks", "", 405, `use GET`},
		{"GET", "/api/v1/vdisks/-x", "", 400, `begins with`},
		{"GET", "/api/v1/vdisks/zz", "", 404, `"kind":"absent"`},
		{"PATCH", "/api/v1/vdisks/a", `{"read_only":true}`, 200, `"read_only":true`},
		{"PATCH", "/api/v1/vdisks/a", `{"allow":["unix"]}`, 200, `"disconnected":1`},
		{"PATCH", "/api/v1/vdisks/a", `{}`, 400, `nothing to change`},
		{"PATCH", "/api/v1/vdisks/a", `{"allow":[]}`, 400, `takes the access list away`},
		{"PATCH", "/api/v1/vdisks/a", `{"readonly":true}`, 400, `the body must be like`},
		{"PATCH", "/api/v1/vdisks/zz", `{"read_only":true}`, 404, `"kind":"absent"`},
		{"PUT", "/api/v1/vdisks/a", `{"read_only":true}`, 405, `use GET`},
		{"DELETE", "/api/v1/vdisks/a", "", 204, ``},
		{"POST", "/api/v1/reload", "", 204, ``},
		{"GET", "/api/v1/reload", "", 405, `use POST`},
		{"GET", "/api/v1/asds", "", 200, `"id":1`},
		{"GET", "/api/v1/asds/1", "", 200, `"state":"up"`},
		{"GET", "/api/v1/asds/one", "", 400, `a number from 0`},
		{"DELETE", "/api/v1/asds/1", "", 405, `use GET`},
		{"GET", "/api/v1/status", "", 200, `"state":"up"`},
		{"GET", "/api/v1/status/memory", "", 200, `"pool_bytes":12`},
		{"GET", "/api/v2/status", "", 404, `below /api/v1/ there are`},
		{"GET", "/", "", 404, `below /api/v1/ there are`},
		{"GET", "/debug/pprof/goroutine?debug=1", "", 200, `goroutine profile`},
		{"GET", "/metrics", "", 200, "# TYPE vstor_vdisks gauge\nvstor_vdisks 0\n"},
		{"GET", "/metrics", "", 200, "process_resident_memory_bytes "},
		{"POST", "/metrics", "", 405, `use GET`},
	} {
		code, body := do(q.method, q.path, q.body)
		if code != q.code || !strings.Contains(body, q.says) {
			t.Errorf("%s %s: %d %.300s; want %d and %s", q.method, q.path, code, body, q.code, q.says)
		}
		var e errorBody
		if code >= 400 && (json.Unmarshal([]byte(body), &e) != nil || e.Error == "" || e.Kind == "") {
			t.Errorf("%s %s: the error is %s", q.method, q.path, body)
		}
	}
	f.ready = errs.New(errs.Closed, "replaying")
	if code, body := do("GET", "/readyz", ""); code != 503 || body != "not ready: replaying\n" {
		t.Errorf("not ready: %d %s", code, body)
	}
}

func TestNobodyThere(t *testing.T) {
	dir := t.TempDir()
	_, err := NewClient(dir).Status(context.Background())
	if errs.Of(err) != errs.Unreachable || !strings.Contains(err.Error(), "no running vstor deployment") {
		t.Error(err)
	}
	os.WriteFile(filepath.Join(dir, "format"), []byte("vstor 1\n"), 0o600)
	_, err = NewClient(dir).Status(context.Background())
	if errs.Of(err) != errs.Unreachable || !strings.Contains(err.Error(), "vstor up --dir "+dir) {
		t.Error(err)
	}
}

func FuzzParseCreate(f *testing.F) {
	f.Add([]byte(`{"name":"a","size":"10G"}`))
	f.Add([]byte(`{"name":"a","size_bytes":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseCreate(b)
		if err == nil && (r.SizeBytes <= 0 || r.SizeBytes%4096 != 0 || r.Name == "") {
			t.Fatalf("%q gives %+v", b, r)
		}
	})
}

// Since takes the earlier counts away; a vDisk that was opened anew in between starts from nothing.
func TestStatsSince(t *testing.T) {
	at := func(values ...int64) Latency {
		var h stat.Histogram
		for _, v := range values {
			h.Record(v)
		}
		var s stat.Snapshot
		h.AddTo(&s)
		return NewLatency(&s)
	}
	then := VDiskStats{Writes: at(1000), WriteBytes: 10, Reads: []RungStats{{Rung: "drive", Bytes: 4, Latency: at(5)}}}
	now := VDiskStats{Writes: at(1000, 9000, 9000), WriteBytes: 30, Reads: []RungStats{
		{Rung: "overlay", Bytes: 7, Latency: at(3)}, {Rung: "drive", Bytes: 5, Latency: at(5, 6)}}}
	d := now.Since(then)
	if d.Writes.Count != 2 || d.Writes.Sum != 18000 || d.Writes.P50 < 9e-6 || d.WriteBytes != 20 ||
		d.Reads[0].Bytes != 7 || d.Reads[1].Bytes != 1 || d.Reads[1].Count != 1 {
		t.Errorf("%+v", d)
	}
	if d = then.Since(now); d.Writes.Count != 1 || d.WriteBytes != 10 || d.Reads[0].Bytes != 4 {
		t.Errorf("after it was opened anew: %+v", d)
	}
}
