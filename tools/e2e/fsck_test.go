//go:build e2e

package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"vstor/bench/stamp"
	"vstor/dataplane/api"
	"vstor/dataplane/node"
)

// stamped starts a small deployment with a vDisk under stamped load.
func stamped(t *testing.T, volume uint64) (*deployment, func()) {
	const diskSize = 48 << 20
	d := newDeployment(t, "--asd-size", "128M", "--journal", "64M", "--sco-size", "4M", "--policy", "4,2,5,1",
		"--policy", "2,2,3,1")
	d.start()
	d.vstor("vdisk", "create", "stamped", "--size", "48M")
	c, err := stamp.New(stamp.Options{Dial: d.dial("stamped"), Blocks: diskSize / stamp.BlockSize, MaxRun: 64,
		Volume: volume, Seed: uint64(time.Now().UnixNano())})
	if err != nil {
		t.Fatal(err)
	}
	return d, func() {
		t.Helper()
		if err := c.Verify(); err != nil {
			t.Fatal(err)
		}
		if st, err := stamps(c, 800*time.Millisecond); err != nil || st.Refused+st.Lost > 0 || st.Acked == 0 {
			t.Fatalf("%+v: %v", st, err)
		}
		if err := c.Verify(); err != nil {
			t.Fatal(err)
		}
	}
}

// whole demands that a check finds nothing.
func (d *deployment) whole(when string) {
	d.t.Helper()
	if code, out, errs := d.try("fsck", "--manifests", "--data"); code != 0 || !strings.Contains(out, "0 faults found") {
		d.t.Fatalf("%s: fsck ends with %d:\n%s\n%s", when, code, out, errs)
	}
}

// saidWithin waits for words in what vstor says.
func (d *deployment) saidWithin(limit time.Duration, words string) {
	d.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		d.mu.Lock()
		ok := strings.Contains(d.errs.String(), words)
		d.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(end) {
			d.t.Fatalf("vstor did not say %q in %v", words, limit)
		}
	}
}

// healed stops the deployment once no fragment is missing any more.
func (d *deployment) healed() {
	d.t.Helper()
	for range 100 {
		time.Sleep(500 * time.Millisecond)
		d.stop()
		code, out, errs := d.try("fsck", "--manifests", "--data", "--json")
		var r node.FsckReport
		if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 {
			d.t.Fatalf("fsck ends with %d:\n%s\n%s\n%v", code, out, errs, err)
		}
		if len(r.VDisks) == 1 && r.VDisks[0].Missing == 0 {
			return
		}
		d.start()
	}
	d.t.Fatal("fragments stay missing")
}

// untilPut loads until an ASD got another fragment: on a busy machine one load may not be enough for a SCO. Puts are
// counted and not what the ASD holds, for cleaning may well delete more at a time than comes.
func (d *deployment) untilPut(asd int, load func()) {
	d.t.Helper()
	puts := func() uint64 {
		d.t.Helper()
		var a api.ASD
		if err := json.Unmarshal([]byte(d.vstor("asd", "show", strconv.Itoa(asd), "--json")), &a); err != nil {
			d.t.Fatal(err)
		}
		return a.WriteOps
	}
	had := puts()
	for end := time.Now().Add(5 * time.Minute); puts() == had; load() {
		if time.Now().After(end) {
			d.t.Fatalf("ASD %d had %d fragments put and gets no more", asd, had)
		}
	}
}

// The metadata store is lost, with a crash: no start goes on without it, a check says so and changes nothing,
// and a repair brings all back.
func TestMetadataLost(t *testing.T) {
	t.Parallel()
	d, load := stamped(t, 11)
	load()
	d.vstor("vdisk", "create", "other", "--size", "1G")
	d.vstor("vdisk", "rm", "other")
	if code, _, errs := d.try("fsck"); code != 1 || !strings.Contains(errs, "run by process") {
		t.Errorf("fsck of a deployment that runs: %d, %s", code, errs)
	}
	d.stop()
	d.whole("after an orderly stop")
	d.start()
	load()
	d.kill()
	d.whole("after a kill")
	meta := filepath.Join(d.dir, "meta")
	if err := os.Rename(meta, meta+".away"); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := d.try("fsck", "--manifests"); code != 1 || !strings.Contains(out, "metadata store is lost") {
		t.Errorf("a check without metadata: %d, %s, %s", code, out, errs)
	}
	if _, err := os.Stat(meta); err == nil {
		t.Error("a check made a metadata store")
	}
	if code, _, errs := d.try("up"); code != 1 || !strings.Contains(errs, "fsck --manifests --repair") {
		t.Errorf("a start without metadata: %d, %s", code, errs)
	}
	if code, out, errs := d.try("fsck", "--manifests", "--repair"); code != 0 {
		t.Fatalf("the repair: %d, %s, %s", code, out, errs)
	}
	d.whole("after the repair")
	d.start()
	load()
	d.stop()
	d.whole("at the end")
}

// ASD folders swapped, an old copy put back, an index lost, a drive truncated: refused or recovered, each with a
// sentence, and the data is there all the while.
func TestASDMixups(t *testing.T) {
	t.Parallel()
	d, load := stamped(t, 12)
	load()
	asd := func(id string, rest ...string) string {
		return filepath.Join(append([]string{d.dir, "asd-" + id}, rest...)...)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	swap := func() {
		must(os.Rename(asd("1"), asd("x")))
		must(os.Rename(asd("2"), asd("1")))
		must(os.Rename(asd("x"), asd("2")))
	}
	problem := func(id, words string) {
		t.Helper()
		if out := d.vstor("asd", "show", id); !strings.Contains(out, words) {
			t.Errorf("ASD %s: %s; want %q", id, out, words)
		}
	}

	d.stop()
	swap()
	d.start()
	problem("1", "drive of ASD 2 where that of ASD 1 belongs")
	problem("2", "drive of ASD 1 where that of ASD 2 belongs")
	load()
	d.stop()
	if code, _, errs := d.try("asd", "rebuild-index", "1"); code != 1 || !strings.Contains(errs, "belongs") {
		t.Errorf("the index of a swapped drive was rebuilt: %d, %s", code, errs)
	}
	swap()
	must(exec.Command("cp", "-a", asd("4"), asd("4")+".copy").Run())

	d.start()
	d.untilPut(4, load)
	d.healed()
	must(os.RemoveAll(asd("3", "index")))
	d.start()
	problem("3", "vstor asd rebuild-index 3")
	load()
	d.stop()
	if out := d.vstor("asd", "rebuild-index", "3"); !strings.Contains(out, "the index of ASD 3 has ") {
		t.Error(out)
	}
	d.start()
	d.healed()

	must(os.RemoveAll(asd("4")))
	must(os.Rename(asd("4")+".copy", asd("4")))
	d.start()
	d.saidWithin(2*time.Minute, "ASD 4 lacks ")
	load()
	d.healed()

	st, err := os.Stat(asd("0", "data"))
	must(err)
	must(os.Truncate(asd("0", "data"), 3<<20))
	d.start()
	problem("0", "truncated")
	load()
	d.stop()
	must(os.Truncate(asd("0", "data"), st.Size()))
	d.vstor("asd", "rebuild-index", "0")
	d.start()
	load()
	d.healed()
}
