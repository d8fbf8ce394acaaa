package node

import (
	"context"
	"strings"
	"testing"

	"vstor/asd/store"
	"vstor/dataplane/layout"
	"vstor/dataplane/meta"
)

// lose deletes a fragment that a manifest names behind the back of its deployment, which does not run.
func (m *model) lose(asd int, named map[objectKey]bool) layout.FragKey {
	m.t.Helper()
	n := &Node{cfg: m.config(), host: m.host}
	var err error
	if n.ident, err = readIdent(m.host.fs, "/d"); err != nil {
		m.t.Fatal(err)
	}
	f, err := m.host.Open(n.drivePath(asd) + "/data")
	if err != nil {
		m.t.Fatal(err)
	}
	s, err := store.Open(n.storeOptions(asd, f, nil))
	if err != nil {
		m.t.Fatal(err)
	}
	defer s.Close()
	infos, err := s.ListNamespace(m.d.ID, layout.FragKey{}, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, i := range infos {
		if named[objectKey{i.Key.Namespace, i.Key.SCO}] {
			if err := s.Delete(context.Background(), []layout.FragKey{i.Key}); err != nil {
				m.t.Fatal(err)
			}
			return i.Key
		}
	}
	m.t.Fatal("the ASD has nothing that a manifest names")
	return layout.FragKey{}
}

// A vDisk that must be left as it is, since ASDs that would tell are away, is left so by a repair: that fragments of it
// are damaged, or not there, is found and not marked either. With the ASDs back all of it is repaired.
func TestBlockedIsNotMarked(t *testing.T) {
	m := newFsckModel(t, 8)
	m.rounds(150)
	m.down(true, false)
	m.editMeta(func(s meta.Store) { // the newest manifest is lost, and not enough of the object is there to make it again
		list, err := s.Scan(context.Background(), []byte("Pm"), nil, 10000)
		if err != nil || len(list) < 3 {
			t.Fatalf("%d manifests, %v", len(list), err)
		}
		if err := s.Apply(context.Background(), new(meta.Txn).Delete(list[len(list)-1].Key)); err != nil {
			t.Fatal(err)
		}
	})
	named := m.objects()
	if n := m.tear(0, 1, func(k layout.FragKey) bool {
		o := objectKey{k.Namespace, k.SCO}
		defer delete(named, o)
		return named[o]
	}); n != 1 {
		t.Fatal("ASD 0 has nothing that a manifest names")
	}
	gone := m.lose(3, named)
	for _, i := range []string{"1", "2", "5"} {
		m.host.hidden["/d/asd-"+i+"/data"] = true
	}
	r := m.fsck(FsckOptions{Data: true, Repair: true})
	all := strings.Join(r.Findings, "\n")
	for _, want := range []string{"is left as it is", "on ASD 0 is damaged", "ASD 3 lacks fragment " + gone.String()} {
		if !strings.Contains(all, want) {
			t.Errorf("it is not said that %q:\n%s", want, all)
		}
	}
	if r.Repaired != 0 {
		t.Errorf("%d of %d are repaired:\n%s", r.Repaired, r.Found, all)
	}
	clear(m.host.hidden)
	if r := m.fsck(FsckOptions{Data: true, Repair: true}); r.Found == 0 || r.Found != r.Repaired {
		t.Fatalf("with all ASDs: %+v", r)
	}
	m.mustBeWhole("after the repair")
	m.start(false)
	m.check()
	m.down(true, false)
}
