package node

import (
	"net"

	"vstor/dataplane/block"
	"vstor/dataplane/edge"
	"vstor/dataplane/errs"
	"vstor/dataplane/nbd"
	"vstor/dataplane/ring"
	"vstor/dataplane/volume"
)

// Bare is a vDisk without NBD before it, held as a connection holds it: for who measures its parts one by one. What it
// gives belongs to Loop and is called there; its own methods are called anywhere.
type Bare struct{ e *export }

// OpenBare takes a vDisk. Errors: as those of an NBD client on a unix socket; Unsupported where the Volume Driver is
// another process.
func (n *Node) OpenBare(name string) (*Bare, error) {
	held, err := n.shows.Open(name, nbd.Peer{Addr: &net.UnixAddr{}})
	if err != nil {
		return nil, err
	}
	e, here := held.(*export)
	if !here {
		held.Close()
		return nil, errs.New(errs.Unsupported, "vDisk %s has its Volume Driver in another process", name)
	}
	return &Bare{e}, nil
}

// Loop is where the vDisk lives.
func (b *Bare) Loop() *ring.Loop { return b.e.Loop() }

// Disk is the Edge, and all that is below it.
func (b *Bare) Disk() block.Device { return b.e.Device() }

// Volume says where blocks lie.
func (b *Bare) Volume() *volume.Volume { return b.e.d.vol }

// PRACC reads what lies in objects.
func (b *Bare) PRACC() edge.Fetcher { return b.e.d.rig.fetch }

// Cache is the vDisk's share of the block cache; nil if there is none.
func (b *Bare) Cache() edge.Cache { return b.e.d.share.cache() }

// Close gives the vDisk back.
func (b *Bare) Close() { b.e.Close() }
