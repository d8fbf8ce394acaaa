package router

import (
	"context"
	"log/slog"
	"time"

	"vstor/dataplane/block"
	"vstor/dataplane/edge/proto"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
	"vstor/dataplane/link"
	"vstor/dataplane/ring"
	"vstor/dataplane/stat"
)

// Driver is the Volume Driver as edges need it beside the block.Device. On the loop; nothing blocks.
type Driver interface {
	// Mutate starts a change. Changes take effect, and end, in the order of their calls.
	Mutate(*block.Mutation)
	// Locate says where the blocks from addr on lie, as far as that may be kept: a block whose newest version is
	// not in a committed object is layout.OffAsk. False: a page of the map is not in RAM, and l is told.
	Locate(addr ids.BlockAddr, out []layout.Location, l block.Loaded) bool
	// Namespace is where a location's object lies.
	Namespace(layout.Location) ids.NamespaceID
	// Sequence is the highest one whose change is visible.
	Sequence() ids.Seq
}

// Objects is where manifests come from. Blocking.
type Objects interface {
	Manifest(ctx context.Context, ns ids.NamespaceID, n ids.SCONum) (*layout.Manifest, error)
}

// Keeper keeps records. Blocking; durable when it returns.
type Keeper interface {
	KeepHolder(ctx context.Context, id ids.VolumeID, r Record) error
}

// Options make a VDisk. Zero fields take the defaults in EnsureDefaults.
type Options struct {
	ID       ids.VolumeID
	Name     string
	Epoch    ids.Epoch
	ReadOnly func() bool // nil: never

	Loop    *ring.Loop
	Hub     *link.Hub // of the loop
	Device  block.Device
	Driver  Driver
	Objects Objects
	Keeper  Keeper
	Rot     func(proto.Rot) // told on the loop of what an edge found damaged; it does not block. nil: nobody
	Former  Record          // what was kept last

	Lease    time.Duration // of the exclusive opener
	Margin   time.Duration // that it is counted longer here than there: clocks drift
	Requests int           // of a connection, unanswered
	Bytes    int64         // that they carry or ask for
	Clock    func() int64  // nil: the boot-time clock, in nanoseconds
	Log      *slog.Logger
}

// EnsureDefaults fills in zero fields.
func (o *Options) EnsureDefaults() {
	if o.Lease == 0 {
		o.Lease = 20 * time.Second
	}
	if o.Margin == 0 {
		o.Margin = 2 * time.Second
	}
	if o.Requests == 0 {
		o.Requests = 256
	}
	if o.Bytes == 0 {
		o.Bytes = 16 << 20
	}
	if o.Clock == nil {
		o.Clock = o.Loop.BootFresh
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.ReadOnly == nil {
		o.ReadOnly = func() bool { return false }
	}
}

// Stats counts what edges did with a vDisk. The loop writes, anyone reads.
type Stats struct {
	Sessions             stat.Gauge
	Reads, Writes        stat.Counter // requests
	Flushes, Discards    stat.Counter
	Lookups              stat.Counter // Locations
	Manifests            stat.Counter
	ReadBytes            stat.Counter
	WriteBytes           stat.Counter
	Refused              stat.Counter // requests of sessions that may not
	BadPeers             stat.Counter // connections closed because of what came
	PageWaits            stat.Counter // times that a connection waited for memory
	Takeovers            stat.Counter
	Rot                  stat.Counter // damaged fragments that edges told of
	Settled              stat.Counter // objects that an edge gave up before they were deleted
	EdgeReads            stat.Gauge   // what the holder says of itself, see proto.Stats
	EdgeLocated          stat.Gauge
	EdgeAsked, EdgeKeeps stat.Gauge
}

// VDisk is a vDisk that edges may open. On its loop, except where said.
type VDisk struct {
	opt   Options
	loop  *ring.Loop
	table *Table
	busy  bool // actions are being carried out
	timer ring.Timer

	sessions map[*session]struct{}
	settling []*settling
	closing  bool
	onClosed []func()
	ctx      context.Context // of goroutines that work for it
	cancel   context.CancelFunc
	free     *request

	Stats Stats
}

// NewVDisk makes a VDisk. On the loop.
func NewVDisk(o Options) *VDisk {
	o.EnsureDefaults()
	d := &VDisk{opt: o, loop: o.Loop, sessions: map[*session]struct{}{}}
	d.table = NewTable(o.Name, o.Lease, o.Margin, o.Former, o.Clock())
	d.timer.Fire = d.tick
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.arm()
	return d
}

// Loop is where it lives. Any goroutine.
func (d *VDisk) Loop() *ring.Loop { return d.loop }

func (d *VDisk) now() int64 { return d.opt.Clock() }

func (d *VDisk) tick() {
	d.table.Tick(d.now())
	d.act()
}

// arm has the clock looked at again when the holder's lease has run out.
func (d *VDisk) arm() {
	until := d.table.Until()
	if d.closing || until == forever {
		d.loop.StopTimer(&d.timer)
		return
	}
	d.loop.After(&d.timer, time.Duration(max(until-d.now(), 0))+time.Millisecond)
}

// act carries out what the table wants done, until it wants nothing.
func (d *VDisk) act() {
	if d.busy {
		return
	}
	d.busy = true
	for list := d.table.Take(); len(list) > 0; list = d.table.Take() {
		for i := range list {
			d.carryOut(&list[i])
		}
	}
	d.busy = false
	d.settle()
	d.arm()
}

func (d *VDisk) carryOut(a *Action) {
	s := d.sessionOf(a.Seat)
	if a.Kind == Store {
		d.store(a.Seat, a.Record)
		return
	}
	if s == nil {
		// It is gone. What was under way of it was counted while it was there, or is nothing.
		if a.Kind == Fence {
			d.table.Left(a.Seat, d.now())
		}
		return
	}
	switch a.Kind {
	case Grant:
		s.granted()
	case Refuse:
		s.refused(a.Err, a.Text)
	case Fence:
		s.leave()
	case Revoke:
		d.Stats.Takeovers.Inc()
		d.opt.Log.Warn("an edge is taken over", "vdisk", d.opt.Name, "edge", s.seat.Edge)
		s.push(&s.revoke, proto.TRevoke, proto.AppendText(nil, "another edge has taken the vDisk over"))
	case Yield:
		s.push(&s.yield, proto.TYield, nil)
	case End:
		s.link.End(errs.New(errs.Refused, "router: the session is over"))
	}
}

func (d *VDisk) sessionOf(seat *Seat) *session {
	for s := range d.sessions {
		if &s.seat == seat {
			return s
		}
	}
	return nil
}

// stored tells of a record's end.
type stored struct {
	d    *VDisk
	seat *Seat
	err  error
}

func (m *stored) RunOnLoop() {
	if !m.d.closing {
		m.d.table.Stored(m.seat, m.err, m.d.now())
		m.d.act()
	}
}

// keepTimeout bounds the writing of a record.
const keepTimeout = 20 * time.Second

func (d *VDisk) store(seat *Seat, r Record) {
	m := &stored{d: d, seat: seat}
	go func() {
		ctx, cancel := context.WithTimeout(d.ctx, keepTimeout)
		defer cancel()
		m.err = d.opt.Keeper.KeepHolder(ctx, d.opt.ID, r)
		d.loop.Post(m)
	}()
}

// settling is somebody who waits until no edge uses locations in an object.
type settling struct {
	object proto.Object
	tenure uint64 // of the edge that may
	done   chan struct{}
	ended  bool
}

// Settle returns once no edge uses locations in an object any more: it was told, or its lease has run out. No location
// in it is given out meanwhile: REQUIRES that the map names it nowhere. Errors: that of ctx, Closed. Any goroutine but
// the loop.
func (d *VDisk) Settle(ctx context.Context, ns ids.NamespaceID, n ids.SCONum) error {
	x := &settling{object: proto.Object{NS: ns, SCO: n}, done: make(chan struct{})}
	if !d.loop.Call(func() { d.beginSettling(x) }) {
		return errs.Closed
	}
	select {
	case <-x.done:
		return nil
	case <-ctx.Done():
		d.loop.PostFunc(func() { x.end(); d.settle() })
		return ctx.Err()
	case <-d.ctx.Done():
		return errs.Closed
	}
}

func (d *VDisk) beginSettling(x *settling) {
	d.table.Tick(d.now())
	d.act()
	if !d.table.Held() {
		x.end()
		return
	}
	d.Stats.Settled.Inc()
	x.tenure = d.table.Tenure()
	d.settling = append(d.settling, x)
	if s := d.holder(); s != nil {
		s.invalidate(x)
	}
}

func (x *settling) end() {
	if !x.ended {
		x.ended = true
		close(x.done)
	}
}

// settle lets those go for whom the edge that they waited for holds nothing any more.
func (d *VDisk) settle() {
	left := d.settling[:0]
	for _, x := range d.settling {
		if !d.table.Held() || d.table.Tenure() != x.tenure {
			x.end()
		}
		if !x.ended {
			left = append(left, x)
		}
	}
	clear(d.settling[len(left):])
	d.settling = left
}

// holder is the session of the exclusive opener, nil if it is away.
func (d *VDisk) holder() *session {
	for s := range d.sessions {
		if d.table.Holds(&s.seat) {
			return s
		}
	}
	return nil
}

// OpenLocal opens the vDisk for a connection of this process, which excludes edges. Errors: Busy, and those of the
// Keeper. Any goroutine but the loop.
func (d *VDisk) OpenLocal(ctx context.Context) error {
	var r *Record
	err := errs.New(errs.Closed, "the loop has stopped")
	d.loop.Call(func() { r, err = d.table.OpenLocal(d.now()); d.act() })
	if err != nil || r == nil {
		return err
	}
	if err := d.opt.Keeper.KeepHolder(ctx, d.opt.ID, *r); err != nil {
		d.CloseLocal()
		return err
	}
	return nil
}

// CloseLocal ends what OpenLocal began. Any goroutine.
func (d *VDisk) CloseLocal() {
	d.loop.Call(func() { d.table.CloseLocal(d.now()); d.act() })
}

// Rest keeps, before Close, that nobody has the vDisk, if that is so. Errors: the Keeper's. Any goroutine but the loop.
func (d *VDisk) Rest(ctx context.Context) error {
	var r *Record
	d.loop.Call(func() { r = d.table.Rest(d.now()); d.act() })
	if r == nil {
		return nil
	}
	return d.opt.Keeper.KeepHolder(ctx, d.opt.ID, *r)
}

// Edges is who has it open, by name, and Held whether one of them may use locations, or may come back that did. Any
// goroutine but the loop.
func (d *VDisk) Edges() (names []string, held bool) {
	d.loop.Call(func() {
		for s := range d.sessions {
			names = append(names, s.seat.Edge)
		}
		d.table.Tick(d.now())
		d.act()
		held = d.table.Held()
	})
	return names, held
}

// Redirect tells all edges where the vDisk is to be had from now on. On the loop.
func (d *VDisk) Redirect(addr string) {
	for s := range d.sessions {
		s.push(&s.redirect, proto.TRedirect, proto.AppendText(nil, addr))
	}
}

// Close ends all sessions; done runs on the loop when none is left and nothing that they began is under way.
func (d *VDisk) Close(done func()) {
	d.closing = true
	d.cancel()
	d.loop.StopTimer(&d.timer)
	for s := range d.sessions {
		s.link.End(errs.New(errs.Closed, "router: stopping"))
	}
	d.onClosed = append(d.onClosed, done)
	d.finish()
}

func (d *VDisk) finish() {
	if !d.closing || len(d.sessions) > 0 {
		return
	}
	fs := d.onClosed
	d.onClosed = nil
	for _, f := range fs {
		f()
	}
}
