package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"vstor/dataplane/api"
	"vstor/dataplane/config"
	"vstor/dataplane/errs"
	"vstor/dataplane/node"
	"vstor/dataplane/stat"
)

// fake is a deployment of nothing.
type fake struct {
	mu     sync.Mutex
	cfg    config.Config
	disks  []api.VDisk
	closed int
	looks  int // at the statistics
}

func (f *fake) CreateVDisk(_ context.Context, name string, size int64) (api.VDisk, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.disks) > 0 {
		return api.VDisk{}, errs.New(errs.Exists, "the vDisk %s exists", name)
	}
	f.disks = append(f.disks, api.VDisk{Name: name, SizeBytes: size, URI: api.NBDURI(f.cfg.Dir, name)})
	return f.disks[0], nil
}

func (f *fake) ListVDisks(context.Context) ([]api.VDisk, error) { return f.disks, nil }
func (f *fake) ShowVDisk(_ context.Context, name string) (api.VDisk, error) {
	return api.VDisk{}, errs.New(errs.Absent, "there is no vDisk %s", name)
}
func (f *fake) SetVDisk(_ context.Context, name string, s api.VDiskSettings) (api.VDiskChange, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.disks) == 0 {
		return api.VDiskChange{}, errs.New(errs.Absent, "there is no vDisk %s", name)
	}
	d := &f.disks[0]
	if s.ReadOnly != nil {
		d.ReadOnly = *s.ReadOnly
	}
	if s.Allow != nil {
		d.Allow = s.Allow
	}
	if s.Cache != nil {
		d.NoCache = !*s.Cache
	}
	if s.BlockCacheQuota != nil {
		d.BlockCacheQuota = *s.BlockCacheQuota
	}
	return api.VDiskChange{VDisk: *d, Disconnected: len(s.Allow)}, nil
}
func (f *fake) ListCaches(context.Context) ([]api.CacheShare, error) {
	return []api.CacheShare{{VDisk: "demo", Cache: "block-ram", SizeBytes: 1 << 30, QuotaBytes: -1,
		Hits: 9, Misses: 1}}, nil
}
func (f *fake) VDiskStats(_ context.Context, name string) (api.VDiskStats, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looks++
	s := api.VDiskStats{Name: name, WriteBytes: uint64(f.looks) * 4096}
	s.Writes = api.Latency{Count: uint64(f.looks), Sum: uint64(f.looks) * 64000,
		Buckets: []api.Bucket{{Le: 65536, Count: uint64(f.looks)}}}
	s.Reads = []api.RungStats{{Rung: "overlay", Bytes: 4096, Latency: s.Writes}}
	return s, nil
}
func (f *fake) Reload(context.Context) error {
	return errs.New(errs.Refused, "there is nothing to read again")
}
func (f *fake) NBDURIs() []string                         { return []string{api.NBDURI(f.cfg.Dir, "")} }
func (f *fake) RemoveVDisk(context.Context, string) error { f.disks = nil; return nil }
func (f *fake) ListASDs(context.Context) ([]api.ASD, error) {
	return []api.ASD{{ID: 0, State: api.StateUp, SizeBytes: 8 << 30}}, nil
}
func (f *fake) Faults(context.Context, uint32, string) error     { return nil }
func (f *fake) ShowASD(context.Context, uint32) (api.ASD, error) { return api.ASD{ID: 3}, nil }
func (f *fake) Status(context.Context) (api.Status, error) {
	return api.Status{State: api.StateUp, Unprotected: []string{api.OneCopy}}, nil
}
func (f *fake) Memory(context.Context) (api.Memory, error) {
	return api.Memory{Pools: []api.Pool{{Name: "pages", User: "loops", BoundBytes: 1 << 20}}}, nil
}
func (f *fake) WriteMetrics(*stat.Page) {}
func (f *fake) Ready() error            { return nil }
func (f *fake) Close() error            { f.closed++; return nil }

// runVstor runs a command line as the shell would.
func runVstor(env []string, args ...string) (code int, stdout, stderr string) {
	var out, errOut bytes.Buffer
	a := &app{stdout: &out, stderr: &errOut, environ: env}
	a.start = func(context.Context, startup) (deployment, error) {
		return nil, errs.New(errs.IO, "the drives are on strike")
	}
	code = a.run(args)
	return code, out.String(), errOut.String()
}

// up runs a deployment until the test ends.
func up(t *testing.T, dir string, args ...string) *fake {
	t.Helper()
	f := &fake{}
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	a := &app{stdout: pw, stderr: os.Stderr}
	a.start = func(_ context.Context, s startup) (deployment, error) {
		f.cfg = s.cfg
		return f, nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := a.upCommand()
	cmd.Flags().StringVar(&a.dir, "dir", "", "")
	if err := cmd.ParseFlags(append(args, "--dir", dir)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- a.up(ctx, flagSource(cmd, config.Keys())) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil || f.closed != 1 {
			t.Errorf("up ended with %v, closed %d times", err, f.closed)
		}
		if _, err := os.Stat(filepath.Join(dir, "api.sock")); !os.IsNotExist(err) {
			t.Error("the API's socket is still there")
		}
	})
	line := make([]byte, 300)
	n, _ := pr.Read(line)
	if want := "ready nbd+unix:///?socket=" + dir + "/nbd.sock\n"; string(line[:n]) != want {
		t.Errorf("up printed %q, want %q", line[:n], want)
	}
	return f
}

func TestCommandLine(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	f := up(t, dir, "--asds", "6", "--asd-size", "64M", "--policy", "4,2,5,1", "--policy=2,2,3,1")
	if f.cfg.ASDSize != 64<<20 || len(f.cfg.Policies) != 2 || f.cfg.Dir != dir {
		t.Errorf("started with %+v", f.cfg)
	}
	env := []string{"VSTOR_DIR=" + dir}
	for _, c := range []struct {
		args string
		code int
		out  string // what stdout, or for a failure stderr, contains
	}{
		{"vdisk create demo --size 10G", 0, "created"},
		{"vdisk create demo --size 10G", 1, "the vDisk demo exists"},
		{"vdisk ls", 0, "demo  10.0 GiB"},
		{"vdisk ls --json", 0, `"size_bytes": 10737418240`},
		{"--json vdisk ls", 0, `"size_bytes": 10737418240`},
		{"vdisk --json ls", 0, `"size_bytes": 10737418240`},
		{"vdisk show nope", 1, "there is no vDisk nope"},
		{"vdisk show .nope", 1, "begins with"},
		{"vdisk create -x --size 1G", 2, "unknown shorthand flag"},
		{"vdisk create x --size banana", 1, "powers of 1024"},
		{"vdisk create x --size 65T", 1, "at most 64T"},
		{"vdisk create x", 2, "--size 10G"},
		{"vdisk create", 2, "needs NAME"},
		{"vdisk show demo --json", 1, "there is no vDisk demo"},
		{"vdisk stats demo", 0, "read overlay"},
		{"vdisk stats demo --json", 0, `"write_bytes_total": 8192`},
		{"vdisk stats demo --watch --interval 100ms --count 1", 0, "BYTES/S"},
		{"vdisk stats demo --watch --interval 100ms --count 1 --json", 0, `"count": 1,`},
		{"vdisk stats demo --watch --interval 1ms", 2, "at least 100ms"},
		{"cache ls", 0, "90.0 %"},
		{"cache ls --json", 0, `"quota_bytes": -1`},
		{"vdisk set demo --cache maybe", 1, "on or off"},
		{"vdisk set demo --block-cache-quota 0", 1, "a size like 2G, or default"},
		{"vdisk set demo --cache off", 0, "cache  off"},
		{"vdisk set demo --cache on --block-cache-quota 2G", 0, "at most 2.00 GiB"},
		{"vdisk set demo --block-cache-quota default", 0, "cache  on"},
		{"vdisk set demo", 2, "nothing to set"},
		{"vdisk set demo --read-only", 0, "read-only"},
		{"vdisk ls", 0, "read-only"},
		{"vdisk ls --json", 0, `"read_only": true`},
		{"vdisk set demo --read-only=false --allow unix --allow 10.0.0.0/8", 0, "open to  unix 10.0.0.0/8"},
		{"vdisk set demo --allow a --allow b --allow c --allow d --json", 0, `"disconnected": 4`},
		{"vdisk ls", 0, "a b c and 1 more"},
		{"vdisk set demo --read-only=maybe", 2, "invalid"},
		{"vdisk set .x --read-only", 1, "begins with"},
		{"vdisk set", 2, "needs NAME"},
		{"reload", 1, "nothing to read again"},
		{"serve", 2, "needs NAME"},
		{"serve demo", 1, "is run by process"},
		{"serve demo more", 2, "one word too many"},
		{"serve temporary:0", 1, "size"},
		{"serve .x", 1, "begins with"},
		{"vdisk rm demo extra", 2, "one word too many"},
		{"vdisk rm demo", 0, "removed"},
		{"vdisk frobnicate", 2, "it has create, ls, rm, set, show, stats"},
		{"asd ls", 0, "8.00 GiB"},
		{"asd show 3", 0, "fragments"},
		{"asd show three", 1, "a number from 0"},
		{"status", 0, "one copy, on this machine"},
		{"status --memory", 0, "pages"},
		{"status --memory --json", 0, `"allowance_bytes": 134217728`},
		{"status --frob", 2, "unknown flag: --frob"},
		{"frob", 2, `no command "frob"`},
		{"version", 0, "vstor " + node.Version},
		{"up", 1, "is run by process"},
		{"up --asds 5", 1, "is run by process"},
		{"up now", 2, "one word too many"},
		{"--dir /nowhere/at/all status", 1, "no running vstor deployment"},
		{"help", 0, "Available Commands"},
		{"", 0, "Available Commands"},
	} {
		code, stdout, stderr := runVstor(env, strings.Fields(c.args)...)
		text, other := stdout, stderr
		if c.code != 0 {
			text, other = stderr, stdout
		}
		if code != c.code || !strings.Contains(text, c.out) || other != "" {
			t.Errorf("vstor %s: exit code %d, stdout %q, stderr %q; want %d and %q", c.args, code, stdout, stderr, c.code, c.out)
		}
		if c.code == exitError && strings.Count(stderr, "\n") != 1 {
			t.Errorf("vstor %s: the error is not one line: %q", c.args, stderr)
		}
		if c.code == 0 && strings.Contains(c.args, "--json") && !json.Valid([]byte(stdout)) {
			t.Errorf("vstor %s: %q is no JSON", c.args, stdout)
		}
	}
}

// A start that fails leaves nothing; one that differs is refused.
func TestUpRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	for _, c := range []struct{ args, says string }{
		{"--asd-size 64M --asds x", "whole number"},
		{"--asd-size 64M --asd-memory 1M", "asd-memory is 1M; it must be from 32M"},
		{"--asd-size 64M --policy 8,2,9,1", "have room for 6"},
		{"--asd-size 64M --nbd-listen nonsense", "address with a port"},
		{"--asd-size 64M", "on strike"},
	} {
		code, _, stderr := runVstor(nil, append([]string{"up", "--dir", dir}, strings.Fields(c.args)...)...)
		if code != exitError || !strings.Contains(stderr, c.says) {
			t.Errorf("up %s: %d %q; want %q", c.args, code, stderr, c.says)
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("up %s left %s behind", c.args, dir)
		}
	}
	t.Run("first", func(t *testing.T) { up(t, dir, "--asd-size", "64M") })
	code, _, stderr := runVstor([]string{"VSTOR_ASDS=8"}, "up", "--dir", dir, "--asd-size", "128M")
	if code != exitError || !strings.Contains(stderr, "asds is 6 and cannot become 8") {
		t.Errorf("%d %q", code, stderr)
	}
	t.Run("again", func(t *testing.T) {
		if f := up(t, dir, "--asds", "6", "--memory", "99M"); f.cfg.ASDSize != 64<<20 {
			t.Errorf("the second start has %+v", f.cfg)
		}
	})
	t.Run("third", func(t *testing.T) {
		if f := up(t, dir); f.cfg.Memory != 99<<20 {
			t.Errorf("the third start has %+v", f.cfg)
		}
	})
}

func TestPanicBecomesASentence(t *testing.T) {
	var out, errOut bytes.Buffer
	a := &app{stdout: &out, stderr: &errOut}
	a.start = func(context.Context, startup) (deployment, error) {
		panic("BUG: test: seven is odd")
	}
	code := a.run([]string{"up", "--asd-size", "64M", "--dir", filepath.Join(t.TempDir(), "d")})
	text := errOut.String()
	if code != exitError || !strings.HasPrefix(text, "vstor: BUG: test: seven is odd") || strings.Count(text, "\n") != 1 {
		t.Fatalf("%d %q", code, text)
	}
	path := strings.TrimSuffix(text[strings.LastIndex(text, " ")+1:], ")\n")
	defer os.Remove(path)
	if b, err := os.ReadFile(path); err != nil || !strings.Contains(string(b), "TestPanicBecomesASentence") {
		t.Errorf("the stack file %s: %v %.80s", path, err, b)
	}
}

func TestUpStopsWhileStarting(t *testing.T) {
	a := &app{stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}, dir: filepath.Join(t.TempDir(), "d")}
	a.start = func(ctx context.Context, _ startup) (deployment, error) {
		<-ctx.Done()
		return nil, errs.New(errs.Canceled, "stopped while starting")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	err := a.up(ctx, config.Source{Values: map[string][]string{"asd-size": {"64M"}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(a.dir); !os.IsNotExist(err) {
		t.Error("a first start that was stopped left its folder behind")
	}
}
