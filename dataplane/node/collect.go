package node

import (
	"context"
	"maps"
	"slices"

	"vstor/dataplane/ids"
)

// collected is how far garbage collection has come with each vDisk, by number.
type collected map[ids.VolumeID]collecting

type collecting uint8

const (
	collectWaits  collecting = 1 + iota // for ASDs to answer; said once
	collectSilent                       // done, but for ASDs that did not answer
	collectDone                         // or there is no use in trying again
)

// collectGarbage deletes what crashed puts left of the vDisks where that was not done, once enough ASDs said
// that the metadata store is no old one: what an old one does not name may be anything but garbage. Where ASDs
// did not answer, it is done again if one has returned: it is asked first.
func (n *Node) collectGarbage(ctx context.Context, done collected, returned bool) {
	list := n.sortedVDisks()
	maps.DeleteFunc(done, func(id ids.VolumeID, _ collecting) bool {
		return !slices.ContainsFunc(list, func(d *vdisk) bool { return d.ID == id })
	})
	for _, d := range list {
		was := done[d.ID]
		if was == collectDone || was == collectSilent && !returned {
			continue
		}
		enough, err := n.epochsFit(ctx, d)
		if ctx.Err() != nil {
			return
		}
		if err == nil && !enough {
			if was == 0 {
				done[d.ID] = collectWaits
				n.log.Warn("what crashed puts left stays until more ASDs answer", "vdisk", d.Name)
			}
			continue
		}
		done[d.ID] = collectDone
		if err == nil {
			g, cerr := n.proxy.CollectGarbage(ctx, d.ID, d.epoch, d.vol.Needs)
			if err = cerr; err == nil && g.Silent > 0 {
				done[d.ID] = collectSilent
			}
			if g.Lost {
				n.log.Error("the metadata store lost manifests: what lies in their SCOs cannot be read, their fragments are kept; "+
					"`vstor fsck --manifests --repair` makes the manifests again", "vdisk", d.Name)
			}
		}
		if err != nil && ctx.Err() == nil {
			n.log.Warn("what crashed puts left stays for now", "vdisk", d.Name, "error", err)
		}
	}
}
