package node

import (
	"path/filepath"

	"vstor/asd/store"
	"vstor/dataplane/errs"
	"vstor/dataplane/volume/journal"
)

// readIdent reads the deployment's identity, and writes it again where its file is damaged.
func (n *Node) readIdent() (ident, error) {
	d, damage, err := n.findIdent()
	if err != nil || damage == nil {
		return d, err
	}
	n.log.Error("the deployment's identity was damaged and is written again from its drives", "error", damage)
	return d, writeIdent(n.host.FS(), n.cfg.Dir, d)
}

// findIdent reads the deployment's identity, and finds it again where its file is damaged, which damage then
// tells: the superblock of each ASD names the deployment, and the ASD's own UUID follows from that, so one that
// fits cannot be chance; the root of the journal has the journal's. It writes nothing.
func (n *Node) findIdent() (d ident, damage, err error) {
	d, err = readIdent(n.host.FS(), n.cfg.Dir)
	if errs.Of(err) != errs.Corrupt {
		return d, nil, err
	}
	d = ident{}
	fits := 0
	for i := range n.cfg.ASDs {
		u, ok := n.deploymentOf(i)
		if !ok {
			continue
		}
		if fits > 0 && u != d.UUID {
			return d, nil, err // two deployments' drives
		}
		d.UUID = u
		fits++
	}
	if fits == 0 {
		return d, nil, err
	}
	f, jerr := n.host.Open(n.journalPath(0))
	if jerr != nil {
		return d, nil, err
	}
	defer f.Close()
	j, jerr := journal.Open(f, journal.Options{})
	if jerr != nil {
		return d, nil, err
	}
	d.Journal = j.Root().UUID
	return d, err, nil
}

// deploymentOf is what ASD i says it belongs to, if that fits its own UUID.
func (n *Node) deploymentOf(i int) (uuid, bool) {
	f, err := n.host.Open(filepath.Join(n.drivePath(i), "data"))
	if err != nil {
		return uuid{}, false
	}
	defer f.Close()
	sb, _, err := store.ReadSuperblock(f)
	d := ident{UUID: sb.Deployment}
	return d.UUID, err == nil && d.asdUUID(i) == sb.UUID
}
