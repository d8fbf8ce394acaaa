package node

import (
	"context"
	"fmt"
	"math"
	"slices"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/proxy"
	"vstor/dataplane/volume/pagemap"
)

// fsckPlan is all that is to be done.
type fsckPlan struct {
	spaces  []*spacePlan
	add     []record     // vDisks that the metadata store does not know
	gone    []record     // removed ones, likewise: what they left is to go, but for foreign ones
	next    ids.VolumeID // to be given out next; 0: what the metadata store says, which is
	known   ids.VolumeID
	bad     map[objectKey][]located // damaged ones that somebody needs
	lacking map[objectKey][]located
	marks   int // fragments in it
	more    int // lacking fragments beyond lackingMax, which the audit of the next start marks
}

// lackingMax bounds the fragments that a plan remembers as lacking.
const lackingMax = 1 << 20

// spacePlan is what is to be done for one vDisk.
type spacePlan struct {
	record
	verdict *verdict
	row     FsckVDisk
	epoch   ids.Epoch // to be set; 0: it stands
	put     ids.PutID
	sco     ids.SCONum
	floor   *ids.CommitNum // to be set, where the store knows of none
	// floorFound: that it knows of none is a fault of its own.
	floorFound bool
	last       *ids.CommitNum // likewise, the number of the last commit
	blocked    string         // why nothing of it may be changed
}

// margin is how far numbers that are given out anew stay away from the highest that was seen: ASDs that
// are not there may have seen higher ones.
const margin = 1 << 20

// plan goes through all namespaces in order. It changes nothing.
func (c *checker) plan(ctx context.Context) (*fsckPlan, error) {
	p := &fsckPlan{bad: map[objectKey][]located{}, lacking: map[objectKey][]located{}}
	alive, gone, err := c.planRegistry(ctx, p)
	if err != nil {
		return nil, err
	}
	known, err := c.px.KnownNamespaces(ctx)
	if err != nil {
		return nil, c.fromMeta(err)
	}
	for id := range alive {
		known = append(known, id)
	}
	slices.Sort(known)
	known = slices.Compact(known)
	census := c.census()
	for {
		ns, _, more, err := census.Peek()
		if err != nil {
			return nil, err
		}
		if len(known) == 0 && !more {
			return p, nil
		}
		if len(known) > 0 && (!more || known[0] <= ns) {
			ns, known = known[0], known[1:]
		}
		if r, ok := alive[ns]; ok {
			err = c.planSpace(ctx, p, r, census)
		} else {
			dead, noted := gone[ns]
			err = c.planStray(ctx, p, ns, dead, noted, census)
		}
		if err != nil {
			return nil, err
		}
	}
}

// fromMeta remembers that the metadata store itself cannot be read.
func (c *checker) fromMeta(err error) error {
	if k := errs.Of(err); k == errs.Corrupt || k == errs.Version {
		c.damage = err
	}
	return err
}

func (c *checker) census() *proxy.Census {
	var list []proxy.Surveyed
	for _, a := range c.asds {
		if a.store != nil {
			list = append(list, proxy.Surveyed{ID: a.id, Store: a.store})
		}
	}
	return proxy.NewCensus(list)
}

// planRegistry finds out which vDisks there are: those of the metadata store and those of its copy.
func (c *checker) planRegistry(ctx context.Context, p *fsckPlan) (alive map[ids.NamespaceID]record,
	gone map[ids.NamespaceID]bool, err error) { // gone: true if what it left is to go
	g := registry{meta: c.store}
	now, err := g.copy(ctx)
	if err != nil {
		return nil, nil, c.fromMeta(err)
	}
	p.known = now.Next
	if c.copyErr == nil {
		lost, err := g.lacks(ctx, c.copy)
		if err != nil {
			return nil, nil, c.fromMeta(err)
		}
		for _, r := range lost {
			if slices.ContainsFunc(c.copy.VDisks, func(o record) bool { return o.ID == r.ID }) {
				p.add = append(p.add, r)
			} else {
				p.gone = append(p.gone, r)
			}
		}
		if c.copy.Next > now.Next {
			p.next = c.copy.Next
		}
	}
	alive, gone = map[ids.NamespaceID]record{}, map[ids.NamespaceID]bool{}
	for _, r := range slices.Concat(now.VDisks, p.add) {
		alive[r.ID] = r
	}
	for _, r := range slices.Concat(now.Gone, p.gone) {
		gone[r.ID] = !r.Foreign
	}
	return alive, gone, nil
}

// planStray passes over a namespace without a vDisk. One that nobody knows is noted, and numbers are given out
// beyond it: the vDisk that got its number would share it, and when that one is removed all of it goes.
func (c *checker) planStray(ctx context.Context, p *fsckPlan, ns ids.NamespaceID, gone, noted bool,
	census *proxy.Census) error {
	n := 0
	for {
		at, _, more, err := census.Peek()
		if err != nil {
			return err
		}
		if !more || at != ns {
			break
		}
		held, err := census.Next()
		if err != nil {
			return err
		}
		n += len(held)
	}
	deleted, err := proxy.Deleted(ctx, c.store, ns)
	if err != nil {
		return c.fromMeta(err)
	}
	switch {
	case gone || deleted || n == 0:
	case c.metaGone != nil && ns < c.copy.Next && !noted:
		p.gone = append(p.gone, record{Name: fmt.Sprintf("removed-%d", ns), ID: ns})
	default:
		if !noted {
			p.gone = append(p.gone, foreignRecord(ns))
		}
		if ns >= max(p.next, p.known) {
			p.next = min(ns, math.MaxUint64-margin-1) + 1 + margin
		}
		c.planAllDamage(p, ns)
		c.find("%d fragments are of namespace %d, and there is no vDisk of that number; they are left alone", n, ns)
	}
	return nil
}

// space is what is seen of a vDisk while it is planned.
type space struct {
	*spacePlan
	rec     *proxy.Records
	lacks   []located
	damaged []located    // of whole manifests
	orphans []ids.SCONum // objects on ASDs without a whole manifest
	// orphaned is how many fragments each of them has.
	orphaned map[ids.SCONum]int
	epoch    ids.Epoch // highest seen
	put      ids.PutID
	sco      ids.SCONum
}

func (c *checker) planSpace(ctx context.Context, p *fsckPlan, r record, census *proxy.Census) error {
	c.progress("comparing the manifests of vDisk %s", r.Name)
	rec, err := c.px.Records(ctx, r.ID)
	if err != nil {
		return c.fromMeta(err)
	}
	s := &space{spacePlan: &spacePlan{record: r, row: FsckVDisk{Name: r.Name, ID: r.ID}}, rec: rec,
		orphaned: map[ids.SCONum]int{}}
	p.spaces = append(p.spaces, s.spacePlan)
	if err := c.scan(ctx, s, census); err != nil {
		return err
	}
	h := &history{rec: rec}
	var found bool
	if h.ckpt, h.mapped, found, err = c.survey(r.ID); err != nil {
		s.verdict = &verdict{}
		c.planAllDamage(p, r.ID)
		s.block(c, "its map cannot be read, and without it nobody knows what was committed: %v", err)
		return nil
	}
	for _, k := range h.mapped {
		s.sco = max(s.sco, k.Num)
	}
	h.intact = s.intact(h)
	if err := c.candidates(ctx, s, h); err != nil {
		return err
	}
	if !h.intact {
		if err := c.joinLog(ctx, s, h); err != nil {
			return err
		}
	}
	s.verdict = h.decide()
	if err := c.planFloor(ctx, s, h, found); err != nil {
		return err
	}
	c.judge(s)
	c.planLast(s, h)
	c.planLacks(p, s)
	return c.planDamage(ctx, p, s)
}

func (c *checker) survey(id ids.VolumeID) (pagemap.Checkpoint, []pagemap.Kept, bool, error) {
	if c.mapsErr != nil {
		return pagemap.Checkpoint{}, nil, false, c.mapsErr
	}
	return c.maps.Survey(pagemap.MapID(id))
}

// planFloor finds the floor again where the metadata store lost it. A map that knows of nothing is as new, or it
// is lost as well. Nothing is deleted before the map has kept that it is dead, so if it is new all SCOs are
// there, and their sequences follow one another from the first. Where the store lost nothing else, only a vDisk
// with a new map needs the floor: without it, it does not open.
func (c *checker) planFloor(ctx context.Context, s *space, h *history, found bool) error {
	_, _, err := c.store.Get(ctx, floorKey(s.ID))
	if err == nil {
		return nil
	}
	if errs.Of(err) != errs.Absent {
		return c.fromMeta(err)
	}
	if h.intact && c.metaGone == nil {
		if found {
			return nil
		}
		return c.planFirstFloor(ctx, s, h)
	}
	v := s.verdict
	if !found {
		if first := c.logs[s.ID].first(); s.cleaned(h) || v.gaps > 0 || first > v.last+1 {
			s.block(c, "its map knows of nothing, and what it wrote first is not there: the map is lost, too")
			return nil
		}
	}
	floor := ids.CommitNum(0)
	for i, k := range h.mapped {
		if k.Commit != ids.CommitNum(i+1) || k.Live == 0 && k.Commit <= h.ckpt.Commit {
			floor = h.ckpt.Commit // some may be deleted
		}
	}
	if len(h.mapped) == 0 {
		floor = h.ckpt.Commit
	}
	s.floor = &floor
	return nil
}

// planFirstFloor says of a vDisk with a new map that all it ever had is there, if all commits from the first are.
func (c *checker) planFirstFloor(ctx context.Context, s *space, h *history) error {
	if err := c.joinLog(ctx, s, h); err != nil {
		return err
	}
	last, ok := h.unbroken()
	if first := c.logs[s.ID].first(); !ok || s.cleaned(h) || first > last+1 {
		s.block(c, "its map knows of nothing, and what it wrote first is not there: the map is lost")
		return nil
	}
	c.find("vDisk %s: its map is new, and the metadata store does not say that nothing was deleted yet; all commits "+
		"from the first are there", s.Name)
	s.floor, s.floorFound = new(ids.CommitNum), true
	return nil
}

// planLast sets the number of the last commit right. If the store knows that there were more than were found, what
// is not found are cleaning SCOs, which are let go of, or the journal has what was in it; or it is lost.
func (c *checker) planLast(s *space, h *history) {
	v, end := s.verdict, s.rec.Last
	if end.Err == nil && ids.CommitNum(end.Value) == v.top ||
		errs.Of(end.Err) == errs.Absent && errs.Of(s.rec.Owner.Err) == errs.Absent && v.top == 0 {
		return
	}
	if found := uint64(v.top) + h.letGo(); end.Err == nil && end.Value > found && !c.logs[s.ID].Has(v.last+1, v.last+1) {
		s.block(c, "%d commits were made and %d are found; of the others nothing is left on the ASDs that are there",
			end.Value, found)
		return
	}
	c.find("vDisk %s: the number of its last commit is lost or wrong; it is %d", s.Name, v.top)
	s.last = &v.top
}

// scan compares what the ASDs have of a vDisk with its manifests.
func (c *checker) scan(ctx context.Context, s *space, census *proxy.Census) error {
	asked := map[ids.ASDID]bool{}
	for _, a := range c.asds {
		if a.store != nil {
			asked[a.id] = true
			s.epoch = max(s.epoch, a.store.HighestEpoch(s.ID))
		}
	}
	seen := make(map[ids.SCONum]bool, len(s.rec.Objects))
	for {
		ns, sco, more, err := census.Peek()
		if err != nil {
			return err
		}
		if !more || ns != s.ID {
			break
		}
		if ctx.Err() != nil {
			return errs.Wrap(errs.Canceled, ctx.Err(), "fsck was given up")
		}
		held, err := census.Next()
		if err != nil {
			return err
		}
		s.sco = max(s.sco, sco)
		s.put = max(s.put, held[len(held)-1].Info.Key.Put)
		if _, ok := s.rec.Objects[sco]; !ok {
			s.orphans = append(s.orphans, sco)
			s.orphaned[sco] = len(held)
			s.row.Leftover += len(held)
			continue
		}
		seen[sco] = true
		if err := c.compare(ctx, s, sco, held, asked); err != nil {
			return err
		}
	}
	for sco, o := range s.rec.Objects {
		s.sco, s.put, s.epoch = max(s.sco, sco), max(s.put, o.Put), max(s.epoch, o.Epoch)
		if !seen[sco] {
			if err := c.compare(ctx, s, sco, nil, asked); err != nil {
				return err
			}
		}
	}
	s.row.Objects = len(s.rec.Objects)
	return nil
}

// compare notes what ASDs lack of one object.
func (c *checker) compare(ctx context.Context, s *space, sco ids.SCONum, held []proxy.Held,
	asked map[ids.ASDID]bool) error {
	m, err := c.px.Manifest(ctx, s.ID, sco)
	if err != nil {
		return c.fromMeta(err)
	}
	s.damaged = append(s.damaged, c.namedDamage(m)...)
	lacking, beside := proxy.Compare(m, held, asked)
	s.row.Leftover += beside
	s.row.Missing += len(m.Missing())
	for _, k := range lacking {
		s.lacks = append(s.lacks, located{k, m.Target(int(k.Chunk), int(k.Frag)).ASD})
	}
	return nil
}

// planLacks plans to mark what ASDs lack of objects that stay.
func (c *checker) planLacks(p *fsckPlan, s *space) {
	for _, l := range s.lacks {
		if _, dropped := slices.BinarySearch(s.verdict.drop, l.key.SCO); dropped {
			continue
		}
		c.find("ASD %d lacks fragment %v of vDisk %s", l.asd, l.key, s.Name)
		for i := range c.rep.ASDs {
			if c.rep.ASDs[i].ID == l.asd {
				c.rep.ASDs[i].Lacking++
			}
		}
		if p.marks++; p.marks > lackingMax {
			p.more++
			continue
		}
		o := objectKey{s.ID, l.key.SCO}
		p.lacking[o] = append(p.lacking[o], l)
	}
}

// intact reports whether the metadata store lost nothing of the vDisk: its numbers are ahead of all that was
// used, and the order of commits is there, without a gap, from the map's checkpoint on to the last commit. An
// older copy of the store is not, if it is of before the vDisk was opened last: the epoch tells.
func (s *space) intact(h *history) bool {
	ahead := func(cell proxy.Cell, used uint64) bool {
		return cell.Err == nil && cell.Value >= used || errs.Of(cell.Err) == errs.Absent && used == 0
	}
	if !ahead(s.rec.Owner, uint64(s.epoch)) || !ahead(s.rec.Puts, uint64(s.put)+1) && s.put > 0 ||
		!ahead(s.rec.SCOs, uint64(s.sco)+1) && s.sco > 0 {
		return false
	}
	numbers := h.numbers()
	at := make(map[ids.CommitNum]bool, len(numbers))
	last := h.ckpt.Commit
	for _, n := range numbers {
		at[n] = true
		last = max(last, n)
	}
	for n := h.ckpt.Commit + 1; n <= last; n++ {
		if !at[n] {
			return false
		}
	}
	if !ahead(s.rec.Last, uint64(last)) || s.rec.Last.Value > uint64(last) ||
		errs.Of(s.rec.Last.Err) == errs.Absent && errs.Of(s.rec.Owner.Err) != errs.Absent {
		return false
	}
	for sco := range s.rec.Bad {
		if _, ok := numbers[sco]; !ok {
			return false
		}
	}
	for n := range s.rec.BadOrder { // a commit, of which this is all that is left
		if n > h.ckpt.Commit && !at[n] {
			return false
		}
	}
	// The store was told of every commit before the map was.
	for _, k := range h.mapped {
		if _, ok := s.rec.Objects[k.Num]; !ok && s.rec.Bad[k.Num] == nil && k.Commit > h.ckpt.Commit &&
			s.rec.Order[k.Commit] == 0 {
			return false
		}
	}
	return true
}

// block keeps anything of the vDisk from being changed.
func (s *spacePlan) block(c *checker, format string, args ...any) {
	err := errs.New(errs.Corrupt, format, args...)
	s.blocked = err.Error()
	c.find("vDisk %s is left as it is: %s", s.Name, s.blocked)
}
