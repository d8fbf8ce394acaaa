package proxy

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/meta"
)

var ctx = context.Background()

// fakeStore keeps fragments in memory and fails on demand.
type fakeStore struct {
	mu    sync.Mutex
	frags map[layout.FragKey][]byte
	sums  map[layout.FragKey][]uint64
	descs map[layout.FragKey][]byte
	high  map[ids.NamespaceID]ids.Epoch

	putErr, getErr, delErr, listErr error
	putHook                         func(*layout.FragPut) error
	hang                            chan struct{} // puts wait until it is closed, whatever their context says
	hung                            chan layout.FragKey
	discard                         bool
	puts                            int
}

func newFake() *fakeStore {
	return &fakeStore{frags: map[layout.FragKey][]byte{}, sums: map[layout.FragKey][]uint64{},
		descs: map[layout.FragKey][]byte{},
		high:  map[ids.NamespaceID]ids.Epoch{}, hung: make(chan layout.FragKey, 1000)}
}

func (s *fakeStore) set(f func(*fakeStore)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

func (s *fakeStore) Put(_ context.Context, p *layout.FragPut) error {
	s.mu.Lock()
	err, hook, hang, discard := s.putErr, s.putHook, s.hang, s.discard
	s.puts++
	s.mu.Unlock()
	if discard {
		return nil
	}
	if hang != nil {
		s.hung <- p.Key
		<-hang
	}
	if err == nil && hook != nil {
		err = hook(p)
	}
	if err != nil {
		return err
	}
	payload := p.Buf[layout.FragHeaderSize:]
	if len(payload)%4096 != 0 || len(p.Sums) != layout.Regions(len(payload)) {
		return errs.New(errs.Invalid, "payload of %d bytes with %d sums", len(payload), len(p.Sums))
	}
	for r, sum := range p.Sums {
		if xxhash.Sum64(payload[r*layout.RegionSize:min((r+1)*layout.RegionSize, len(payload))]) != sum {
			return errs.New(errs.Corrupt, "region %d of %v", r, p.Key)
		}
	}
	for i := range layout.FragHeaderSize {
		p.Buf[i] = 0xee // the headroom is the store's
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.Epoch < s.high[p.Key.Namespace] {
		return errs.New(errs.Refused, "epoch %d was seen", s.high[p.Key.Namespace])
	}
	s.high[p.Key.Namespace] = p.Epoch
	if old, ok := s.frags[p.Key]; ok && !bytes.Equal(old, payload) {
		return errs.New(errs.Refused, "%v has other content", p.Key)
	}
	s.frags[p.Key] = bytes.Clone(payload)
	s.sums[p.Key] = slices.Clone(p.Sums)
	s.descs[p.Key] = bytes.Clone(p.Desc)
	return nil
}

func (s *fakeStore) Get(_ context.Context, key layout.FragKey, off uint32, dst []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.getErr != nil {
		return s.getErr
	}
	b, ok := s.frags[key]
	if !ok {
		return errs.New(errs.Absent, "no %v", key)
	}
	for r := int(off) / layout.RegionSize; r*layout.RegionSize < int(off)+len(dst); r++ {
		region := b[r*layout.RegionSize : min((r+1)*layout.RegionSize, len(b))]
		if xxhash.Sum64(region) != s.sums[key][r] {
			return errs.New(errs.Corrupt, "region %d of %v", r, key)
		}
	}
	copy(dst, b[off:])
	return nil
}

func (s *fakeStore) Delete(_ context.Context, keys []layout.FragKey) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.delErr != nil {
		return s.delErr
	}
	for _, k := range keys {
		delete(s.frags, k)
	}
	return nil
}

func (s *fakeStore) ListNamespace(_ context.Context, ns ids.NamespaceID, after layout.FragKey, limit int) (
	[]layout.FragKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listErr != nil {
		return nil, s.listErr
	}
	var out []layout.FragKey
	for k := range s.frags {
		if k.Namespace == ns && k.Compare(after) > 0 {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, layout.FragKey.Compare)
	return out[:min(len(out), limit)], nil
}

func (s *fakeStore) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.frags)
}

// rig is a proxy over fake stores and a metadata store in memory.
type rig struct {
	*Proxy
	t      testing.TB
	fs     *vfs.MemFS
	meta   *meta.Pebble
	stores []*fakeStore
	opts   Options

	mu   sync.Mutex
	dead map[int]bool
	free map[int]int64
}

const ns = ids.NamespaceID(77)

func newRig(t testing.TB, stores int, change func(*Options)) *rig {
	r := &rig{t: t, fs: vfs.NewCrashableMem(), dead: map[int]bool{}, free: map[int]int64{}}
	for range stores {
		r.stores = append(r.stores, newFake())
	}
	r.opts = Options{
		ASDs: r.asds,
		Preset: layout.Preset{MaxFragment: 128 << 10, Policies: []layout.Policy{
			{K: 4, M: 2, C: 5, X: 1}, {K: 2, M: 2, C: 3, X: 1}}},
		// So long that no store of a loaded machine is taken for one that hangs. Tests that hang one set
		// it short; in those, c needs every store that does not.
		Grace: 20 * time.Second, StallTimeout: 60 * time.Second,
		Workers: 2, RetryInterval: -1, Seed: 1,
		Log: func(f string, a ...any) { t.Logf(f, a...) },
	}
	if change != nil {
		change(&r.opts)
	}
	r.start()
	t.Cleanup(r.stop)
	return r
}

func (r *rig) asds() []ASD {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]ASD, 0, len(r.stores))
	for i, s := range r.stores {
		free, ok := r.free[i]
		if !ok {
			free = 1 << 40
		}
		out = append(out, ASD{ID: ids.ASDID(i), Node: ids.NodeID(i), Alive: !r.dead[i], Free: free, Store: s})
	}
	return out
}

func (r *rig) setDead(dead bool, list ...int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, i := range list {
		r.dead[i] = dead
	}
}

func (r *rig) start() {
	r.t.Helper()
	var err error
	if r.meta, err = meta.OpenPebble(meta.PebbleOptions{Dir: "meta", FS: r.fs}); err != nil {
		r.t.Fatal(err)
	}
	r.opts.Meta = r.meta
	if r.Proxy, err = New(r.opts); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) stop() {
	r.t.Helper()
	c, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := r.Close(c); err != nil {
		r.t.Error(err)
	}
	if err := r.meta.Close(); err != nil {
		r.t.Error(err)
	}
}

// crash loses what the metadata store did not sync and what the proxy knew, and starts again.
func (r *rig) crash() {
	r.t.Helper()
	after := r.fs.CrashClone(vfs.CrashCloneCfg{})
	r.stop()
	r.fs = after
	r.start()
}

func (r *rig) own() ids.Epoch {
	r.t.Helper()
	e, err := r.TakeOwnership(ctx, ns)
	if err != nil {
		r.t.Fatal(err)
	}
	// Tests name SCOs as they like; garbage collection wants them given out.
	if n, _, err := r.cell(ctx, keySCOs, ns); err != nil || n < scosGiven {
		if _, err = r.ReserveSCOs(ctx, ns, e, scosGiven); err != nil {
			r.t.Fatal(err)
		}
	}
	return e
}

// scosGiven is how many SCO numbers a namespace of a test has given out at least.
const scosGiven = 1 << 10

func (r *rig) fragments() int {
	n := 0
	for _, s := range r.stores {
		n += s.count()
	}
	return n
}

// content is a Source of pseudo-random bytes.
type content struct {
	b     []byte
	err   error
	coded atomic.Int64 // what is before it is wanted only if the put is tried again,
	again atomic.Int64 // so many times
}

func newContent(size int, seed uint64) *content {
	rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	b := make([]byte, size)
	rng.Read(b)
	return &content{b: b}
}

func (c *content) Size() int64 { return int64(len(c.b)) }

func (c *content) Fill(dst []byte, off int64) error {
	if off%4096 != 0 || len(dst) > layout.RegionSize || off+int64(len(dst)) > c.Size() {
		panic(fmt.Sprintf("fill %d+%d of %d", off, len(dst), c.Size()))
	}
	if off < c.coded.Load() {
		c.again.Add(1)
		c.coded.Store(0)
	}
	copy(dst, c.b[off:])
	return c.err
}

func (c *content) Coded(end int64) {
	c.coded.Store(end)
}

func (r *rig) spec(epoch ids.Epoch, sco ids.SCONum, src Source) PutSpec {
	return PutSpec{Namespace: ns, SCO: sco, Epoch: epoch, Commit: ids.CommitNum(sco), Kind: layout.KindWrite,
		SeqFirst: 1, SeqLast: 9, Source: src}
}

func (r *rig) put(epoch ids.Epoch, sco ids.SCONum, src Source) *Pending {
	r.t.Helper()
	p, err := r.Put(ctx, r.spec(epoch, sco, src))
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

func (r *rig) commit(p *Pending) {
	r.t.Helper()
	if err := p.Commit(ctx); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) manifestOf(sco ids.SCONum) *layout.Manifest {
	r.t.Helper()
	m, err := r.Manifest(ctx, ns, sco)
	if err != nil {
		r.t.Fatal(err)
	}
	return m
}

// mustRead reads the object in both ways, whole and in part, and compares.
func (r *rig) mustRead(m *layout.Manifest, want []byte) {
	r.t.Helper()
	for name, get := range map[string]func(context.Context, *layout.Manifest, int64, []byte) error{
		"Get": r.Get, "GetVerified": r.GetVerified} {
		got := make([]byte, len(want))
		if err := get(ctx, m, 0, got); err != nil || !bytes.Equal(got, want) {
			r.t.Fatalf("%s: wrong bytes or %v", name, err)
		}
		off, n := len(want)/3, len(want)/5+1
		clear(got)
		if err := get(ctx, m, int64(off), got[:n]); err != nil || !bytes.Equal(got[:n], want[off:off+n]) {
			r.t.Fatalf("%s of a part: wrong bytes or %v", name, err)
		}
	}
}

func (r *rig) waitSettled(p *Pending) {
	r.t.Helper()
	select {
	case <-p.Settled():
	case <-time.After(30 * time.Second):
		r.t.Fatalf("the put does not settle: %d out", p.Outstanding())
	}
}

func (r *rig) kind(err error, want errs.Kind) {
	r.t.Helper()
	if errs.Of(err) != want {
		r.t.Fatalf("want %v, got %v (%v)", want, err, errs.Of(err))
	}
}

// until polls for something another goroutine is about to do.
func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	for range 3000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	r.t.Fatal("this never came about: " + what)
}
