//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"vstor/bench/stamp"
	"vstor/dataplane/errs"
)

const (
	rotDisks  = 2
	rotBlocks = 40 << 20 / stamp.BlockSize
)

// rotBase is a stopped deployment whose content is known, of which each round damages a copy.
type rotBase struct {
	name     string
	dir      string
	checkers []*stamp.Checker
	places   []rotPlace
}

// rotDeployment makes a deployment with two vDisks that were written, trimmed and cleaned, and stops it, or
// kills it after a moment of silence; what is in the journal stays there.
func rotDeployment(t *testing.T, d *deployment, kill bool, seed uint64) *rotBase {
	d.start()
	b := &rotBase{name: "stopped", dir: d.dir + ".base"}
	for i := range rotDisks {
		name := fmt.Sprintf("disk%d", i)
		d.vstor("vdisk", "create", name, "--size", strconv.Itoa(rotBlocks*stamp.BlockSize))
		c, err := stamp.New(stamp.Options{Dial: d.dial(name), Blocks: rotBlocks, MaxRun: 64, Connections: 2, Depth: 4,
			Volume: uint64(i + 1), Seed: seed})
		if err != nil {
			t.Fatal(err)
		}
		b.checkers = append(b.checkers, c)
	}
	write := func(length time.Duration) {
		for _, c := range b.checkers {
			ctx, cancel := context.WithTimeout(context.Background(), length)
			if st, err := c.Run(ctx); err != nil || st.Refused > 0 {
				t.Fatalf("%+v: %v", st, err)
			}
			cancel()
		}
	}
	write(1500 * time.Millisecond)
	d.stop()
	d.start()
	write(300 * time.Millisecond)
	for _, c := range b.checkers { // into the caches
		if damage, err := c.Survey(); err != nil || len(damage.Unreadable) > 0 {
			t.Fatalf("%+v: %v", damage, err)
		}
	}
	if kill {
		b.name, b.dir = "killed", d.dir+".killed"
		time.Sleep(2500 * time.Millisecond) // what was written last has now something behind it that vouches for it
		d.kill()
	} else {
		d.stop()
	}
	copyDir(t, d.dir, b.dir)
	for _, name := range []string{"nbd.sock", "api.sock"} {
		os.Remove(filepath.Join(b.dir, name))
	}
	b.places = rotPlaces(t, b.dir)
	return b
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-a", "--sparse=always", "--reflink=auto", from, to).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
}

// startOr starts vstor, or returns the sentence with which it refuses.
func (d *deployment) startOr() (refusal string) {
	d.t.Helper()
	d.mu.Lock()
	d.errs.Reset()
	d.mu.Unlock()
	d.cmd = exec.Command(binary(d.t), append([]string{"up", "--dir", d.dir}, d.args...)...)
	d.cmd.Stderr = d
	out, err := d.cmd.StdoutPipe()
	if err == nil {
		err = d.cmd.Start()
	}
	if err != nil {
		d.t.Fatal(err)
	}
	ready := make(chan bool, 1)
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			if strings.HasPrefix(s.Text(), "ready ") {
				ready <- true
			}
		}
		ready <- false
	}()
	select {
	case ok := <-ready:
		if ok {
			return ""
		}
	case <-time.After(60 * time.Second):
		d.t.Fatal("vstor is not ready after a minute")
	}
	err = d.cmd.Wait()
	d.cmd = nil
	d.mu.Lock()
	defer d.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(d.errs.String()), "\n")
	last := lines[len(lines)-1]
	if code := exitCode(err); code != 1 || !strings.HasPrefix(last, "vstor: ") {
		d.t.Fatalf("a start that is refused ends with code %d and says %q", code, d.errs.String())
	}
	return last
}

func exitCode(err error) int {
	if e, ok := err.(*exec.ExitError); ok {
		return e.ExitCode()
	}
	return 0
}

// get asks the API for a page.
func (d *deployment) get(path string) string {
	d.t.Helper()
	c := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(d.dir, "api.sock"))
		}}}
	r, err := c.Get("http://vstor" + path)
	if err != nil {
		d.t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return string(b)
}

// found is what /metrics counts as damage, by place.
func (d *deployment) found() map[string]int {
	d.t.Helper()
	out := map[string]int{}
	for _, l := range strings.Split(d.get("/metrics"), "\n") {
		var n float64
		if rest, ok := strings.CutPrefix(l, `vstor_corrupt_found_total{place="`); ok {
			place, value, _ := strings.Cut(rest, `"} `)
			fmt.Sscan(value, &n)
			out[place] = int(n)
		}
	}
	if len(out) == 0 {
		d.t.Fatal("/metrics does not count damage")
	}
	return out
}

// rotLine is a line of the table.
type rotLine struct {
	rounds, flips                  int
	clean, eio, healed, shut, down int // rounds
	found                          map[string]int
	says                           []string
}

// rotTest is the whole run.
type rotTest struct {
	t     *testing.T
	d     *deployment
	rng   *rand.Rand
	table map[string]*rotLine
	turn  int // through the kinds that are hit alone
}

func (r *rotTest) line(name string) *rotLine {
	if r.table[name] == nil {
		r.table[name] = &rotLine{found: map[string]int{}}
	}
	return r.table[name]
}

// round flips n bits of the kinds into a copy of b, starts it, and reads everything. heals: all of it must be
// served, and a second look must find nothing more.
func (r *rotTest) round(b *rotBase, name string, kinds []string, n int, asds []int, heals bool) {
	t := r.t
	t.Helper()
	copyDir(t, b.dir, r.d.dir)
	var places []rotPlace
	for _, p := range b.places {
		p.path = r.d.dir + strings.TrimPrefix(p.path, b.dir)
		places = append(places, p)
	}
	all := byKind(places, asds...)
	kinds = slices.DeleteFunc(slices.Clone(kinds), func(k string) bool { return len(all[k]) == 0 })
	l := r.line(name)
	l.rounds++
	var where []string
	for range n {
		if len(kinds) == 0 {
			return
		}
		where = append(where, flip(t, all[kinds[r.rng.IntN(len(kinds))]], r.rng))
		l.flips++
	}
	fail := func(format string, args ...any) {
		t.Helper()
		t.Fatalf("%s, %s, flips at %s:\n%s", b.name, name, strings.Join(where[:min(len(where), 20)], ", "),
			fmt.Sprintf(format, args...))
	}
	if says := r.d.startOr(); says != "" {
		l.down++
		l.says = append(l.says, says)
		if heals {
			fail("it does not start: %s", says)
		}
		return
	}
	lost, shut := r.survey(b, fail)
	found := r.d.found()
	sum := 0
	for k, v := range found {
		l.found[k] += v
		sum += v
	}
	switch {
	case shut != "":
		l.shut++
		l.says = append(l.says, shut)
	case lost > 0:
		l.eio++
	default:
		l.clean++
	}
	if (lost > 0 || shut != "") && sum == 0 {
		fail("%d blocks are lost (%s), and nothing is counted", lost, shut)
	}
	if heals {
		if lost > 0 || shut != "" {
			fail("two ASDs rotted and %d blocks are lost (%s)", lost, shut)
		}
		r.heal(b, l, found["data"], fail)
	}
	r.stop(fail)
}

// survey reads all vDisks. A vDisk may be refused, with the reason.
func (r *rotTest) survey(b *rotBase, fail func(string, ...any)) (lost int, shut string) {
	r.t.Helper()
	for _, c := range b.checkers {
		damage, err := c.Survey()
		switch {
		case errs.Of(err) == errs.Corrupt:
			fail("%v", err)
		case err != nil && strings.Contains(err.Error(), "does not open"):
			shut = err.Error()
		case err != nil:
			fail("%v", err)
		}
		lost += len(damage.Unreadable)
	}
	return lost, shut
}

// heal reads until a look finds no more damage.
func (r *rotTest) heal(b *rotBase, l *rotLine, found int, fail func(string, ...any)) {
	r.t.Helper()
	if found == 0 {
		return
	}
	for end := time.Now().Add(5 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if lost, shut := r.survey(b, fail); lost > 0 || shut != "" {
			fail("%d blocks are lost while it heals (%s)", lost, shut)
		}
		now := r.d.found()["data"]
		if now == found {
			l.healed++
			return
		}
		if found = now; time.Now().After(end) {
			fail("it has not healed after five minutes; %d pieces were found by now", found)
		}
	}
}

// stop stops the deployment and looks at what it said.
func (r *rotTest) stop(fail func(string, ...any)) {
	r.t.Helper()
	r.d.cmd.Process.Signal(syscall.SIGTERM)
	err := r.d.cmd.Wait()
	r.d.cmd = nil
	r.d.mu.Lock()
	defer r.d.mu.Unlock()
	said := r.d.errs.String()
	if err != nil || strings.Contains(said, "goroutine ") || strings.Contains(said, "panic:") {
		fail("it ended with %v and said:\n%s", err, tail(said, 40))
	}
}

// TestRot flips bits in all files of a stopped deployment, a few in one kind of place or many everywhere. Nothing
// but what was written last is served, everything else is an error; what two ASDs lost is healed.
// VSTOR_ROT_FLIPS sets how many bits.
func TestRot(t *testing.T) {
	t.Parallel()
	flips := number("VSTOR_ROT_FLIPS", 2000)
	seed := uint64(time.Now().UnixNano())
	if n, err := strconv.ParseUint(os.Getenv("VSTOR_ROT_SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("seed %d", seed)
	d := newDeployment(t, "--asd-size", "64M", "--journal", "64M", "--sco-size", "1M", "--fragment-size", "256k",
		"--fragment-cache", "32M", "--block-cache", "8M", "--block-cache-ssd", "64M")
	r := &rotTest{t: t, d: d, rng: rand.New(rand.NewPCG(seed, 1)), table: map[string]*rotLine{}}
	bases := []*rotBase{rotDeployment(t, d, false, seed)}
	if err := os.RemoveAll(d.dir); err != nil {
		t.Fatal(err)
	}
	bases = append(bases, rotDeployment(t, d, true, seed))
	total := func() (n int) {
		for _, l := range r.table {
			n += l.flips
		}
		return n
	}
	for i := 0; total() < flips; i++ {
		r.some(bases[i%2], i)
	}
	r.print()
}

// some runs a round of each sort in turn.
func (r *rotTest) some(b *rotBase, i int) {
	two := r.rng.Perm(6)[:2]
	var kinds, single []string
	for k := range byKind(b.places) {
		kinds = append(kinds, k)
		if !strings.HasPrefix(k, "ASD ") {
			single = append(single, k)
		}
	}
	slices.Sort(kinds)
	slices.Sort(single)
	index := slices.DeleteFunc(slices.Clone(kinds), func(k string) bool {
		return !strings.HasPrefix(k, "ASD ") || k == "ASD payload" || k == "ASD header" || k == "ASD free"
	})
	// The roots, the metadata and the settings are small and stop the whole: here what is large is hit.
	gentle := []string{"ASD payload", "ASD header", "ASD free", "journal payload", "journal free"}
	var caches []string
	for _, k := range single {
		if strings.HasPrefix(k, "cache ") {
			caches = append(caches, k)
		}
	}
	if len(caches) == 0 {
		r.t.Fatal("there are no caches")
	}
	gentle = append(gentle, caches...)
	switch i % 7 {
	case 0, 3:
		r.round(b, "ASD data, two ASDs", []string{"ASD payload", "ASD header", "ASD free"}, 60+r.rng.IntN(120), two, true)
	case 1:
		r.round(b, "ASD index, two ASDs", index, 1+r.rng.IntN(10), two, false)
	case 2:
		for range 3 {
			k := single[r.turn%len(single)]
			r.turn++
			r.round(b, k, []string{k}, 1+r.rng.IntN(4), nil, false)
		}
	case 4:
		r.round(b, "everywhere but metadata", gentle, 50+r.rng.IntN(200), nil, false)
	case 5:
		r.round(b, "caches", caches, 60+r.rng.IntN(200), nil, true)
	case 6:
		r.round(b, "everywhere", kinds, 20+r.rng.IntN(100), nil, false)
	}
}

func (r *rotTest) print() {
	r.t.Logf("%-24s %6s %7s | %5s %5s %5s %5s %5s | found", "place", "rounds", "flips", "clean", "EIO", "shut", "down",
		"heal")
	names := make([]string, 0, len(r.table))
	var sum rotLine
	for k, l := range r.table {
		names = append(names, k)
		sum.rounds, sum.flips = sum.rounds+l.rounds, sum.flips+l.flips
	}
	slices.Sort(names)
	for _, k := range names {
		l := r.table[k]
		found := ""
		for _, place := range []string{"data", "cache", "index", "journal", "map", "meta"} {
			if l.found[place] > 0 {
				found += fmt.Sprintf(" %s %d", place, l.found[place])
			}
		}
		r.t.Logf("%-24s %6d %7d | %5d %5d %5d %5d %5d |%s", k, l.rounds, l.flips, l.clean, l.eio, l.shut, l.down, l.healed,
			found)
		for _, says := range l.says[:min(len(l.says), 2)] {
			r.t.Logf("    says: %.300s", says)
		}
	}
	r.t.Logf("%-24s %6d %7d", "all", sum.rounds, sum.flips)
}
