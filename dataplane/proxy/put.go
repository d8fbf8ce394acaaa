package proxy

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/layout"
)

// PutSpec says what to put.
type PutSpec struct {
	Namespace ids.NamespaceID
	SCO       ids.SCONum
	Epoch     ids.Epoch
	Commit    ids.CommitNum
	Kind      layout.ObjectKind
	Class     layout.Class
	SeqFirst  ids.Seq
	SeqLast   ids.Seq
	Source    Source
	// Preset replaces the Proxy's; its fragments must not be larger, nor its policies wider.
	Preset *layout.Preset
}

func (px *Proxy) check(s *PutSpec) (*layout.Preset, error) {
	switch {
	case s.Source == nil || s.Source.Size() <= 0:
		return nil, errs.New(errs.Invalid, "proxy: put of an object without content")
	case s.SCO == 0 || s.Epoch == 0 || s.Epoch == epochGone:
		return nil, errs.New(errs.Invalid, "proxy: put of SCO %d in epoch %d; both count from 1", s.SCO, s.Epoch)
	case s.Kind < layout.KindWrite || s.Kind > layout.KindOther:
		return nil, errs.New(errs.Invalid, "proxy: put of an object of unknown kind %d", s.Kind)
	case s.SeqFirst > s.SeqLast:
		return nil, errs.New(errs.Invalid, "proxy: put of sequences %d to %d", s.SeqFirst, s.SeqLast)
	}
	p, own := s.Preset, &px.opts.Preset
	if p == nil {
		return own, nil
	}
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if p.MaxFragment > own.MaxFragment || p.FragsMaxOf() > own.FragsMaxOf() {
		return nil, errs.New(errs.Invalid, "proxy: preset with %d fragments of %d bytes; this proxy has buffers for %d of %d",
			p.FragsMaxOf(), p.MaxFragment, own.FragsMaxOf(), own.MaxFragment)
	}
	return p, nil
}

// Put codes the object and writes it to enough ASDs. The object comes into existence with Commit; until
// then the caller holds a Pending, which it ends with Commit or Abandon.
//
// A policy that the ASDs fail is given up, its put id condemned, and the first policy that is usable without
// the ASDs that failed is tried with a new one. Errors: Full if space lacks, Unreachable or IO if ASDs do,
// Refused with ErrFenced, Canceled, Closed, Invalid, and whatever the Source returns.
func (px *Proxy) Put(ctx context.Context, spec PutSpec) (*Pending, error) {
	if err := px.begin(); err != nil {
		return nil, err
	}
	defer px.done()
	ctx, cancel := px.join(ctx)
	defer cancel()
	preset, err := px.check(&spec)
	if err != nil {
		return nil, err
	}
	p, err := px.tryPolicies(ctx, &spec, preset)
	if err != nil {
		px.count.putsFailed.Add(1)
		return nil, err
	}
	px.count.puts.Add(1)
	px.count.putBytes.Add(spec.Source.Size())
	if p.Missing() > 0 {
		px.count.putsDegraded.Add(1)
	}
	return p, nil
}

// attemptsMore is how often a put is tried beyond once per policy, each time without the ASDs that
// failed before.
const attemptsMore = 2

func (px *Proxy) tryPolicies(ctx context.Context, spec *PutSpec, preset *layout.Preset) (*Pending, error) {
	avoid := make(map[ids.ASDID]error)
	for try := range len(preset.Policies) + attemptsMore {
		list := px.opts.ASDs()
		policy, cands, ok := px.choose(list, avoid, spec, preset)
		if !ok {
			return nil, px.noPolicy(list, avoid, spec, preset)
		}
		if try > 0 {
			px.count.putRetries.Add(1)
		}
		p, err := px.start(ctx, spec, preset, policy, cands, list)
		if err != nil {
			return nil, err
		}
		if err = p.run(ctx); err == nil {
			return p, nil
		}
		if !isStoreFailure(err) {
			p.Abandon()
			return nil, err
		}
		p.drain(ctx)
		failed := p.failures()
		p.Abandon()
		for id, cause := range failed {
			avoid[id] = cause
		}
		px.opts.Log("proxy: put of SCO %d/%d with %v: %v", spec.Namespace, spec.SCO, policy, err)
	}
	return nil, px.noPolicy(px.opts.ASDs(), avoid, spec, preset)
}

// errStores marks an attempt that ended because too few ASDs took its fragments.
var errStores = errors.New("too few ASDs took the chunk")

func isStoreFailure(err error) bool { return errors.Is(err, errStores) }

// choose picks the first usable policy. How much an ASD must have free depends on the policy.
func (px *Proxy) choose(list []ASD, avoid map[ids.ASDID]error, spec *PutSpec, preset *layout.Preset) (
	layout.Policy, []layout.Candidate, bool) {
	for _, pol := range preset.Policies {
		cands := px.candidates(list, avoid, slotBytes(spec, preset, pol), spec.Class, false)
		if pol.Usable(cands) {
			return pol, cands, true
		}
	}
	return layout.Policy{}, nil, false
}

// slotBytes is what one slot of the object takes on its ASD.
func slotBytes(spec *PutSpec, preset *layout.Preset, pol layout.Policy) int64 {
	g := layout.Cut(spec.Source.Size(), int(pol.K), int64(preset.MaxFragment))
	return int64(g.Chunks) * (g.FragLen + layout.FragHeaderSize)
}

// noPolicy says why no policy can be used: space, if one could be were the full ASDs not full, else ASDs.
func (px *Proxy) noPolicy(list []ASD, avoid map[ids.ASDID]error, spec *PutSpec, preset *layout.Preset) error {
	kind, what := errs.Unreachable, "bring ASDs back"
	if _, ok := layout.ChoosePolicy(preset.Policies, px.candidates(list, avoid, 0, spec.Class, true)); ok {
		kind, what = errs.Full, "free space or add ASDs"
	}
	var cause error
	var lines []string
	alive := px.candidates(list, avoid, 0, spec.Class, false)
	for i, a := range list {
		switch err := avoid[a.ID]; {
		case err != nil:
			cause = err
			if kind == errs.Unreachable && errs.Of(err) == errs.IO {
				kind = errs.IO
			}
			lines = append(lines, fmt.Sprintf("ASD %d failed (%v)", a.ID, errs.Of(err)))
		case !a.Alive:
			lines = append(lines, fmt.Sprintf("ASD %d is down", a.ID))
		case !alive[i].Alive:
			lines = append(lines, fmt.Sprintf("ASD %d hangs", a.ID))
		case spec.Class == layout.ClassClient && a.Free < slotBytes(spec, preset, preset.Policies[len(preset.Policies)-1]):
			lines = append(lines, fmt.Sprintf("ASD %d is full", a.ID))
		}
	}
	if len(lines) == 0 {
		lines = append(lines, "too few ASDs or nodes")
	}
	msg := fmt.Sprintf("proxy: no policy of %v is usable with %d ASDs: %s; %s",
		preset.Policies, len(list), strings.Join(lines, ", "), what)
	if cause == nil {
		return errs.New(kind, "%s", msg)
	}
	return errs.Wrap(kind, cause, "%s", msg)
}

// start takes a put id, places the object and makes its Pending.
func (px *Proxy) start(ctx context.Context, spec *PutSpec, preset *layout.Preset, pol layout.Policy,
	cands []layout.Candidate, list []ASD) (*Pending, error) {
	targets, err := layout.Place(pol, cands, px.nextSeed())
	if err != nil {
		return nil, err
	}
	codec, err := px.codecs.Codec(int(pol.K), int(pol.M))
	if err != nil {
		return nil, err
	}
	put, err := px.takePut(ctx, spec.Namespace, spec.Epoch)
	if err != nil {
		return nil, err
	}
	size := spec.Source.Size()
	m := &layout.Manifest{
		Namespace: spec.Namespace, SCO: spec.SCO, Put: put, Epoch: spec.Epoch, Commit: spec.Commit, Kind: spec.Kind,
		SeqFirst: spec.SeqFirst, SeqLast: spec.SeqLast, Size: size, Plain: size,
		MaxFrag: preset.MaxFragment, Policy: pol, Targets: targets,
	}
	g := m.Geometry()
	m.Frags = make([]layout.Frag, g.Chunks*pol.N())
	if err := m.Validate(); err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "proxy: object of %d bytes", size)
	}
	p := &Pending{px: px, spec: *spec, codec: codec, geo: g, man: m,
		changed: make(chan struct{}, 1), settled: make(chan struct{}),
		slots: make([]slot, pol.N()), chunks: make([]chunk, g.Chunks)}
	p.ctx, p.cancel = context.WithCancel(px.ctx)
	for i, t := range targets {
		for j := range list {
			if t == layout.ASDTarget(list[j].ID) {
				p.slots[i].asd = &list[j]
			}
		}
	}
	px.setFlight(p)
	return p, nil
}
