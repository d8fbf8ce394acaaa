package node

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/asd/store"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/meta"
	"vstor/dataplane/proxy"
)

// newFsckModel is a running deployment with a vDisk of 8 MiB.
func newFsckModel(t *testing.T, seed uint64) *model {
	said := new(lastWords)
	m := &model{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 5)), host: newMemHost(), log: said, size: 8 << 20}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what was said last:\n%s", said)
		}
	})
	m.step.Store("")
	m.flat, m.maybe = make([]byte, m.size), make([][]byte, m.size/4096)
	m.start(true)
	return m
}

func (m *model) rounds(n int) {
	for range n {
		m.round()
	}
}

// refused demands that no start goes on, and that the sentence names the remedy.
func (m *model) refused(words string) {
	m.t.Helper()
	n, err := Start(Options{Config: m.config(), Log: slog.New(slog.NewTextHandler(m.log, nil)), Host: m.host, NoNBD: true})
	if err == nil {
		n.Close()
		m.fatalf("started without its metadata")
	}
	if !strings.Contains(err.Error(), words) || !strings.Contains(err.Error(), "fsck --manifests --repair") {
		m.fatalf("%v", err)
	}
}

// A start without the metadata store, with an empty or with an old one is refused; with the list of vDisks
// lost as well there is nothing to be repaired, and nothing is changed.
func TestMetadataLossIsNoticed(t *testing.T) {
	m := newFsckModel(t, 1)
	m.rounds(40)
	old := vfs.NewMem()
	m.down(true, false)
	if _, err := vfs.Clone(m.host.fs, old, "/d/meta", "/d/meta"); err != nil {
		t.Fatal(err)
	}
	m.start(false)
	m.rounds(100)
	if _, err := m.n.CreateVDisk(context.Background(), "second", 1<<20); err != nil {
		t.Fatal(err)
	}
	m.down(true, false)

	m.dropMeta()
	if _, err := vfs.Clone(old, m.host.fs, "/d/meta", "/d/meta"); err != nil {
		t.Fatal(err)
	}
	m.refused("vDisk second")
	if r := m.fsck(FsckOptions{Repair: true}); r.Found == 0 || r.Found != r.Repaired || r.Metadata != "" {
		t.Fatalf("%+v", r)
	}
	m.mustBeWhole("after an old copy was brought up to date")
	m.start(false)
	m.check()
	m.rounds(20)
	m.down(true, false)

	m.dropMeta()
	m.refused("")
	empty, err := meta.OpenPebble(meta.PebbleOptions{Dir: "/d/meta", FS: m.host.fs, Ballast: -1})
	if err != nil {
		t.Fatal(err)
	}
	if err := empty.Close(); err != nil {
		t.Fatal(err)
	}
	m.refused("")
	if r := m.fsck(FsckOptions{Repair: true}); r.Found == 0 || r.Found != r.Repaired {
		t.Fatalf("%+v", r)
	}
	m.start(false)
	m.check()
	if m.n.vdisks["second"] == nil {
		t.Error("the second vDisk is gone")
	}
	m.down(true, false)

	m.dropMeta()
	if err := m.host.fs.Remove("/d/vdisks.json"); err != nil {
		t.Fatal(err)
	}
	_, err = Fsck(context.Background(), FsckOptions{Config: m.config(), Host: m.host, Manifests: true, Repair: true})
	if errs.Of(err) != errs.Corrupt || !strings.Contains(err.Error(), "vdisks.json") {
		t.Fatal(err)
	}
	if _, err := m.host.fs.Stat("/d/meta"); err == nil {
		t.Error("a metadata store was made out of nothing")
	}
}

// A vDisk that was removed, and SCOs that were cleaned away, while an ASD was away, do not come back with it.
func TestFsckRaisesNoDead(t *testing.T) {
	m := newFsckModel(t, 2)
	if _, err := m.n.CreateVDisk(context.Background(), "dead", m.size); err != nil {
		t.Fatal(err)
	}
	v := m.d
	m.d = m.n.vdisks["dead"]
	dead := m.d.ID
	m.rounds(60)
	clear(m.flat)
	clear(m.maybe)
	m.d = v
	m.rounds(60)
	m.down(true, false)
	const away = "/d/asd-4/data"
	m.host.hidden[away] = true
	m.start(false)
	if err := m.n.RemoveVDisk(context.Background(), "dead"); err != nil {
		t.Fatal(err)
	}
	m.rounds(300) // cleans
	m.down(false, false)
	m.host.hidden[away] = false
	if held(t, m, 4, dead) == 0 {
		t.Fatal("the ASD that was away has nothing of the dead vDisk")
	}
	m.dropMeta()
	if r := m.fsck(FsckOptions{Repair: true}); r.Found != r.Repaired || len(r.VDisks) != 1 {
		t.Fatalf("%+v", r)
	}
	m.start(false)
	m.check()
	if len(m.n.vdisks) != 1 {
		t.Errorf("%d vDisks", len(m.n.vdisks))
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		infos, err := m.n.drives[4].store.ListNamespace(dead, layout.FragKey{}, 0)
		if err == nil && len(infos) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d fragments of the dead vDisk stay: %v", len(infos), err)
		}
	}
	m.rounds(20)
	m.check()
	m.down(true, false)
}

// held is how many fragments of a namespace an ASD holds, of a deployment that does not run.
func held(t *testing.T, m *model, id int, ns ids.NamespaceID) int {
	t.Helper()
	n := &Node{cfg: m.config(), host: m.host}
	var err error
	if n.ident, err = readIdent(m.host.fs, "/d"); err != nil {
		t.Fatal(err)
	}
	f, err := m.host.Open(n.drivePath(id) + "/data")
	if err != nil {
		t.Fatal(err)
	}
	so := n.storeOptions(id, f, nil)
	so.ReadOnly = true
	s, err := store.Open(so)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	infos, err := s.ListNamespace(ns, layout.FragKey{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return len(infos)
}

// With an ASD away, what the others have is enough; with so many away that something cannot be told, nothing
// is changed.
func TestFsckWithASDsAway(t *testing.T) {
	m := newFsckModel(t, 3)
	m.rounds(120)
	m.down(false, false)
	m.dropMeta()
	hide := func(hidden bool, list ...string) {
		for _, i := range list {
			m.host.hidden["/d/asd-"+i+"/data"] = hidden
		}
	}
	hide(true, "1", "2", "5")
	r, err := Fsck(context.Background(), FsckOptions{Config: m.config(), Host: m.host, Manifests: true, Repair: true})
	if errs.Of(err) != errs.Corrupt || r.Repaired != 0 || !strings.Contains(err.Error(), "bring them back first") {
		t.Fatal(err, r)
	}
	if _, err := m.host.fs.Stat("/d/meta"); err == nil {
		t.Error("a metadata store was made though something is missing")
	}
	hide(false, "1", "2")
	if r := m.fsck(FsckOptions{Repair: true}); r.Found-r.Repaired != 1 {
		t.Fatalf("%+v", r)
	}
	m.start(false)
	m.check()
	m.down(true, false)
	hide(false, "5")
	m.start(false)
	m.check()
	m.rounds(50)
	m.check()
	m.down(true, false)
}

func FuzzRegistryCopy(f *testing.F) {
	fs := vfs.NewMem()
	if err := fs.MkdirAll("/d", 0o755); err != nil {
		f.Fatal(err)
	}
	want := registryCopy{Version: 1, Next: 7, VDisks: []record{{Name: "a<b", ID: 3, Size: 4096}}, Gone: []record{}}
	if err := writeRegistryCopy(fs, "/d", want); err != nil {
		f.Fatal(err)
	}
	if c, err := readRegistryCopy(fs, "/d"); err != nil || c.Next != 7 || c.VDisks[0].Name != "a<b" {
		f.Fatal(c, err)
	}
	b, err := fs.UnsafeGetFileDataBuffer("/d/" + registryFile)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(strings.Replace(string(b), "7", "8", 1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseRegistryCopy("x", b)
		if err == nil && (c.Version < registryCopyOldest || c.Version > registryCopyVersion) {
			t.Fatal(c)
		}
	})
}

// The newest commits are lost with their entries, and nothing else, so that no gap tells: the vDisk does not open,
// nothing of it is taken for garbage, and a repair brings it back.
func TestNewestCommitsLost(t *testing.T) {
	newestLost(t, 4).mustBeRepaired()
}

// mustBeRepaired demands that fsck repairs all that it finds, and that nothing is missing then.
func (m *model) mustBeRepaired() {
	r := m.fsck(FsckOptions{Repair: true})
	if r.Found == 0 || r.Found != r.Repaired {
		m.fatalf("%+v", r)
	}
	m.mustBeWhole("after the repair")
	m.start(false)
	m.check()
	m.rounds(20)
	m.check()
	m.down(true, false)
}

// newestLost is a model whose newest commits are lost, and which was refused for that. A map whose checkpoint is past
// all of them asks for none and opens: then it is another seed's turn, for how far a checkpoint has come is up to the
// machine.
func newestLost(t *testing.T, seed uint64) *model {
	for range 8 {
		m := newFsckModel(t, seed)
		m.rounds(150)
		m.down(true, false)
		if n := m.harmNewest(5); n != 5 {
			t.Fatalf("%d commits", n)
		}
		last := m.lastCommit()
		log := slog.New(slog.NewTextHandler(m.log, nil))
		n, err := Start(Options{Config: m.config(), Log: log, Host: m.host, NoNBD: true})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond) // for who looks for garbage
		f := n.failed["v"]
		if f == nil {
			var at ids.CommitNum
			d := n.sortedVDisks()[0]
			d.rig.loop.Call(func() { c, _ := d.m.Checkpoint(); at = c.Commit })
			if at < last {
				t.Fatalf("seed %d: opened with commit %d of %d", seed, at, last)
			}
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		if f != nil && strings.Contains(f.err.Error(), "newest ones are lost") {
			return m
		}
		if f != nil {
			t.Fatalf("%+v", f)
		}
		t.Logf("seed %d: the map's checkpoint is past what was lost", seed)
		seed += 100
	}
	t.Fatal("no map's checkpoint was before what was lost")
	return nil
}

// lastCommit is the number of the last commit, as the metadata store remembers it.
func (m *model) lastCommit() (c ids.CommitNum) {
	m.editMeta(func(s meta.Store) {
		list, err := s.Scan(context.Background(), []byte("Pl"), nil, 10)
		if err != nil || len(list) != 1 {
			m.fatalf("%d last commits: %v", len(list), err)
		}
		_, last, err := proxy.DumpCell(list[0].Value)
		if err != nil {
			m.fatalf("%v", err)
		}
		c = ids.CommitNum(last)
	})
	return c
}
