//go:build e2e

package e2e

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vstor/bench/stamp"
	"vstor/dataplane/node"
)

// fragments is how many fragments each ASD holds, of a deployment that does not run.
func (d *deployment) fragments() (out []int) {
	d.t.Helper()
	_, text, errs := d.try("fsck", "--json")
	var r node.FsckReport
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		d.t.Fatalf("%v: %s %s", err, text, errs)
	}
	for _, a := range r.ASDs {
		out = append(out, a.Fragments)
	}
	return out
}

// An old copy of the metadata store is put back, and the ASDs are processes of their own: the vDisk that was
// written since is refused, nothing on the ASDs is deleted, and a repair brings all back.
func TestOldMetadataOfProcesses(t *testing.T) {
	t.Parallel()
	const diskSize = 48 << 20
	d := newDeployment(t, append(small, "--processes")...)
	d.start()
	d.vstor("vdisk", "create", "stamped", "--size", "48M")
	c, err := stamp.New(stamp.Options{Dial: d.dial("stamped"), Blocks: diskSize / stamp.BlockSize, MaxRun: 64,
		Volume: 21, Seed: uint64(time.Now().UnixNano())})
	if err != nil {
		t.Fatal(err)
	}
	load := func() {
		t.Helper()
		if st, err := stamps(c, 2*time.Second); err != nil || st.Refused+st.Lost > 0 || st.Acked == 0 {
			t.Fatalf("%+v: %v", st, err)
		}
	}
	load()
	d.stop()
	meta := filepath.Join(d.dir, "meta")
	copyDir(t, meta, meta+".before")
	d.start()
	d.untilUp(6)
	d.untilPut(0, load)
	d.stop()
	had := d.fragments()
	copyDir(t, meta+".before", meta)

	if refusal := d.startOr(); refusal == "" {
		d.untilUp(6)
		d.saidWithin(2*time.Minute, "has seen epoch")
		if ls := d.vstor("vdisk", "ls"); !strings.Contains(ls, "does not open") {
			t.Errorf("the vDisk that lost its newest records is not refused:\n%s", ls)
		}
		time.Sleep(8 * time.Second) // garbage is collected at the start, and when ASDs were looked at
		d.stop()
	} else if !strings.Contains(refusal, "fsck --manifests --repair") {
		t.Errorf("the start is refused with %q", refusal)
	}
	for i, now := range d.fragments() {
		if now < had[i] {
			t.Errorf("ASD %d had %d fragments and has %d", i, had[i], now)
		}
	}
	if code, out, errs := d.try("fsck", "--manifests", "--repair"); code != 0 {
		t.Fatalf("the repair: %d, %s, %s", code, out, errs)
	}
	d.start()
	d.untilUp(6)
	if err := c.Verify(); err != nil {
		t.Fatal(err)
	}
	d.stop()
}
