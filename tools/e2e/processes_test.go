//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"vstor/bench/stamp"
	"vstor/dataplane/api"
)

// pid is the process of an ASD, 0 if none runs.
func (d *deployment) pid(asd int) int {
	b, err := os.ReadFile(filepath.Join(d.dir, "run", fmt.Sprintf("asd-%d.pid", asd)))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return pid
}

func (d *deployment) signal(asd int, sig syscall.Signal) {
	if pid := d.pid(asd); pid > 1 {
		syscall.Kill(pid, sig)
	}
}

// untilUp waits until n ASDs are up.
func (d *deployment) untilUp(n int) {
	d.t.Helper()
	for begin := time.Now(); time.Since(begin) < 3*time.Minute; time.Sleep(50 * time.Millisecond) {
		if d.status().ASDsUp == n {
			return
		}
	}
	d.t.Fatalf("after three minutes %d ASDs are up, not %d", d.status().ASDsUp, n)
}

// chaos kills, stops and continues ASDs at random, never more than two at once, until ctx ends; all are well
// when it returns.
func chaos(ctx context.Context, d *deployment, rng *rand.Rand, notes *diary) (kills, stops int) {
	signal := func(asd int, s syscall.Signal) {
		notes.add("ASD %d: %v", asd, s)
		d.signal(asd, s)
	}
	pause := func(least, most int) {
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(least+rng.IntN(most-least)) * time.Millisecond):
		}
	}
	for ctx.Err() == nil {
		first := rng.IntN(6)
		victims := []int{first, (first + 1 + rng.IntN(5)) % 6}[:1+rng.IntN(2)]
		var stopped []int
		for _, v := range victims {
			switch rng.IntN(3) {
			case 0:
				signal(v, syscall.SIGKILL)
				kills++
			case 1:
				signal(v, syscall.SIGTERM)
				kills++
			default:
				signal(v, syscall.SIGSTOP)
				stopped = append(stopped, v)
				stops++
			}
			pause(0, 200)
		}
		pause(100, 4000)
		for _, v := range stopped {
			signal(v, syscall.SIGCONT)
		}
		for ctx.Err() == nil && d.status().ASDsUp < 6 { // never more than two at once
			time.Sleep(20 * time.Millisecond)
		}
		notes.add("all are up")
		pause(0, 500)
	}
	return kills, stops
}

// diary is what happened last, so that a slow request can be told from what.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (y *diary) add(format string, args ...any) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.lines = append(y.lines, time.Now().UTC().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
	y.lines = y.lines[max(0, len(y.lines)-60):]
}

func (y *diary) String() string {
	y.mu.Lock()
	defer y.mu.Unlock()
	return strings.Join(y.lines, "\n")
}

// watchSlow keeps the diary as it was when a request had taken longer than any before, and than most: by which rung
// of the read ladder, and what had happened to ASDs. slow is that diary, once ctx has ended.
func (d *deployment) watchSlow(ctx context.Context, vdisk string, most time.Duration,
	notes *diary) (slow func() string) {
	var kept string
	done := make(chan struct{})
	go func() {
		defer close(done)
		c := api.NewClient(d.dir)
		defer c.Close()
		worst := most.Seconds()
		for ; ctx.Err() == nil; time.Sleep(100 * time.Millisecond) {
			s, err := c.VDiskStats(ctx, vdisk)
			if err != nil {
				continue // it comes again; what is amiss fio tells
			}
			was := worst
			for _, r := range append(s.Reads, api.RungStats{Rung: "write", Latency: s.Writes}) {
				if r.Max > was {
					worst = max(worst, r.Max)
					notes.add("%s: %.0f ms", r.Rung, r.Max*1e3)
				}
			}
			if worst > was {
				kept = notes.String()
			}
		}
	}()
	return func() string {
		<-done
		return kept
	}
}

type fioReport struct {
	Jobs []struct {
		Error       int
		Read, Write struct {
			TotalIOs int64 `json:"total_ios"`
			Lat      struct {
				Max float64
				Pct map[string]float64 `json:"percentile"`
			} `json:"lat_ns"`
		}
	}
}

// fio verifies what it writes while ASDs are killed, stopped and continued: no error, no wrong byte, and
// nobody waits longer than a second where nothing else runs. VSTOR_CHAOS, for how long, like 10m, says that this is so.
func TestASDsComeAndGo(t *testing.T) {
	t.Parallel()
	need(t, "fio")
	span, most := 30*time.Second, 20*time.Second
	if v, err := time.ParseDuration(os.Getenv("VSTOR_CHAOS")); err == nil {
		span, most = v, time.Second
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d, %v", seed, span)
	d := newDeployment(t, "--asd-size", "2G", "--journal", "256M", "--processes")
	d.start()
	d.vstor("vdisk", "create", "fio", "--size", "1G")
	out := filepath.Join(t.TempDir(), "fio.json")
	cmd := exec.Command("fio", "--name=v", "--ioengine=nbd", "--uri="+d.uri("fio"), "--rw=randwrite", "--bsrange=4k-64k",
		"--iodepth=16", "--size=1G", "--verify=crc32c", "--verify_backlog=512", "--verify_fatal=1", "--do_verify=1",
		"--time_based", fmt.Sprintf("--runtime=%d", int(span.Seconds())), "--thread", "--randseed=7", "--rate=,40m",
		"--output-format=json", "--output="+out)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), span)
	defer cancel()
	var notes diary
	slow := d.watchSlow(ctx, "fio", most, &notes)
	type sums struct{ kills, stops int }
	ended := make(chan sums)
	go func() {
		k, s := chaos(ctx, d, rand.New(rand.NewPCG(seed, 2)), &notes)
		ended <- sums{k, s}
	}()
	ferr := cmd.Wait()
	cancel()
	s := <-ended
	b, _ := os.ReadFile(out)
	var r fioReport
	if i := strings.IndexByte(string(b), '{'); i < 0 || json.Unmarshal(b[i:], &r) != nil || len(r.Jobs) != 1 {
		t.Fatalf("fio: %v: %.2000s", ferr, b)
	}
	j := &r.Jobs[0]
	t.Logf("%d ASDs killed, %d stopped; %d writes, longest %.0f ms; %d reads, longest %.0f ms", s.kills, s.stops,
		j.Write.TotalIOs, j.Write.Lat.Max/1e6, j.Read.TotalIOs, j.Read.Lat.Max/1e6)
	if ferr != nil || j.Error != 0 || j.Write.TotalIOs == 0 || j.Read.TotalIOs == 0 {
		t.Fatalf("fio: %v, error %d", ferr, j.Error)
	}
	if worst := max(j.Write.Lat.Max, j.Read.Lat.Max); worst > float64(most) {
		t.Errorf("a request took %.1f s, more than %v; what happened until then:\n%s", worst/1e9, most, slow())
	}
	for i := range 6 {
		d.signal(i, syscall.SIGCONT)
	}
	d.untilUp(6)
	d.stop()
}

// Two ASDs die, after a quiet moment and in the middle of writes: all that was acknowledged reads. Five die:
// what cannot be rebuilt gives errors in bounded time, writes go on as far as the journal has room, and all
// is well once they are back.
func TestASDsDie(t *testing.T) {
	t.Parallel()
	const diskSize = 128 << 20
	d := newDeployment(t, append(small, "--processes", "--no-restart", "--stall-timeout", "20s")...)
	d.start()
	d.vstor("vdisk", "create", "stamped", "--size", strconv.Itoa(diskSize))
	c, err := stamp.New(stamp.Options{Dial: d.dial("stamped"), Blocks: diskSize / stamp.BlockSize, MaxRun: 64, Volume: 3,
		Seed: uint64(time.Now().UnixNano())})
	if err != nil {
		t.Fatal(err)
	}
	load := func(when string, during func()) {
		t.Helper()
		if during != nil {
			time.AfterFunc(time.Second, during)
		}
		st, err := stamps(c, 3*time.Second)
		if err == nil {
			err = c.Verify()
		}
		if err != nil || st.Refused+st.Lost > 0 || st.Acked == 0 {
			t.Fatalf("%s: %+v: %v", when, st, err)
		}
	}
	kill := func(asds ...int) {
		for _, a := range asds {
			d.signal(a, syscall.SIGKILL)
		}
	}
	load("whole", nil)
	d.tellsOfItself("asd-3")
	kill(0, 3)
	load("after two died", nil)
	d.stop()
	d.start()
	d.untilUp(6)
	d.tellsOfItself("asd-3") // though the one before left its socket
	load("two die in the middle", func() { kill(1, 5) })
	d.stop()
	d.start()
	d.untilUp(6)
	kill(0, 1, 2, 4, 5)
	d.untilUp(1)
	began := time.Now()
	dmg, err := c.Survey()
	if err != nil {
		t.Fatalf("with five gone: %v", err)
	}
	t.Logf("with five gone: %d of %d blocks unreadable, found out in %v (%v)", len(dmg.Unreadable),
		diskSize/stamp.BlockSize, time.Since(began).Round(time.Millisecond), dmg.Last)
	if len(dmg.Unreadable) == 0 {
		t.Error("everything reads from one ASD")
	}
	d.stop()
	d.start()
	d.untilUp(6)
	load("all are back", nil)
	d.stop()
}

// tellsOfItself demands that an ASD's process has metrics and profiles.
func (d *deployment) tellsOfItself(asd string) {
	d.t.Helper()
	c := api.NewProcessClient(filepath.Join(d.dir, "run", asd+".debug"))
	defer c.Close()
	page, err := c.Metrics(context.Background())
	if err != nil || !bytes.Contains(page, []byte("process_resident_memory_bytes ")) {
		d.t.Fatalf("%s: %.200s %v", asd, page, err)
	}
	if p, err := c.Profile(context.Background(), api.ProfileWall, time.Second); err != nil || len(p) == 0 {
		d.t.Fatalf("%s: %d bytes of profile, %v", asd, len(p), err)
	}
}

// The secret is the owner's alone, and a file that is none is refused.
func TestSecret(t *testing.T) {
	t.Parallel()
	d := newDeployment(t, append(small, "--processes")...)
	d.start()
	st, err := os.Stat(filepath.Join(d.dir, "secret"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("secret: %v %v", st, err)
	}
	d.stop()
	code, _, errs := d.try("asd", "run", "--data", filepath.Join(d.dir, "asd-0", "data"), "--index",
		filepath.Join(d.dir, "asd-0", "index"), "--deployment", strings.Repeat("00", 16), "--secret",
		filepath.Join(d.dir, "vstor.toml"), "--listen", "unix:"+d.dir+"/x.sock")
	if code != 1 || !strings.Contains(errs, "secret") || strings.Count(errs, "\n") != 1 {
		t.Errorf("%d %q; want a sentence about the secret", code, errs)
	}
}
