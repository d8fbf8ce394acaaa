// Package nbdtest has what tests of NBD need: a client in plain Go that can misbehave, a device in
// RAM, and a set of exports.
package nbdtest

import (
	"sync"
	"sync/atomic"

	"vstor/dataplane/block"
	"vstor/dataplane/errs"
	"vstor/dataplane/nbd"
	"vstor/dataplane/ring"
)

// Exports serves a fixed set. It is filled before the server starts.
type Exports struct {
	// Default is the name the empty name stands for; empty: there is none.
	Default string
	// Opened is how many exports are open now.
	Opened atomic.Int64
	// Admit, if not nil, refuses peers with an error.
	Admit func(name string, p nbd.Peer) error

	mu   sync.Mutex
	list []*export
}

type export struct {
	info nbd.ExportInfo
	loop *ring.Loop
	dev  block.Device
	set  *Exports
}

func (e *export) Info() nbd.ExportInfo { return e.info }
func (e *export) Loop() *ring.Loop     { return e.loop }
func (e *export) Device() block.Device { return e.dev }
func (e *export) Close()               { e.set.Opened.Add(-1) }

// Add makes dev, which lives on l, an export. Size and flags of info are dev's.
func (x *Exports) Add(l *ring.Loop, dev block.Device, name, description string) {
	i := dev.Info()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.list = append(x.list, &export{loop: l, dev: dev, set: x, info: nbd.ExportInfo{
		Name: name, Description: description, Size: i.Size, ReadOnly: i.ReadOnly, Rotational: i.Rotational}})
}

// List shows all (nbd.Exports).
func (x *Exports) List(p nbd.Peer) []nbd.ExportInfo {
	x.mu.Lock()
	defer x.mu.Unlock()
	var l []nbd.ExportInfo
	for _, e := range x.list {
		if x.Admit == nil || x.Admit(e.info.Name, p) == nil {
			l = append(l, e.info)
		}
	}
	return l
}

// Open finds one (nbd.Exports).
func (x *Exports) Open(name string, p nbd.Peer) (nbd.Export, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if name == "" && x.Default != "" {
		name = x.Default
	}
	for _, e := range x.list {
		if e.info.Name == name {
			if x.Admit != nil {
				if err := x.Admit(name, p); err != nil {
					return nil, err
				}
			}
			x.Opened.Add(1)
			return e, nil
		}
	}
	return nil, errs.New(errs.Absent, "there is no export %q", name)
}
