package node

import (
	"path/filepath"

	"vstor/asd/store"
	"vstor/dataplane/errs"
	"vstor/dataplane/volume/journal"
)

// readIdent reads the deployment's identity, and finds it again where its file is damaged: the superblock of each
// ASD names the deployment, and the ASD's own UUID follows from that, so one that fits cannot be chance;
// the root of the journal has the journal's.
func (n *Node) readIdent() (ident, error) {
	d, err := readIdent(n.host.FS(), n.cfg.Dir)
	if errs.Of(err) != errs.Corrupt {
		return d, err
	}
	d = ident{}
	fits := 0
	for i := range n.cfg.ASDs {
		u, ok := n.deploymentOf(i)
		if !ok {
			continue
		}
		if fits > 0 && u != d.UUID {
			return d, err // two deployments' drives
		}
		d.UUID = u
		fits++
	}
	if fits == 0 {
		return d, err
	}
	f, jerr := n.host.Open(n.journalPath(0))
	if jerr != nil {
		return d, err
	}
	defer f.Close()
	j, jerr := journal.Open(f, journal.Options{})
	if jerr != nil {
		return d, err
	}
	d.Journal = j.Root().UUID
	n.log.Error("the deployment's identity was damaged and is written again from its drives", "asds", fits, "error", err)
	return d, writeIdent(n.host.FS(), n.cfg.Dir, d)
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
