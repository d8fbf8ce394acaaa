package proxy

import (
	"bytes"
	"testing"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// SCOs are found by the order of their commits, whatever their numbers; a number is used once; what is
// deleted is gone from the order too.
func TestOrder(t *testing.T) {
	r := newRig(t, 6, nil)
	epoch := r.own()
	commit := func(sco ids.SCONum, c ids.CommitNum) error {
		p := r.put(epoch, sco, newContent(50_000, uint64(sco)))
		if err := p.CommitAs(ctx, c); err != nil {
			p.Abandon()
			return err
		}
		return p.CommitAs(ctx, c) // again, as after an error that left it open
	}
	for i, sco := range []ids.SCONum{30, 10, 20, 40} {
		if err := commit(sco, ids.CommitNum(i+1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := commit(50, 2); errs.Of(err) != errs.Exists {
		t.Errorf("a commit number was used twice: %v", err)
	}
	if err := r.DeleteObject(ctx, ns, epoch, 20); err != nil {
		t.Fatal(err)
	}
	list, err := r.Committed(ctx, ns, 1, 10)
	if err != nil || len(list) != 2 || list[0].SCO != 10 || list[1].SCO != 40 || list[1].Commit != 4 {
		t.Errorf("commits after 1: %v, %v", list, err)
	}
}

// A fragment that rotted is written again under a new version and the old one goes. Drives that fail for
// a while lose nothing: the manifest names what they hold until something better is there.
func TestRepairFragment(t *testing.T) {
	r := newRig(t, 6, nil)
	epoch := r.own()
	src := newContent(300_000, 1)
	p := r.put(epoch, 5, src)
	if err := p.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	<-p.Settled()
	m := p.Manifest()
	key := m.FragKey(0, 1)
	holder := r.stores[m.Target(0, 1).ASD]
	for _, s := range r.stores {
		s.set(func(s *fakeStore) { s.getErr = errs.IO })
	}
	if err := r.RepairFragment(ctx, key); err == nil {
		t.Error("repaired while no drive could be read")
	}
	for _, s := range r.stores {
		s.set(func(s *fakeStore) { s.getErr = nil })
	}
	if now, err := r.Manifest(ctx, ns, 5); err != nil || now.Version != m.Version {
		t.Fatalf("the manifest changed though nothing was repaired: %v", err)
	}
	holder.set(func(s *fakeStore) { s.frags[key][100] ^= 1 })
	if err := r.RepairFragment(ctx, key); err != nil {
		t.Fatal(err)
	}
	now, err := r.Manifest(ctx, ns, 5)
	if err != nil || now.FragKey(0, 1).Version != key.Version+1 || !now.Present(0, 1) {
		t.Fatalf("after the repair: %v, %+v", err, now.Frag(0, 1))
	}
	if holder.frags[key] != nil {
		t.Error("the rotten version is still there")
	}
	got := make([]byte, len(src.b))
	if err := r.GetVerified(ctx, now, 0, got); err != nil || !bytes.Equal(got, src.b) {
		t.Errorf("read after the repair: %v", err)
	}
	if err := r.RepairFragment(ctx, key); err != nil {
		t.Errorf("a key that is named no more: %v", err)
	}
}
