package node

import (
	"context"
	"flag"
	"io"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"vstor/dataplane/config"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/units"
	"vstor/dataplane/volume/pagemap"
	"vstor/dataplane/volume/sco"
)

var mappedFlag = flag.String("mapped", "", "map so much of a vDisk in TestStartWithMuchMapped, like 1T; default 16G")

// mapMuch makes a vDisk of size bytes whose map and manifests are those of one that was written through,
// SCO by SCO, without the data: nobody reads that at a start.
func mapMuch(t *testing.T, n *Node, size int64) (scos int) {
	t.Helper()
	ctx := context.Background()
	if _, err := n.CreateVDisk(ctx, "much", size); err != nil {
		t.Fatal(err)
	}
	d := n.vdisks["much"]
	p := n.cfg.Policies[0]
	per := sco.Capacity(sco.Write, d.SCOSize, 0)
	entries := make([]pagemap.Entry, 0, per)
	room := make(chan struct{}, 1)
	for addr := int64(0); addr < size>>ids.BlockShift; scos++ {
		c := ids.CommitNum(scos + 1)
		entries = entries[:0]
		for i := 0; i < per && addr < size>>ids.BlockShift; i++ {
			entries = append(entries, pagemap.Entry{Addr: ids.BlockAddr(addr), Off: uint16(i + 100),
				Sum: uint32(addr * 2654435761)})
			addr++
		}
		seq := ids.Seq(addr)
		m := &layout.Manifest{Namespace: d.ID, SCO: ids.SCONum(c), Put: ids.PutID(c), Epoch: d.epoch, Commit: c,
			Kind: layout.KindWrite, SeqFirst: seq - ids.Seq(len(entries)) + 1, SeqLast: seq,
			Size: sco.Size(sco.Write, len(entries), 0), MaxFrag: uint32(n.cfg.FragmentSize), Policy: p}
		m.Plain = m.Size
		for i := range p.N() {
			m.Targets = append(m.Targets, layout.Target{Kind: layout.TargetASD, ASD: ids.ASDID(i)})
		}
		for range m.Geometry().Chunks * p.N() {
			m.Frags = append(m.Frags, layout.Frag{Version: 1, State: layout.FragPresent, Sum: uint64(seq)})
		}
		if err := n.proxy.Restore(ctx, m); err != nil {
			t.Fatal(err)
		}
		full := false
		d.rig.loop.Call(func() {
			d.m.AddSCO(pagemap.SCO{Num: ids.SCONum(c), Commit: c, Blocks: uint32(len(entries)), First: m.SeqFirst, Last: seq})
			d.m.Apply(c, ids.SCONum(c), entries)
			d.m.Commit(c, seq)
			if full = d.m.Full(); full {
				d.m.WhenRoom(func() { room <- struct{}{} })
			}
		})
		if full {
			<-room
		}
	}
	flushed := make(chan error, 1)
	d.rig.loop.Call(func() { d.m.FlushAll(func(err error) { flushed <- err }) })
	if err := <-flushed; err != nil {
		t.Fatal(err)
	}
	return scos
}

// A start reads what is kept of each SCO and no page of the map, however much of it there is.
func TestStartWithMuchMapped(t *testing.T) {
	size := int64(16) << 30
	if testing.Short() {
		size = 4 << 30
	}
	host := Host(newMemHost())
	cfg := config.Config{Dir: "/d", ASDs: 6, ASDSize: 64 << 20, Nodes: 6, Policies: config.DefaultPolicies(),
		SCOSize: 64 << 20, FragmentSize: 4 << 20, Memory: 1 << 30, Journal: 1 << 30, MaxConnections: 16, Loops: 1}
	if *mappedFlag != "" {
		var err error
		if size, err = units.ParseSize(*mappedFlag); err != nil {
			t.Fatal(err)
		}
		cfg.Dir, host = filepath.Join(t.TempDir(), "d"), RealHost{}
	} else {
		cfg.Journal = 64 << 20
	}
	start := func(fresh bool) *Node {
		n, err := Start(Options{Config: cfg, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Host: host, Fresh: fresh,
			NoNBD: true})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	restart := func(n *Node) (*Node, time.Duration) {
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		n = start(false)
		return n, time.Since(began)
	}
	if err := host.FS().MkdirAll(cfg.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	n, empty := restart(start(true))
	scos := mapMuch(t, n, size)
	n, took := restart(n)
	defer n.Close()
	d := n.vdisks["much"]
	if d == nil {
		t.Fatal(n.failed["much"].err)
	}
	var s pagemap.Stats
	var mapped int64
	d.rig.loop.Call(func() {
		s = d.m.Stats()
		d.m.EachSCO(func(_ pagemap.SCO, live int) bool { mapped += int64(live); return true })
	})
	t.Logf("%d GiB mapped in %d SCOs: ready after %v, %v with nothing mapped; %d pages of the map were read",
		mapped>>18, scos, took.Round(time.Millisecond), empty.Round(time.Millisecond), s.PagesLoaded)
	if s.PagesLoaded+s.BytesRead != 0 || s.RedoCommits != 0 || mapped<<ids.BlockShift != size {
		t.Errorf("%+v, %d of %d bytes mapped", s, mapped<<ids.BlockShift, size)
	}
	if v, ok := lookup(d, ids.BlockAddr(size>>ids.BlockShift-1)); !ok || v.SCO != ids.SCONum(scos) {
		t.Errorf("the last block lies in SCO %d (%v), %d would be right", v.SCO, ok, scos)
	}
}

// lookup finds where a block lies, reading the map's page if need be.
func lookup(d *vdisk, addr ids.BlockAddr) (l layout.Location, ok bool) {
	read := make(chan error, 1)
	d.rig.loop.Call(func() {
		if l, ok = d.m.Lookup(addr); ok {
			read <- nil
			return
		}
		d.m.Load(pagemap.PageNo(addr>>pagemap.PageShift), func(err error) { read <- err })
	})
	if <-read == nil && !ok {
		d.rig.loop.Call(func() { l, ok = d.m.Lookup(addr) })
	}
	return l, ok
}
