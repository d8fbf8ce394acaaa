package layout

import (
	"strconv"
	"strings"

	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// FragsMax is the largest k+m. An erasure pattern of a chunk then fits one machine word.
const FragsMax = 64

// ParsePolicy reads "k,m,c,x", with or without brackets and spaces: "4,2,5,1" or "(4,2,5,1)".
func ParsePolicy(s string) (Policy, error) {
	t := strings.TrimSpace(s)
	if strings.HasPrefix(t, "(") && strings.HasSuffix(t, ")") {
		t = t[1 : len(t)-1]
	}
	parts := strings.Split(t, ",")
	if len(parts) != 4 {
		return Policy{}, errs.New(errs.Invalid,
			"policy %q has %d numbers; it takes four, k,m,c,x, as in 4,2,5,1", s, len(parts))
	}
	var n [4]uint8
	for i, part := range parts {
		v, err := strconv.ParseUint(strings.TrimSpace(part), 10, 8)
		if err != nil {
			return Policy{}, errs.New(errs.Invalid,
				"policy %q: %q is no number between 0 and 255; write k,m,c,x, as in 4,2,5,1", s, part)
		}
		n[i] = uint8(v)
	}
	p := Policy{K: n[0], M: n[1], C: n[2], X: n[3]}
	if err := p.Validate(); err != nil {
		return Policy{}, err
	}
	return p, nil
}

// Validate checks k >= 1, k+m <= FragsMax, k <= c <= k+m, x >= 1.
func (p Policy) Validate() error {
	switch {
	case p.K == 0:
		return errs.New(errs.Invalid, "policy %v has no data fragment; k must be at least 1", p)
	case p.N() > FragsMax:
		return errs.New(errs.Invalid, "policy %v has %d fragments a chunk; k+m must be at most %d",
			p, p.N(), FragsMax)
	case p.C < p.K || int(p.C) > p.N():
		return errs.New(errs.Invalid, "policy %v: c is %d; it must lie between k=%d and k+m=%d",
			p, p.C, p.K, p.N())
	case p.X == 0:
		return errs.New(errs.Invalid, "policy %v lets no fragment onto a node; x must be at least 1", p)
	}
	return nil
}

// Candidate is an ASD as placement sees it.
type Candidate struct {
	ID    ids.ASDID
	Node  ids.NodeID
	Alive bool
	Free  int64 // bytes a put may still take
}

// Reach is how many fragments of a chunk p may place on the living candidates: at most x on each
// node, at most k+m in all.
func (p Policy) Reach(asds []Candidate) int {
	perNode := make(map[ids.NodeID]int, len(asds))
	n := 0
	for i := range asds {
		if !asds[i].Alive || perNode[asds[i].Node] >= int(p.X) {
			continue
		}
		perNode[asds[i].Node]++
		n++
	}
	return min(n, p.N())
}

// Usable reports whether c fragments of every chunk find a living ASD within x.
func (p Policy) Usable(asds []Candidate) bool { return p.Reach(asds) >= int(p.C) }

// ChoosePolicy returns the first usable policy of an ordered list; false if there is none.
func ChoosePolicy(list []Policy, asds []Candidate) (Policy, bool) {
	for _, p := range list {
		if p.Usable(asds) {
			return p, true
		}
	}
	return Policy{}, false
}

// Identifiers of an object's transforms. 0 stands for none; nothing else is written yet.
const (
	CompressionNone uint8 = 0
	EncryptionNone  uint8 = 0
)

// FragmentMax and FragmentMin bound a preset's MaxFragment, in bytes.
const (
	FragmentMax = 64 << 20
	FragmentMin = ids.BlockSize
)

// Preset says how the objects of a vPool are stored.
type Preset struct {
	Compression uint8
	Encryption  uint8
	MaxFragment uint32   // bytes; a multiple of 4 KiB
	Policies    []Policy // in order of preference; the first usable one is taken
}

// Validate checks every policy and the fragment size.
func (p *Preset) Validate() error {
	if p.MaxFragment < FragmentMin || p.MaxFragment > FragmentMax || p.MaxFragment%ids.BlockSize != 0 {
		return errs.New(errs.Invalid,
			"maximum fragment size %d is no multiple of 4096 between %d and %d", p.MaxFragment, FragmentMin, FragmentMax)
	}
	if p.Compression != CompressionNone || p.Encryption != EncryptionNone {
		return errs.New(errs.Unsupported,
			"preset asks for compression %d and encryption %d; this version knows only 0, none, for both",
			p.Compression, p.Encryption)
	}
	if len(p.Policies) == 0 {
		return errs.New(errs.Invalid, "preset has no policy; give at least one, as in 4,2,5,1")
	}
	for _, pol := range p.Policies {
		if err := pol.Validate(); err != nil {
			return err
		}
	}
	return nil
}

// FragsMaxOf is the largest k+m among the preset's policies.
func (p *Preset) FragsMaxOf() int {
	n := 0
	for _, pol := range p.Policies {
		n = max(n, pol.N())
	}
	return n
}
