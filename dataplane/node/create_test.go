package node

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/meta"
)

// A crash right after a new vDisk was entered, before or after it was taken, leaves one that opens.
func TestCreateCrash(t *testing.T) {
	for _, taken := range []bool{false, true} {
		v, w := twoDisks(t)
		ctx := context.Background()
		r, err := v.n.registry.add(ctx, record{Name: "x", Size: 1 << 20, SCOSize: v.n.scoSize()}, v.n.unseen)
		if err != nil {
			t.Fatal(err)
		}
		if taken {
			if _, err := v.n.proxy.TakeOwnership(ctx, r.ID); err != nil {
				t.Fatal(err)
			}
		}
		reborn(t, v, w, func(*memHost) {})
		if v.n.vdisks["x"] == nil {
			t.Fatalf("taken %v: x does not open: %v", taken, v.n.failed["x"].err)
		}
		w.check()
		if err := v.n.Close(); err != nil {
			t.Fatal(err)
		}
		v.mustBeWhole("after a crash in a create")
	}
}

// Where nothing but the floor of a new map is lost, a check says so and a repair says again what it was; if what
// was written first is gone as well, nothing is changed.
func TestFsckFindsTheFirstFloor(t *testing.T) {
	for _, broken := range []bool{false, true} {
		v, w := twoDisks(t)
		id := w.d.ID
		v.down(true, false)
		w.host = v.host
		if broken {
			if err := v.host.fs.RemoveAll("/d/router/map"); err != nil {
				t.Fatal(err)
			}
			id = v.d.ID
		}
		v.editMeta(func(s meta.Store) {
			txn := new(meta.Txn).Delete(floorKey(id))
			if broken { // the first commit is gone, as a cleaner would leave it
				list, err := s.Scan(context.Background(), []byte("Pm"), nil, 1)
				if err != nil || len(list) != 1 {
					t.Fatal(list, err)
				}
				order, err := s.Scan(context.Background(), []byte("Pn"), nil, 1)
				if err != nil || len(order) != 1 {
					t.Fatal(order, err)
				}
				txn.Delete(list[0].Key).Delete(order[0].Key)
			}
			if err := s.Apply(context.Background(), txn); err != nil {
				t.Fatal(err)
			}
		})
		said := strings.Join(v.fsck(FsckOptions{}).Findings, "\n")
		if want := map[bool]string{false: "its map is new", true: "is left as it is"}[broken]; !strings.Contains(said, want) {
			t.Fatalf("broken %v: fsck finds %q", broken, said)
		}
		r := v.fsck(FsckOptions{Repair: true})
		if broken {
			continue
		}
		if r.Found != 1 || r.Repaired != 1 {
			t.Fatalf("%+v", r)
		}
		v.mustBeWhole("after the floor was found")
		v.start(false)
		w.n, w.d = v.n, v.n.vdisks["w"]
		if w.d == nil {
			t.Fatalf("w does not open: %v", v.n.failed["w"].err)
		}
		w.check()
		v.check()
		v.down(true, false)
	}
}

// fragments is how many fragments of a namespace the drives hold.
func (m *model) fragments(id ids.NamespaceID) (n int) {
	for _, d := range m.n.drives {
		if d.store != nil {
			l, err := d.store.ListNamespace(id, layout.FragKey{}, 0)
			if err != nil {
				m.fatalf("%v", err)
			}
			n += len(l)
		}
	}
	return n
}

// strayed is a deployment whose metadata store and list of vDisks come back from a backup that is older than
// vDisk "second", of number id; the drives are as new.
func strayed(t *testing.T) (m *model, id ids.VolumeID) {
	m = newFsckModel(t, 1)
	m.rounds(40)
	old := vfs.NewMem()
	clone := func(from, to vfs.FS) {
		for _, path := range []string{"/d/meta", "/d/" + registryFile} {
			if _, err := vfs.Clone(from, to, path, path); err != nil {
				t.Fatal(err)
			}
		}
	}
	m.down(true, false)
	clone(m.host.fs, old)
	m.start(false)
	if _, err := m.n.CreateVDisk(context.Background(), "second", 1<<20); err != nil {
		t.Fatal(err)
	}
	second := &model{t: t, rng: m.rng, host: m.host, n: m.n, d: m.n.vdisks["second"], log: m.log, size: 1 << 20}
	second.flat, second.maybe = make([]byte, second.size), make([][]byte, second.size/4096)
	second.step.Store("")
	second.rounds(60)
	id = second.d.ID
	second.d.rig.loop.Call(second.d.vol.Seal)
	for end := time.Now().Add(20 * time.Second); m.fragments(id) == 0 || second.d.vol.Stats.Queue.Load() > 0; {
		if time.Now().After(end) {
			t.Fatal("nothing was sealed")
		}
		time.Sleep(5 * time.Millisecond)
	}
	m.down(true, false)
	m.dropMeta()
	if err := m.host.fs.Remove("/d/" + registryFile); err != nil {
		t.Fatal(err)
	}
	clone(old, m.host.fs)
	return m, id
}

// What the ASDs have of a vDisk that nobody knows stays, whatever is created and removed: its number is given
// to nobody, with and without a repair before.
func TestStrayIsLeftAlone(t *testing.T) {
	ctx := context.Background()
	for _, repair := range []bool{false, true} {
		m, id := strayed(t)
		if repair {
			m.fsck(FsckOptions{Repair: true})
			if r := m.fsck(FsckOptions{Repair: true}); r.Found != 1 || !strings.Contains(r.Findings[0], "left alone") {
				t.Fatalf("the second check: %+v", r.Findings)
			}
		}
		start := func() {
			n, err := Start(Options{Config: m.config(), Log: newTestLog(m), Host: m.host, NoNBD: true})
			if err != nil {
				t.Fatal(err)
			}
			m.n = n
		}
		start()
		had := m.fragments(id)
		if had == 0 {
			t.Fatal("no stray")
		}
		for _, name := range []string{"third", "fourth"} {
			d, err := m.n.CreateVDisk(ctx, name, 1<<20)
			if err != nil || ids.VolumeID(d.ID) <= id {
				t.Fatalf("%+v %v", d, err)
			}
		}
		if err := m.n.RemoveVDisk(ctx, "third"); err != nil {
			t.Fatal(err)
		}
		for begin := time.Now(); time.Since(begin) < 20*time.Second; time.Sleep(5 * time.Millisecond) {
			gone, err := m.n.registry.gone(ctx)
			if err == nil && len(gone) == 1 && gone[0].Foreign && gone[0].ID == id {
				break
			}
		}
		m.n.Close()
		start() // buries what is gone
		time.Sleep(50 * time.Millisecond)
		if now := m.fragments(id); now != had {
			t.Fatalf("repair %v: of %d fragments %d are left", repair, had, now)
		}
		m.n.Close()
		m.dropMeta() // the list of vDisks says that the number was given to nobody
		m.fsck(FsckOptions{Repair: true})
		start()
		time.Sleep(50 * time.Millisecond)
		if now := m.fragments(id); now != had {
			t.Fatalf("repair %v: after the metadata store was made again, of %d fragments %d are left", repair, had, now)
		}
		m.n.Close()
	}
}

// A number that an ASD knows only when the vDisk is opened is given up for another; nothing of it is deleted.
func TestCreateGivesUpForeignNumber(t *testing.T) {
	m, id := strayed(t)
	m.fsck(FsckOptions{Repair: true})
	m.start(false)
	ctx := context.Background()
	m.editRunning(func(txn *meta.Txn) { txn.Put([]byte(nextKey), []byte(id.String())).Delete(goneKey(id)) })
	had := m.fragments(id)
	blind := func(context.Context, ids.VolumeID) bool { return true }
	r, err := m.n.registry.add(ctx, record{Name: "x", Size: 1 << 20, SCOSize: m.n.scoSize()}, blind)
	if err != nil || r.ID != id {
		t.Fatal(r, err)
	}
	if _, err := m.n.openVDisk(ctx, r, nil); errs.Of(err) != errs.Corrupt || !errors.Is(err, errOldStore) {
		t.Fatal(err)
	}
	r.Foreign = true
	if err := m.n.registry.remove(ctx, r); err != nil {
		t.Fatal(err)
	}
	m.n.bury(ctx, r)
	if now := m.fragments(id); now != had {
		t.Fatalf("of %d fragments %d are left", had, now)
	}
	if _, known, err := m.n.objects.whole(ctx, id); known || err != nil {
		t.Fatal("the floor is left", err)
	}
	m.down(true, false)
}

// editRunning changes the metadata store of a deployment that runs.
func (m *model) editRunning(edit func(*meta.Txn)) {
	m.t.Helper()
	txn := new(meta.Txn)
	edit(txn)
	if err := m.n.meta.Apply(context.Background(), txn); err != nil {
		m.fatalf("%v", err)
	}
}

func newTestLog(m *model) *slog.Logger { return slog.New(slog.NewTextHandler(m.log, nil)) }
