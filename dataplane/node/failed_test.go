package node

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/errs"
	"vstor/dataplane/meta"
	"vstor/dataplane/nbd"
)

// twoDisks is a deployment with vDisk v, of which some is in SCOs and some in the journal, and w, of which all
// is in the journal.
func twoDisks(t *testing.T) (v, w *model) {
	v = &model{t: t, rng: rand.New(rand.NewPCG(1, 2)), host: newMemHost(), log: io.Discard, size: 4 << 20}
	v.flat, v.maybe = make([]byte, v.size), make([][]byte, v.size/4096)
	v.step.Store("")
	v.start(true)
	for off := int64(0); off < 1<<20; off += 128 << 10 { // no block twice: nothing to clean, the map is not written back
		o := &op{req: block.Request{Op: block.Write, Off: off, Len: 128 << 10}, data: make([]byte, 128<<10)}
		fill(o.data, v.rng)
		v.submit(o)
		o.wait()
		v.note([]*op{o})
	}
	v.d.rig.loop.Call(v.d.vol.Seal)
	for end := time.Now().Add(20 * time.Second); v.d.vol.Stats.Queue.Load() > 0 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	for range 10 {
		v.round()
	}
	if _, err := v.n.CreateVDisk(context.Background(), "w", 512<<10); err != nil {
		t.Fatal(err)
	}
	w = &model{t: t, rng: v.rng, host: v.host, n: v.n, d: v.n.vdisks["w"], log: io.Discard, size: 512 << 10}
	w.flat, w.maybe = make([]byte, w.size), make([][]byte, w.size/4096)
	for range 5 {
		w.round()
	}
	return v, w
}

// reborn kills the machine and starts what change made of it; v may fail to open.
func reborn(t *testing.T, v, w *model, change func(h *memHost)) {
	t.Helper()
	old, n := v.host, v.n
	v.host = old.crash(v.rng, false)
	w.host = v.host
	n.Close()
	change(v.host)
	r := &rotRound{model: v}
	var err error
	if v.n, err = r.begin(); err != nil {
		t.Fatal(err)
	}
	v.d, w.n, w.d = v.n.vdisks["v"], v.n, v.n.vdisks["w"]
}

// A vDisk whose newest SCO cannot be read does not open; the other one serves, and writes many times what the
// journal holds over what the first one has there. When the ASDs are back all of it is.
func TestFailedVDisk(t *testing.T) {
	v, w := twoDisks(t)
	list0, err := v.n.proxy.Manifests(context.Background(), v.d.ID, 0, 100)
	if err != nil || len(list0) == 0 {
		t.Fatalf("no SCO: %v", err)
	}
	first := int(list0[0].Target(0, 0).ASD) // has the index; with two others gone it cannot be rebuilt
	reborn(t, v, w, func(h *memHost) {
		for _, i := range []int{first, (first + 1) % 6, (first + 2) % 6} {
			h.hidden[v.n.drivePath(i)+"/data"] = true
		}
	})
	if v.d != nil || w.d == nil {
		t.Fatalf("with three of six ASDs gone v opens (%v), or w does not (%v)", v.d != nil, w.d == nil)
	}
	list, _ := v.n.ListVDisks(context.Background())
	if len(list) != 2 || !strings.Contains(list[0].Problem, "does not open") || list[1].Problem != "" {
		t.Fatalf("the list: %+v", list)
	}
	if _, err := (exports{v.n}).Open("v", nbd.Peer{}); err == nil || !strings.Contains(err.Error(), "index of SCO") {
		t.Fatalf("a client hears %v", err)
	}
	s, err := v.n.Status(context.Background())
	if err != nil || !strings.Contains(strings.Join(s.Reasons, "\n"), "vDisk v") {
		t.Fatalf("the status: %+v, %v", s, err)
	}
	w.check()
	for written := int64(0); written < 6*v.config().Journal; written += 256 << 10 {
		o := &op{req: block.Request{Op: block.Write, Off: written % w.size, Len: 256 << 10}, data: make([]byte, 256<<10)}
		fill(o.data, w.rng)
		data := bytes.Clone(o.data)
		w.submit(o)
		<-o.done
		if o.req.Err != errs.OK {
			t.Fatalf("after %d MiB: %v: what v has in the journal stops it", written>>20, o.req.Err)
		}
		copy(w.flat[o.req.Off:], data)
	}
	w.check()
	reborn(t, v, w, func(*memHost) {})
	if v.d == nil {
		t.Fatal("v does not open with all ASDs back")
	}
	v.check()
	w.check()
	if err := v.n.Close(); err != nil {
		t.Fatal(err)
	}
}

// A vDisk that does not open is tried again, and may be removed.
func TestFailedVDiskReturns(t *testing.T) {
	v, w := twoDisks(t)
	floor := func(value string) {
		var txn meta.Txn
		if err := v.n.meta.Apply(context.Background(), txn.Put(floorKey(v.n.recordOf("v").ID), []byte(value))); err != nil {
			t.Fatal(err)
		}
	}
	floor("1000000")
	reborn(t, v, w, func(*memHost) {})
	if v.d != nil {
		t.Fatal("v opens with a map that is older than what was deleted")
	}
	floor("0")
	for end := time.Now().Add(30 * time.Second); v.d == nil; time.Sleep(20 * time.Millisecond) {
		v.n.mu.Lock()
		v.d = v.n.vdisks["v"]
		v.n.mu.Unlock()
		if time.Now().After(end) {
			t.Fatal("v is not opened again")
		}
	}
	v.check()
	for range 20 {
		v.round()
	}
	v.check()
	floor("1000000")
	reborn(t, v, w, func(*memHost) {})
	if v.d != nil {
		t.Fatal("v opens")
	}
	if err := v.n.RemoveVDisk(context.Background(), "v"); err != nil {
		t.Fatal(err)
	}
	if list, _ := v.n.ListVDisks(context.Background()); len(list) != 1 {
		t.Fatalf("the list: %+v", list)
	}
	w.check()
	reborn(t, v, w, func(*memHost) {})
	w.check()
	if err := v.n.Close(); err != nil {
		t.Fatal(err)
	}
}

// A metadata store that lost its newest epoch knows less than the ASDs do: the vDisk stays shut.
func TestLostEpoch(t *testing.T) {
	v, w := twoDisks(t)
	if err := v.n.drives[3].store.Fence(v.d.ID, v.d.epoch+1); err != nil {
		t.Fatal(err)
	}
	reborn(t, v, w, func(*memHost) {})
	time.Sleep(2 * reopenMin) // a second try finds the same
	v.n.mu.Lock()
	f := v.n.failed["v"]
	v.n.mu.Unlock()
	if v.d != nil || f == nil || !strings.Contains(f.err.Error(), "fsck") {
		t.Fatalf("v opens, or says why not: %+v", f)
	}
	w.check()
	if err := v.n.Close(); err != nil {
		t.Fatal(err)
	}
}

// recordOf finds what is known of a vDisk, open or not.
func (n *Node) recordOf(name string) record {
	n.mu.Lock()
	defer n.mu.Unlock()
	if f := n.failed[name]; f != nil {
		return f.record
	}
	return n.vdisks[name].record
}
