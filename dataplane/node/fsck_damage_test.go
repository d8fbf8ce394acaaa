package node

import (
	"context"
	"encoding/binary"
	"path/filepath"
	"strings"
	"testing"

	"vstor/asd/store"
	"vstor/dataplane/buf"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/meta"
)

// A power cut in the midst of a delete may tear the header that says that a fragment is dead. It is damaged, and no
// fault, since nothing counts on it: the next start deletes it again. The same damage of a fragment that a manifest
// names is one. Here the ASD with the deletes still to be made was away.
func TestTornDeleteIsNoFault(t *testing.T) {
	m := newFsckModel(t, 6)
	m.rounds(100)
	m.down(true, false)
	away := filepath.Join("/d", "asd-1", "data")
	m.host.hidden[away] = true
	m.start(false)
	m.rounds(200)
	m.down(true, false)
	delete(m.host.hidden, away)
	named := m.objects()
	if len(named) == 0 {
		t.Fatal("there are no manifests")
	}
	of := func(want bool) func(layout.FragKey) bool {
		return func(k layout.FragKey) bool { return named[objectKey{k.Namespace, k.SCO}] == want }
	}
	dead := m.tear(1, 100, of(false))
	if dead == 0 {
		t.Fatal("no delete was under way")
	}
	m.mustBeWhole("with torn headers of what is deleted")
	if n := m.tear(2, 1, of(true)); n != 1 {
		t.Fatalf("%d headers are torn", n)
	}
	r := m.fsck(FsckOptions{Data: true, Repair: true})
	if r.Found != 1 || r.Repaired != 1 || !strings.Contains(r.Findings[0], "on ASD 2 is damaged") {
		t.Fatalf("%+v", r)
	}
	m.mustBeWhole("after the repair")
	m.start(false)
	m.check()
	m.down(true, false)
	named = m.objects()
	if left := m.tear(1, 100, of(false)); left != 0 {
		t.Errorf("%d fragments that were half deleted are still there", left)
	}
}

// objects are those that have a manifest.
func (m *model) objects() map[objectKey]bool {
	out := map[objectKey]bool{}
	m.editMeta(func(s meta.Store) {
		list, err := s.Scan(context.Background(), []byte("Pm"), nil, 10000)
		if err != nil {
			m.fatalf("%v", err)
		}
		for _, e := range list {
			ns, sco := binary.BigEndian.Uint64(e.Key[2:]), binary.BigEndian.Uint32(e.Key[10:])
			out[objectKey{ids.NamespaceID(ns), ids.SCONum(sco)}] = true
		}
	})
	return out
}

// tear zeroes the end of the headers of live fragments on an ASD's drive, at most so many.
func (m *model) tear(asd, most int, which func(layout.FragKey) bool) (torn int) {
	g := m.host.files[filepath.Join("/d", "asd-"+string(rune('0'+asd)), "data")]
	p, err := buf.AlignedBytes(4096)
	if err != nil {
		m.t.Fatal(err)
	}
	defer buf.FreeAligned(p)
	for off := int64(2 << 20); off < g.Size() && torn < most; off += 4096 {
		var h store.Header
		if err := g.Mem.ReadAt(p, off); err != nil {
			m.t.Fatal(err)
		}
		if h.Decode(p) != nil || h.Dead || h.Self != off || !which(h.Key) {
			continue
		}
		clear(p[512:])
		if err := g.Mem.WriteAt(p, off); err != nil {
			m.t.Fatal(err)
		}
		torn++
	}
	if err := g.Mem.Sync(); err != nil {
		m.t.Fatal(err)
	}
	return torn
}
