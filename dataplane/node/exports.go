package node

import (
	"cmp"
	"net"
	"net/netip"
	"slices"

	"vstor/dataplane/block"
	"vstor/dataplane/errs"
	"vstor/dataplane/nbd"
	"vstor/dataplane/ring"
)

// exports shows the vDisks to NBD clients, each under its name, to those that its access list admits.
type exports struct{ n *Node }

// callerOf is a peer as access lists see it.
func callerOf(p nbd.Peer) caller {
	var c caller
	switch a := p.Addr.(type) {
	case *net.UnixAddr:
		c.unix = true
	case *net.TCPAddr:
		c.addr = a.AddrPort().Addr()
	case interface{ AddrPort() netip.AddrPort }:
		c.addr = a.AddrPort().Addr()
	}
	if p.TLS {
		c.names, c.psk = p.ID.Names, p.ID.PSK
	}
	return c
}

// List is every vDisk that the peer may open, by name.
func (x exports) List(p nbd.Peer) []nbd.ExportInfo {
	who := callerOf(p)
	x.n.mu.Lock()
	defer x.n.mu.Unlock()
	var out []nbd.ExportInfo
	for _, d := range x.n.vdisks {
		if x.shows(d.Name) && d.rules.access.admits(who) {
			out = append(out, d.exportInfo())
		}
	}
	slices.SortFunc(out, func(a, b nbd.ExportInfo) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// shows: `vstor serve` has only one of them.
func (x exports) shows(name string) bool { return x.n.opts.Only == "" || x.n.opts.Only == name }

// Open takes a vDisk for one connection. Without a name it is the only vDisk there is for this peer.
func (x exports) Open(name string, p nbd.Peer) (nbd.Export, error) {
	e, err := x.open(name, callerOf(p))
	if err != nil {
		return nil, err
	}
	if e.d.door != nil { // edges and this process exclude each other
		if err := e.d.door.OpenLocal(x.n.ctx); err != nil {
			x.n.mu.Lock()
			delete(e.d.open, e)
			x.n.mu.Unlock()
			return nil, err
		}
	}
	return e, nil
}

func (x exports) open(name string, who caller) (*export, error) {
	x.n.settings.RLock() // what is being changed is judged by what it becomes
	defer x.n.settings.RUnlock()
	x.n.mu.Lock()
	defer x.n.mu.Unlock()
	if name == "" {
		only, count := x.only(who)
		if count != 1 {
			return nil, errs.New(errs.Absent, "name a vDisk: there are %d for you", count)
		}
		name = only
	}
	d, f := x.n.vdisks[name], x.n.failed[name]
	switch {
	case !x.shows(name) || d == nil && f == nil:
		return nil, noSuchVDisk(name)
	case d != nil && !d.rules.access.admits(who) || d == nil && !rulesOf(f.record).access.admits(who):
		return nil, errs.New(errs.Refused, "this client may not open vDisk %s", name)
	case d == nil:
		return nil, f.refusal()
	case d.removing:
		return nil, noSuchVDisk(name)
	case x.n.stopping:
		return nil, errs.New(errs.Closed, "vstor is stopping")
	}
	e := &export{n: x.n, d: d, who: who, info: d.exportInfo()}
	d.open[e] = struct{}{}
	return e, nil
}

// only is the one vDisk that the caller may open, and how many there are. REQUIRES: Node.mu is held.
func (x exports) only(who caller) (name string, count int) {
	if x.n.opts.Only != "" {
		return x.n.opts.Only, 1
	}
	for _, d := range x.n.vdisks {
		if d.rules.access.admits(who) {
			name, count = d.Name, count+1
		}
	}
	return name, count
}

// export is a vDisk held by one connection.
type export struct {
	n    *Node
	d    *vdisk
	who  caller
	info nbd.ExportInfo
}

// exportInfo is what clients see of it. REQUIRES: Node.mu is held.
func (d *vdisk) exportInfo() nbd.ExportInfo {
	return nbd.ExportInfo{Name: d.Name, Description: "vstor vDisk " + d.Name, Size: d.Size,
		ReadOnly: d.rules.readOnly}
}

func (e *export) Info() nbd.ExportInfo { return e.info }
func (e *export) Loop() *ring.Loop     { return e.d.rig.loop }
func (e *export) Device() block.Device { return e.d.disk }

// Close gives the vDisk back.
func (e *export) Close() {
	if e.d.door != nil {
		e.d.door.CloseLocal()
	}
	e.n.mu.Lock()
	delete(e.d.open, e)
	e.n.mu.Unlock()
}
