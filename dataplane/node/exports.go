package node

import (
	"cmp"
	"slices"

	"vstor/dataplane/block"
	"vstor/dataplane/errs"
	"vstor/dataplane/nbd"
	"vstor/dataplane/ring"
)

// exports shows the vDisks to NBD clients, each under its name.
type exports struct{ n *Node }

// List is every vDisk by name.
func (x exports) List() []nbd.ExportInfo {
	x.n.mu.Lock()
	defer x.n.mu.Unlock()
	var out []nbd.ExportInfo
	for _, d := range x.n.vdisks {
		out = append(out, d.exportInfo())
	}
	slices.SortFunc(out, func(a, b nbd.ExportInfo) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Open takes a vDisk for one connection. Without a name it is the only vDisk there is.
func (x exports) Open(name string) (nbd.Export, error) {
	x.n.mu.Lock()
	defer x.n.mu.Unlock()
	d := x.n.vdisks[name]
	if name == "" && len(x.n.vdisks) == 1 {
		for _, only := range x.n.vdisks {
			d = only
		}
	}
	switch {
	case d == nil && x.n.failed[name] != nil:
		return nil, x.n.failed[name].refusal()
	case d == nil && name == "":
		return nil, errs.New(errs.Absent, "name a vDisk: there are %d", len(x.n.vdisks))
	case d == nil || d.removing:
		return nil, noSuchVDisk(name)
	case x.n.stopping:
		return nil, errs.New(errs.Closed, "vstor is stopping")
	}
	d.conns++
	return &export{x.n, d}, nil
}

// export is a vDisk held by one connection.
type export struct {
	n *Node
	d *vdisk
}

func (d *vdisk) exportInfo() nbd.ExportInfo {
	return nbd.ExportInfo{Name: d.Name, Description: "vstor vDisk " + d.Name, Size: d.Size}
}

func (e *export) Info() nbd.ExportInfo { return e.d.exportInfo() }
func (e *export) Loop() *ring.Loop     { return e.d.rig.loop }
func (e *export) Device() block.Device { return e.d.disk }

// Close gives the vDisk back.
func (e *export) Close() {
	e.n.mu.Lock()
	e.d.conns--
	e.n.mu.Unlock()
}
