//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vstor/bench/nbdc"
	"vstor/bench/stamp"
	"vstor/dataplane/api"
)

// child is the process of a role, 0 if none runs.
func (d *deployment) child(name string) int {
	b, _ := os.ReadFile(filepath.Join(d.dir, "run", name+".pid"))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return pid
}

func (d *deployment) signalChild(name string, sig syscall.Signal) {
	d.t.Helper()
	if pid := d.child(name); pid > 1 {
		if err := syscall.Kill(pid, sig); err == nil {
			return
		}
	}
	d.t.Fatalf("%s does not run", name)
}

// rung is how many blocks the edge has read by one rung of the ladder, as the parent's metrics page tells.
func (d *deployment) rung(name string) float64 {
	d.t.Helper()
	c := api.NewClient(d.dir)
	defer c.Close()
	page, err := c.Metrics(context.Background())
	if err != nil {
		d.t.Fatal(err)
	}
	for _, line := range strings.Split(string(page), "\n") {
		if strings.HasPrefix(line, "vstor_edge_blocks_read_total{") && strings.Contains(line, `rung="`+name+`"`) {
			v, err := strconv.ParseFloat(line[strings.LastIndex(line, " ")+1:], 64)
			if err != nil {
				d.t.Fatal(err)
			}
			return v
		}
	}
	d.t.Fatalf("the metrics do not tell of the rung %q", name)
	return 0
}

// readAll reads n bytes from the vDisk's start on and returns the error if there is one.
func readAll(c *nbdc.Conn, p []byte) error {
	for off := 0; off < len(p); off += 1 << 20 {
		if err := c.Read(p[off:off+1<<20], int64(off)); err != nil {
			return fmt.Errorf("read at %d: %w", off, err)
		}
	}
	return nil
}

// noise writes n random bytes, from the vDisk's start on, and returns them.
func (d *deployment) noise(c *nbdc.Conn, n int, seed byte) []byte {
	d.t.Helper()
	p := make([]byte, n)
	for i, rng := 0, rand.NewChaCha8([32]byte{seed}); i < n; i += 1 << 20 {
		rng.Read(p[i : i+1<<20])
		if err := c.Write(p[i:i+1<<20], int64(i), 0); err != nil {
			d.t.Fatal(err)
		}
	}
	return p
}

// learn reads the vDisk's first bytes until the edge knows where all of them lie.
func (d *deployment) learn(c *nbdc.Conn, want []byte) {
	d.t.Helper()
	got := make([]byte, len(want))
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		before := d.rung("driver")
		if err := readAll(c, got); err != nil || !bytes.Equal(got, want) {
			d.t.Fatal("wrong bytes, or ", err)
		}
		if d.rung("driver") == before {
			return
		}
		if time.Now().After(end) {
			d.t.Fatal("the edge does not learn where the oldest blocks lie")
		}
	}
}

// The router is stopped for ten seconds: all that the edge knows the place of is read on from the ASDs, the metrics
// page is there and says so, and what the edge does not know waits.
func TestReadsWhileTheRouterIsStopped(t *testing.T) {
	const known, size = 32 << 20, 192 << 20
	d := newDeployment(t, append(small, "--processes")...)
	d.start()
	d.vstor("vdisk", "create", "v", "--size", strconv.Itoa(size))
	c, err := d.dial("v")()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Abort()
	want := d.noise(c, size, 1)
	got := make([]byte, known)
	d.learn(c, want[:known])
	driver, location := d.rung("driver"), d.rung("location")
	d.signalChild("router-0", syscall.SIGSTOP)
	defer d.signalChild("router-0", syscall.SIGCONT)
	reads := 0
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); reads++ {
		clear(got)
		if err := readAll(c, got); err != nil || !bytes.Equal(got, want[:known]) {
			t.Fatal("wrong bytes, or ", err)
		}
	}
	if d.rung("driver") != driver || d.rung("location") != location+float64(reads*known/4096) {
		t.Errorf("%d times %d blocks were read; the rungs went from %v and %v to %v and %v", reads, known/4096, driver,
			location, d.rung("driver"), d.rung("location"))
	}
	s := d.status()
	if s.State != "degraded" || !strings.Contains(strings.Join(s.Reasons, " "), "router-0 does not answer") {
		t.Errorf("the status is %s: %q", s.State, s.Reasons)
	}
	t.Logf("%d MiB read while the router was stopped", reads*known>>20)
	d.signalChild("router-0", syscall.SIGCONT)
	rest := make([]byte, size)
	if err := readAll(c, rest); err != nil || !bytes.Equal(rest, want) {
		t.Fatal("wrong bytes, or ", err)
	}
}

// Bits of two ASDs' drives are flipped under an edge that reads them itself. It returns the right bytes, the router
// hears of what it met, and has it written anew: after a while there is nothing to be met.
func TestEdgeTellsOfRot(t *testing.T) {
	const known, size = 16 << 20, 160 << 20
	d := newDeployment(t, append(small, "--processes", "--block-cache", "0")...)
	d.start()
	d.vstor("vdisk", "create", "v", "--size", strconv.Itoa(size))
	c, err := d.dial("v")()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Abort()
	want := d.noise(c, size, 2)
	d.learn(c, want[:known])
	rng := rand.New(rand.NewPCG(1, 2))
	for asd := range 2 {
		places := byKind(blocksOf(t, filepath.Join(d.dir, fmt.Sprintf("asd-%d", asd), "data"), asd, "ASD", 2<<20))
		for range 400 {
			flip(t, places["ASD payload"], rng)
		}
	}
	got := make([]byte, known)
	met := func() float64 {
		if err := readAll(c, got); err != nil || !bytes.Equal(got, want[:known]) {
			t.Fatal("wrong bytes, or ", err)
		}
		return d.counted("vstor_corrupt_blocks_total")
	}
	before := met()
	if before == 0 {
		t.Fatal("no flip was met")
	}
	for end := time.Now().Add(90 * time.Second); ; time.Sleep(500 * time.Millisecond) {
		now := met()
		if now == before {
			break
		}
		if before = now; time.Now().After(end) {
			t.Fatalf("%v blocks were met that are damaged, and it goes on", now)
		}
	}
	if n := d.counted("vstor_router_rot_reports_total"); n == 0 {
		t.Error("the router was not told")
	}
}

// counted is the sum of all metrics that begin with a prefix.
func (d *deployment) counted(prefix string) (sum float64) {
	d.t.Helper()
	for _, line := range strings.Split(d.get("/metrics"), "\n") {
		if strings.HasPrefix(line, prefix) {
			var v float64
			fmt.Sscan(line[strings.LastIndex(line, " ")+1:], &v)
			sum += v
		}
	}
	return sum
}

// What an edge reads again and again it keeps as whole fragments in a cache of its own, which outlives the edge.
func TestEdgeKeepsFragments(t *testing.T) {
	const known, size = 8 << 20, 160 << 20
	d := newDeployment(t, append(small, "--processes", "--block-cache", "0", "--fragment-size", "256k", "--fragment-cache",
		"64M")...)
	d.start()
	d.vstor("vdisk", "create", "v", "--size", strconv.Itoa(size))
	c, err := d.dial("v")()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { c.Abort() }()
	want, got := d.noise(c, size, 3), make([]byte, known)
	d.learn(c, want[:known])
	until := func(what string, met func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !met(); time.Sleep(50 * time.Millisecond) {
			if err := readAll(c, got); err != nil || !bytes.Equal(got, want[:known]) {
				t.Fatal("wrong bytes, or ", err)
			}
			if time.Now().After(end) {
				t.Fatalf("%s: %v fills and %v hits", what, d.counted("vstor_fragment_cache_fills_total"),
					d.counted("vstor_fragment_cache_hits_total"))
			}
		}
	}
	const hits = `vstor_fragment_cache_hits_total{process="edge-0"}`
	until("the edge fills its cache", func() bool { return d.counted(hits) > 100 })
	if list := d.vstor("cache", "ls"); !strings.Contains(list, "fragments") {
		t.Errorf("the list of caches is\n%s", list)
	}
	d.vstor("vdisk", "set", "v", "--cache", "off")
	before := d.counted(hits)
	if err := readAll(c, got); err != nil || d.counted(hits) != before {
		t.Error("a cache that is switched off is read, or ", err)
	}
	d.vstor("vdisk", "set", "v", "--cache", "on")
	d.signalChild("edge-0", syscall.SIGKILL)
	d.untilServed("v")
	if c, err = d.dial("v")(); err != nil {
		t.Fatal(err)
	}
	d.learn(c, want[:known])
	until("the next edge finds it", func() bool { return d.counted(hits) > 0 })
}

// second starts an edge of its own beside the deployment's.
func (d *deployment) second(args ...string) (socket string, stop func()) {
	d.t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "vstor-e2e-")
	if err != nil {
		d.t.Fatal(err)
	}
	cmd := exec.Command(binary(d.t), append([]string{"edge", "run", "--config", filepath.Join(d.dir, "run", "edge-0.toml"),
		"--dir", dir, "--api", filepath.Join(dir, "api"), "--name", "second"}, args...)...)
	cmd.Stderr = d
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	socket = filepath.Join(dir, "nbd.sock")
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			break
		}
	}
	return socket, func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		os.RemoveAll(dir)
	}
}

// Two edges, one vDisk. The second is refused; with --takeover it has the vDisk, and the first gets errors, writes
// nothing that lands and reads nothing from what it knew, also when it was stopped meanwhile.
func TestTakeover(t *testing.T) {
	for _, stopped := range []bool{false, true} {
		t.Run(fmt.Sprintf("stopped %v", stopped), func(t *testing.T) {
			d := newDeployment(t, append(small, "--processes")...)
			d.start()
			d.vstor("vdisk", "create", "v", "--size", "16M")
			first, err := d.dial("v")()
			if err != nil {
				t.Fatal(err)
			}
			defer first.Abort()
			old, now := bytes.Repeat([]byte{1}, 1<<20), bytes.Repeat([]byte{2}, 1<<20)
			if err := first.Write(old, 0, 0); err != nil {
				t.Fatal(err)
			}
			socket, stop := d.second()
			if c, err := nbdc.Dial("unix", socket, "v"); err == nil {
				c.Abort()
				t.Error("a second edge opens what the first one has")
			} else if !strings.Contains(err.Error(), "open at edge") {
				t.Errorf("it is refused with %v", err)
			}
			stop()
			if stopped {
				d.signalChild("edge-0", syscall.SIGSTOP)
			}
			socket, stop = d.second("--takeover")
			defer stop()
			second, err := nbdc.Dial("unix", socket, "v")
			for begin := time.Now(); err != nil && time.Since(begin) < time.Minute; { // the first one's lease has to run out
				second, err = nbdc.Dial("unix", socket, "v")
			}
			if err != nil {
				t.Fatal(err)
			}
			defer second.Abort()
			if err := second.Write(now, 0, 0); err != nil {
				t.Fatal(err)
			}
			read, write := make(chan error, 1), make(chan error, 1)
			go func() { write <- first.Write(old, 0, 0) }()
			go func() { read <- first.Read(make([]byte, 4096), 0) }()
			if stopped {
				d.signalChild("edge-0", syscall.SIGCONT)
			}
			if err := <-read; err == nil {
				t.Error("the first edge answers a read")
			}
			if err := <-write; err == nil {
				t.Error("the first edge takes a write")
			}
			got := make([]byte, 1<<20)
			if err := second.Read(got, 0); err != nil || !bytes.Equal(got, now) {
				t.Errorf("a write of the fenced edge has landed, or %v", err)
			}
		})
	}
}

// After an orderly stop nobody waits for the lease of an edge that had gone before; and an edge that is told to use the
// folder of another is refused, and takes nothing from it.
func TestNothingIsLeftOfAnEdge(t *testing.T) {
	d := newDeployment(t, append(small, "--processes")...)
	d.start()
	d.vstor("vdisk", "create", "v", "--size", "16M")
	c, err := d.dial("v")()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Write(make([]byte, 1<<20), 0, 0); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(d.dir, "run", "edge-0.toml")
	out, err := exec.Command(binary(t), "edge", "run", "--config", file).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "is run by process "+strconv.Itoa(d.child("edge-0"))) {
		t.Errorf("a second edge in the same folder: %v\n%s", err, out)
	}
	d.untilServed("v")
	c.Close()
	time.Sleep(time.Second) // the edge gives the vDisk back
	d.stop()
	d.start()
	d.vstor("vdisk", "rm", "v")
}

// With two CPUs to keep to, the loops of edge and router have one each, not both the first.
func TestLoopsKeepApart(t *testing.T) {
	var may unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil || !may.IsSet(0) || !may.IsSet(1) {
		t.Skip("SKIPPED: CPUs 0 and 1 are not for us")
	}
	d := newDeployment(t, append(small, "--processes", "--loops", "1", "--loop-cpus", "0,1")...)
	d.start()
	for child, want := range map[string]string{"edge-0": "0", "router-0": "1"} {
		kept, all := 0, 0
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", d.child(child)))
		for _, path := range lists {
			b, _ := os.ReadFile(path)
			_, list, _ := strings.Cut(string(b), "Cpus_allowed_list:")
			list, _, _ = strings.Cut(list, "\n")
			if all++; strings.TrimSpace(list) == want {
				kept++
			}
		}
		if kept == 0 || kept == all {
			t.Errorf("%d of %d threads of %s keep to CPU %s", kept, all, child, want)
		}
	}
}

// Router and edge are killed under load: a client of the edge sees a pause when the router dies and no error, and
// nothing acknowledged is lost either way.
func TestRouterAndEdgeKilled(t *testing.T) {
	const diskSize = 128 << 20
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	d := newDeployment(t, append(small, "--processes")...)
	d.start()
	d.vstor("vdisk", "create", "stamped", "--size", strconv.Itoa(diskSize))
	c, err := stamp.New(stamp.Options{Dial: d.dial("stamped"), Blocks: diskSize / stamp.BlockSize, MaxRun: 64,
		Connections: 4, Depth: 8, Seed: seed, Volume: 1})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
		victim := []string{"router-0", "edge-0"}[i%2]
		pid := d.child(victim)
		time.AfterFunc(time.Duration(500+rng.IntN(1500))*time.Millisecond, func() { syscall.Kill(pid, syscall.SIGKILL) })
		st, err := c.Run(ctx)
		cancel()
		if err != nil {
			t.Fatalf("%s: %v", victim, err)
		}
		if st.Refused > 0 || victim == "router-0" && st.Lost > 0 {
			t.Errorf("%s: %d requests got an error (%s), %d no answer", victim, st.Refused, st.Last, st.Lost)
		}
		d.untilServed("stamped")
		if err := c.Verify(); err != nil {
			t.Fatalf("after %s was killed: %v", victim, err)
		}
		t.Logf("%s: %d acknowledged, %d under way", victim, st.Acked, st.Lost)
	}
	d.stop()
	d.start()
	if err := c.Verify(); err != nil {
		t.Fatalf("after an orderly stop: %v", err)
	}
}

// untilServed waits until a vDisk can be opened and read.
func (d *deployment) untilServed(name string) {
	d.t.Helper()
	var last error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		c, err := d.dial(name)()
		if last = err; err != nil {
			continue
		}
		last = c.Read(make([]byte, 4096), 0)
		c.Abort()
		if last == nil {
			return
		}
	}
	d.t.Fatalf("it does not come back: %v", last)
}
