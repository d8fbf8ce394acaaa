package node

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
	"vstor/dataplane/volume/journal"
)

var (
	rotSeed  = flag.Uint64("rot.seed", 0, "run the rot test with this seed alone")
	rotFlips = flag.Int("rot.flips", 0, "flip so many bits in all")
)

// rotPlace is somewhere to flip a bit.
type rotPlace struct {
	kind string
	path string // of a file in the host's file system, or of a drive
	lo   int64  // bytes [lo, hi) of a drive; of a file all
	hi   int64
}

// rotPlaces lists a stopped deployment by kind. ASDs not in asds are left out; nil: all of them count.
func rotPlaces(t *testing.T, h *memHost, asds []int) map[string][]rotPlace {
	t.Helper()
	out := map[string][]rotPlace{}
	add := func(p rotPlace) { out[p.kind] = append(out[p.kind], p) }
	for i := range 6 {
		if asds != nil && !slices.Contains(asds, i) {
			continue
		}
		dir := fmt.Sprintf("/d/asd-%d", i)
		size := h.files[dir+"/data"].Size()
		add(rotPlace{"asd superblock", dir + "/data", 0, 160})
		add(rotPlace{"asd superblock", dir + "/data", 1 << 20, 1<<20 + 160})
		add(rotPlace{"asd data", dir + "/data", 2 << 20, min(size, 16<<20)})
		for _, f := range rotFiles(t, h, dir+"/index") {
			add(rotPlace{kind: "asd index", path: f})
		}
	}
	for _, f := range rotFiles(t, h, "/d/meta") {
		add(rotPlace{kind: "meta", path: f})
	}
	for _, f := range rotFiles(t, h, "/d/router/map") {
		add(rotPlace{kind: "map", path: f})
	}
	j := "/d/router/journal-0"
	for _, off := range []int64{journal.RootA, journal.RootB} {
		add(rotPlace{"journal root", j, off, off + 160})
	}
	add(rotPlace{"journal", j, journal.DataStart, h.files[j].Size()})
	add(rotPlace{kind: "identity", path: "/d/" + identFile})
	return out
}

func rotFiles(t *testing.T, h *memHost, dir string) (out []string) {
	t.Helper()
	names, err := h.fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		st, err := h.fs.Stat(filepath.Join(dir, name))
		if err == nil && !st.IsDir() && st.Size() > 0 && name != "BALLAST" {
			out = append(out, filepath.Join(dir, name))
		}
	}
	slices.Sort(out)
	return out
}

// flipAt turns one bit and says where.
func flipAt(t *testing.T, h *memHost, p rotPlace, rng *rand.Rand) string {
	t.Helper()
	if g := h.files[p.path]; g != nil {
		b, err := buf.AlignedBytes(4096)
		if err != nil {
			t.Fatal(err)
		}
		defer buf.FreeAligned(b)
		at := p.lo + rng.Int64N(p.hi-p.lo)
		if err := g.Mem.ReadAt(b, at&^4095); err != nil {
			t.Fatal(err)
		}
		b[at&4095] ^= 1 << rng.IntN(8)
		if err := g.Mem.WriteAt(b, at&^4095); err != nil {
			t.Fatal(err)
		}
		if err := g.Mem.Sync(); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%s byte %d", p.path, at)
	}
	f, err := h.fs.Open(p.path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	at := rng.IntN(len(b))
	b[at] ^= 1 << rng.IntN(8)
	w, err := h.fs.Create(p.path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(b)
	w.Close()
	return fmt.Sprintf("%s byte %d of %d", p.path, at, len(b))
}

// rotTally counts what flips of a kind led to.
type rotTally struct {
	flips, clean, eio, refused int      // bits; rounds
	says                       []string // the refusals
}

// rotRound is one stopped deployment with flips in it.
type rotRound struct {
	*model
	where []string
	lost  map[int64]bool // blocks that gave an error
}

// up starts the damaged deployment; the error is the sentence with which it refuses.
func (r *rotRound) up() error {
	n, err := r.begin()
	if err != nil {
		return err
	}
	r.n, r.d = n, n.vdisks["v"]
	if r.d == nil {
		f := n.failed["v"]
		if f == nil {
			r.t.Fatalf("%v: the vDisk is gone", r.where)
		}
		err = f.err
		n.Close()
	}
	return err
}

func (r *rotRound) begin() (*Node, error) {
	return Start(Options{Config: r.config(), Log: slog.New(slog.NewTextHandler(r.log, nil)), Host: r.host, NoNBD: true,
		Fatal: func(err error) { fmt.Fprintln(os.Stderr, r.where, err); os.Exit(3) }})
}

// verify reads every block: right, or an error. It returns how many gave one.
func (r *rotRound) verify(when string) int {
	bad := 0
	for b := int64(0); b < r.size/4096; b += 16 {
		o := r.read(b, 16)
		if o.req.Err == errs.OK {
			for i := range int64(16) {
				r.same(when, b+i, o.data[i*4096:(i+1)*4096])
			}
			continue
		}
		for i := range int64(16) {
			if o := r.read(b+i, 1); o.req.Err == errs.OK {
				r.same(when, b+i, o.data)
			} else {
				r.lost[b+i] = true
				bad++
			}
		}
	}
	return bad
}

func (r *rotRound) read(b, n int64) *op {
	o := &op{req: block.Request{Op: block.Read, Off: b * 4096, Len: uint32(n * 4096)}}
	r.submit(o)
	<-o.done
	return o
}

func (r *rotRound) same(when string, b int64, got []byte) {
	if want := r.flat[b*4096 : b*4096+4096]; !bytes.Equal(got, want) {
		r.t.Fatalf("seed %d: %s, after flips at %v: block %d is wrong: %x, want %x (lost before: %v)", r.seed, when,
			r.where, b, got[:16], want[:16], r.lost[b])
	}
}

// rewrite writes some blocks, lost ones first: they must read from then on.
func (r *rotRound) rewrite() {
	var blocks []int64
	for b := range r.lost {
		blocks = append(blocks, b)
	}
	slices.Sort(blocks)
	blocks = append(blocks[:min(len(blocks), 20)], r.rng.Int64N(r.size/4096), r.rng.Int64N(r.size/4096))
	for _, b := range blocks {
		o := &op{req: block.Request{Op: block.Write, Off: b * 4096, Len: 4096}, data: make([]byte, 4096)}
		fill(o.data, r.rng)
		data := bytes.Clone(o.data)
		r.submit(o)
		<-o.done
		if o.req.Err != errs.OK {
			continue
		}
		copy(r.flat[b*4096:], data)
		delete(r.lost, b)
		if o := r.read(b, 1); o.req.Err != errs.OK {
			r.t.Fatalf("%v: block %d was written again and reads with %v", r.where, b, o.req.Err)
		}
	}
	o := &op{req: block.Request{Op: block.Flush}}
	r.submit(o)
	<-o.done
	r.d.rig.loop.Call(r.d.vol.Seal)
}

// run starts, reads, writes, seals, and reads again after a restart.
func (r *rotRound) run(t *rotTally) {
	for life := range 2 {
		err := r.up()
		if err != nil {
			if s := err.Error(); strings.ContainsAny(s, "\n") || strings.Contains(s, "goroutine") {
				r.t.Fatalf("%v: the refusal is no sentence: %v", r.where, err)
			}
			if life == 0 {
				t.refused++
				t.says = append(t.says, err.Error())
			}
			return
		}
		bad := r.verify(fmt.Sprintf("life %d", life+1))
		switch {
		case life > 0:
		case bad > 0:
			t.eio++
		default:
			t.clean++
		}
		r.rewrite()
		r.verify("after writing again")
		if err := r.n.Close(); err != nil {
			r.t.Fatalf("%v: close: %v", r.where, err)
		}
		prev := r.host
		r.host = prev.crash(r.rng, false)
	}
}

// rotBase makes a deployment with a history and stops or kills it.
func rotBase(t *testing.T, seed uint64, log io.Writer) *model {
	m := &model{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 7)), host: newMemHost(), log: log}
	m.weak = [2]int{m.rng.IntN(6), m.rng.IntN(6)}
	m.size = int64(1+m.rng.IntN(3)) * 2 << 20
	m.flat, m.maybe = make([]byte, m.size), make([][]byte, m.size/4096)
	m.step.Store("")
	m.start(true)
	for range 1 + m.rng.IntN(2) {
		for range 20 + m.rng.IntN(300) {
			m.round()
		}
		if err := m.n.Close(); err != nil {
			t.Fatal(err)
		}
		m.start(false)
		for range m.rng.IntN(100) {
			m.round()
		}
	}
	if m.rng.IntN(2) == 0 {
		if err := m.n.Close(); err != nil {
			t.Fatal(err)
		}
		return m
	}
	m.fallSilent()
	old := m.host
	m.host = old.crash(m.rng, false)
	m.n.Close()
	return m
}

// fallSilent waits until what was written last has something behind it that vouches for it: journal and metadata
// store see to that a second after they fell silent. A time of silence is told by looks and not by the clock,
// which goes on where a busy machine keeps the process from writing.
func (m *model) fallSilent() {
	m.t.Helper()
	end := time.Now().Add(5 * time.Minute)
	for last, same := "", 0; same < 25; {
		time.Sleep(100 * time.Millisecond)
		var s journal.Stats
		m.d.rig.loop.Call(func() { s = m.d.rig.jrn.Stats() })
		now := fmt.Sprint(s, m.files())
		if same++; now != last {
			last, same = now, 0
		}
		if time.Now().After(end) {
			m.fatalf("it does not fall silent: %s", now)
		}
	}
}

// TestRotEverywhere flips bits in every file of a stopped or killed deployment: never is anything served but what
// was written last, or an error.
func TestRotEverywhere(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if *rotSeed != 0 {
		seed = *rotSeed
	}
	t.Logf("seed %d (repeat with -rot.seed=%d)", seed, seed)
	rng := rand.New(rand.NewPCG(seed, 5))
	log := io.Writer(io.Discard)
	if *rotSeed != 0 {
		log = os.Stderr
	}
	bases, rounds := 4, 30
	if testing.Short() {
		bases, rounds = 2, 10
	}
	tally := map[string]*rotTally{}
	flips := 0
	for b := 0; b < bases || flips < *rotFlips; b++ {
		base := rotBase(t, rng.Uint64(), log)
		for range rounds {
			flips += rotSome(t, base, rng, tally)
		}
	}
	t.Logf("%-15s %6s %7s %7s %7s", "place", "flips", "clean", "EIO", "refused")
	for _, kind := range slices.Sorted(func(yield func(string) bool) {
		for k := range tally {
			if !yield(k) {
				return
			}
		}
	}) {
		x := tally[kind]
		t.Logf("%-15s %6d %7d %7d %7d", kind, x.flips, x.clean, x.eio, x.refused)
		for _, says := range x.says[:min(len(x.says), 3)] {
			t.Logf("                says: %s", says)
		}
	}
}

// rotSome is a round: a few flips in one kind of place, or many everywhere.
func rotSome(t *testing.T, base *model, rng *rand.Rand, tally map[string]*rotTally) (flips int) {
	m := &model{t: t, seed: base.seed, rng: rng, host: base.host.crash(rng, false), size: base.size, log: base.log,
		flat: bytes.Clone(base.flat), maybe: make([][]byte, base.size/4096)}
	r := &rotRound{model: m, lost: map[int64]bool{}}
	all := rng.IntN(5) == 0
	asds := []int{base.weak[0], base.weak[1]}
	if all {
		asds = nil
	}
	places := rotPlaces(t, m.host, asds)
	var kinds []string
	for k := range places {
		kinds = append(kinds, k)
	}
	slices.Sort(kinds)
	name := kinds[rng.IntN(len(kinds))]
	n := 1 + rng.IntN(8)
	if all {
		name, n = "everywhere", 20+rng.IntN(60)
	}
	if all && rng.IntN(2) == 0 { // what is large, and does not stop the whole
		name, kinds = "data and journal", []string{"asd data", "journal"}
	}
	for range n {
		k := name
		if all {
			k = kinds[rng.IntN(len(kinds))]
		}
		p := places[k][rng.IntN(len(places[k]))]
		r.where = append(r.where, flipAt(t, m.host, p, rng))
	}
	if tally[name] == nil {
		tally[name] = &rotTally{}
	}
	tally[name].flips += n
	before := tally[name].eio
	r.run(tally[name])
	if strings.HasPrefix(name, "asd") && tally[name].eio > before {
		t.Fatalf("seed %d: %v: two ASDs rotted and blocks are lost: %v", m.seed, r.where, r.lost)
	}
	return n
}
