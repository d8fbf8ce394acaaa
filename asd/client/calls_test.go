package client

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"vstor/asd/proto"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// All calls against a real server, over both networks.
func TestCalls(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			w := newWorld(t, settings{network: network})
			a, ctx := w.up(), timed(t)
			sizes := []int{4096, 64 << 10, 68 << 10, 1 << 20, 3<<20 + 8192}
			for i, n := range sizes {
				must(t, a.Put(ctx, fput(t, i, n)))
				must(t, a.Put(ctx, fput(t, i, n))) // the same again
				must(t, a.Verify(ctx, key(i)))
				desc, err := a.Describe(ctx, key(i))
				must(t, err)
				if want := fput(t, i, n).Desc; !bytes.Equal(desc, want) {
					t.Errorf("descriptor %q, want %q", desc, want)
				}
				rng := rand.New(rand.NewPCG(1, uint64(i)))
				for range 10 {
					off := rng.IntN(n)
					got(t, a, i, n, off, 1+rng.IntN(n-off))
				}
				got(t, a, i, n, 0, n)
			}
			es, err := a.Locate(ctx, key(3), 4096, 512<<10)
			must(t, err)
			if len(es) == 0 {
				t.Error("no extents")
			}
			testRanges(t, a, sizes)
			testLists(t, a, len(sizes))
			testNumbers(t, a, len(sizes))
			must(t, a.Delete(ctx, []layout.FragKey{key(0), key(1), key(77)}))
			wantKind(t, a.Get(ctx, key(0), 0, make([]byte, 1)), errs.Absent)
			wantKind(t, a.Verify(ctx, key(1)), errs.Absent)
			_, err = a.Describe(ctx, key(1))
			wantKind(t, err, errs.Absent)
			_, err = a.Locate(ctx, key(1), 0, 4096)
			wantKind(t, err, errs.Absent)
		})
	}
}

// got reads and compares.
func got(t testing.TB, a *ASD, i, size, off, n int) {
	t.Helper()
	dst := make([]byte, n)
	must(t, a.Get(timed(t), key(i), uint32(off), dst))
	if !bytes.Equal(dst, payload(i, size)[off:off+n]) {
		t.Fatalf("fragment %d, %d bytes at %d: wrong bytes", i, n, off)
	}
}

func testRanges(t *testing.T, a *ASD, sizes []int) {
	rs := []proto.Range{{Key: key(1), Off: 8192, Len: 4096}, {Key: key(50), Len: 8192}, {Key: key(2), Len: 64 << 10},
		{Key: key(0), Off: 4096, Len: 4096}, {Key: key(3), Off: 512 << 10, Len: 256 << 10}}
	dst := make([]byte, 4096+8192+64<<10+4096+256<<10)
	kinds, err := a.ReadRanges(timed(t), rs, dst)
	must(t, err)
	for i, want := range []errs.Kind{errs.OK, errs.Absent, errs.OK, errs.Invalid, errs.OK} {
		if kinds[i] != want {
			t.Fatalf("range %d: %v, want %v", i, kinds[i], want)
		}
		if r := rs[i]; want == errs.OK {
			n := map[layout.FragKey]int{key(1): 1, key(2): 2, key(3): 3}[r.Key]
			if !bytes.Equal(dst[:r.Len], payload(n, sizes[n])[r.Off:r.Off+r.Len]) {
				t.Errorf("range %d: wrong bytes", i)
			}
		}
		dst = dst[rs[i].Len:]
	}
	_, err = a.ReadRanges(timed(t), nil, nil)
	wantKind(t, err, errs.Invalid)
	_, err = a.ReadRanges(timed(t), []proto.Range{{Key: key(1), Off: 1, Len: 4096}}, make([]byte, 4096))
	wantKind(t, err, errs.Invalid)
}

func testLists(t *testing.T, a *ASD, n int) {
	all, err := a.List(timed(t), layout.FragKey{}, 1000)
	must(t, err)
	if len(all) != n {
		t.Fatalf("%d fragments, want %d", len(all), n)
	}
	var paged []proto.Fragment
	for after := (layout.FragKey{}); ; after = paged[len(paged)-1].Key {
		page, err := a.List(timed(t), after, 2)
		must(t, err)
		paged = append(paged, page...)
		if len(page) < 2 {
			break
		}
	}
	for i := range all {
		if all[i] != paged[i] || all[i].Len == 0 || all[i].Epoch != 1 || all[i].Time == 0 {
			t.Errorf("%v and %v", all[i], paged[i])
		}
	}
	count := 0
	for ns := range ids.NamespaceID(5) {
		keys, err := a.ListNamespace(timed(t), ns, layout.FragKey{}, 100)
		must(t, err)
		for _, k := range keys {
			if k.Namespace != ns {
				t.Errorf("%v in namespace %d", k, ns)
			}
		}
		count += len(keys)
	}
	if count != n {
		t.Errorf("%d fragments in all namespaces, want %d", count, n)
	}
}

func testNumbers(t *testing.T, a *ASD, puts int) {
	ctx := timed(t)
	must(t, a.Ping(ctx))
	i, err := a.Info(ctx)
	must(t, err)
	if i.ID != 3 || i.UUID != testUUID || i.Deployment != testDeploy || i.Capacity == 0 {
		t.Errorf("%+v", i)
	}
	until(t, "figures", func() bool { s, ok := a.Stat(); return ok && s.Fragments == int64(puts) && s.Capacity > 0 })
	must(t, a.Fence(ctx, 2, 9))
	e, err := a.HighestEpoch(ctx, 2)
	must(t, err)
	if e != 9 {
		t.Errorf("epoch %d, want 9", e)
	}
	wantKind(t, a.Put(ctx, fput(t, 4, 4096)), errs.Refused) // namespace 2, epoch 1
	wantKind(t, a.Put(ctx, fput(t, 0, 8192)), errs.Refused) // other content
	wantKind(t, a.SetFaults(ctx, "anything"), errs.Unsupported)
}

// More fragments than go into one Delete or one List.
func TestLongLists(t *testing.T) {
	w := newWorld(t, settings{})
	a, ctx := w.up(), timed(t)
	p := fput(t, 0, 4096)
	var keys []layout.FragKey
	for i := range 1500 {
		k := layout.FragKey{Namespace: 5, SCO: ids.SCONum(i + 1), Put: 1}
		keys = append(keys, k)
	}
	var wg sync.WaitGroup
	for at := 0; at < len(keys); at += 100 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for _, k := range keys[at : at+100] {
				q := *p
				q.Key = k
				if err := a.Put(ctx, &q); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	list, err := a.ListNamespace(ctx, 5, layout.FragKey{}, 5000)
	must(t, err)
	if len(list) != len(keys) {
		t.Fatalf("%d keys, want %d", len(list), len(keys))
	}
	must(t, a.Delete(ctx, append(keys, keys...)))
	list, err = a.ListNamespace(ctx, 5, layout.FragKey{}, 5000)
	if err != nil || len(list) != 0 {
		t.Fatal(len(list), err)
	}
}

// What the drive does wrong is told apart.
func TestDriveErrors(t *testing.T) {
	w := newWorld(t, settings{size: 16 << 20})
	a, ctx := w.up(), timed(t)
	must(t, a.Put(ctx, fput(t, 1, 256<<10)))
	es, err := a.Locate(ctx, key(1), 0, 256<<10)
	must(t, err)
	w.drive.Set(dio.Rule{On: dio.Reads, Do: dio.FlipBit, Chance: 1, Off: es[0].Off, Len: 4096})
	wantKind(t, a.Get(ctx, key(1), 0, make([]byte, 4096)), errs.Corrupt)
	wantKind(t, a.Verify(ctx, key(1)), errs.Corrupt)
	w.drive.Set(dio.Rule{On: dio.Reads, Do: dio.FailIO, Chance: 1})
	wantKind(t, a.Get(ctx, key(1), 0, make([]byte, 4096)), errs.IO)
	w.drive.Set()
	got(t, a, 1, 256<<10, 0, 256<<10)
	for i := 2; ; i++ {
		if i == 20 {
			t.Fatal("the drive never got full")
		}
		if err := a.Put(ctx, fput(t, i, 1<<20)); err != nil {
			wantKind(t, err, errs.Full)
			break
		}
	}
	bad := fput(t, 90, 4096)
	bad.Sums[0]++
	if k := errs.Of(a.Put(ctx, bad)); k != errs.Corrupt && k != errs.Invalid {
		t.Errorf("a put with a wrong sum: %v", k)
	}
	bad.Sums = append(bad.Sums, 1)
	wantKind(t, a.Put(ctx, bad), errs.Invalid)
}

// A call that is given up ends at once, its connection with it, and the next one is not disturbed.
func TestCancel(t *testing.T) {
	w := newWorld(t, settings{})
	a := w.up()
	must(t, a.Put(timed(t), fput(t, 1, 64<<10)))
	got(t, a, 1, 64<<10, 0, 100)
	w.relay.stop()
	ctx, cancel := context.WithCancel(bg)
	time.AfterFunc(20*time.Millisecond, cancel)
	err := a.Get(ctx, key(1), 0, make([]byte, 100))
	wantKind(t, err, errs.Canceled)
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	ctx, cancel = context.WithTimeout(bg, 20*time.Millisecond)
	defer cancel()
	wantKind(t, a.Put(ctx, fput(t, 2, 64<<10)), errs.Unreachable)
	w.relay.goOn()
	for range 20 {
		got(t, a, 1, 64<<10, 0, 1000)
	}
	ctx, cancel = context.WithCancel(bg)
	cancel()
	wantKind(t, a.Get(ctx, key(1), 0, make([]byte, 100)), errs.Canceled)
}

// Contexts that end at any moment: every call ends as it should, and none disturbs another's connection.
func TestCancelStorm(t *testing.T) {
	w := newWorld(t, settings{client: func(o *Options) { o.BulkConns = 3 }})
	a := w.up()
	must(t, a.Put(timed(t), fput(t, 1, 256<<10)))
	want := payload(1, 256<<10)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rng := rand.New(rand.NewPCG(uint64(g), 1))
			dst := make([]byte, 256<<10)
			for range 150 {
				ctx, cancel := context.WithCancel(bg)
				hurried := g%2 == 0
				if hurried {
					time.AfterFunc(time.Duration(rng.IntN(2000))*time.Microsecond, cancel)
				}
				err := a.Get(ctx, key(1), 0, dst)
				cancel()
				k := errs.Of(err)
				if k == errs.OK && !bytes.Equal(dst, want) || k != errs.OK && (!hurried || k != errs.Canceled) {
					t.Errorf("hurried %v: %v", hurried, err)
					return
				}
			}
		}()
	}
	wg.Wait()
}

func TestOptions(t *testing.T) {
	good := Options{Addr: "127.0.0.1:1", Secret: testSecret}
	for i, edit := range []func(*Options){
		func(o *Options) { o.Addr = "" },
		func(o *Options) { o.Addr = "nohost" },
		func(o *Options) { o.Network = "udp" },
		func(o *Options) { o.Secret = nil },
		func(o *Options) { o.BulkConns = -1 },
		func(o *Options) { o.CallTimeout = -1 },
		func(o *Options) { o.RetryMax = 1 },
	} {
		o := good
		edit(&o)
		if a, err := New(o); errs.Of(err) != errs.Invalid {
			t.Errorf("%d: %v", i, err)
			a.Close()
		}
	}
	a, err := New(good)
	must(t, err)
	must(t, a.Close())
	wantKind(t, a.Ping(bg), errs.Closed)
	wantKind(t, a.Err(), errs.Closed)
}
