package node

import (
	"context"
	"time"

	"vstor/dataplane/api"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
)

// listWait bounds how long the router may take to say which vDisks there are. While it does not answer, what it said
// last goes on: access lists too. firstWait is the same while it has never said anything: both may just have started.
const (
	listWait  = 2 * time.Second
	firstWait = 15 * time.Second
)

// list is which vDisks there are.
func (e *Edge) list(ctx context.Context) ([]api.VDisk, error) {
	for end := time.Now().Add(firstWait); ; {
		list, err := e.tryList(ctx)
		if err == nil || time.Now().After(end) {
			return list, err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// tryList is fresh, or what was told last where the router does not answer.
func (e *Edge) tryList(ctx context.Context) ([]api.VDisk, error) {
	list, err := e.fresh(ctx)
	if err == nil {
		return list, nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.listed == 0 {
		return nil, errs.Wrap(errs.Unreachable, err, "the router does not say which vDisks there are")
	}
	return e.known, nil
}

// fresh asks the router. An answer to an earlier question takes no later one's place: access lists are judged by it.
func (e *Edge) fresh(ctx context.Context) ([]api.VDisk, error) {
	ctx, cancel := context.WithTimeout(ctx, listWait)
	defer cancel()
	e.mu.Lock()
	e.asked++
	question := e.asked
	e.mu.Unlock()
	list, err := e.router.ListVDisks(ctx)
	if err != nil {
		return nil, err
	}
	have := make(map[ids.NamespaceID]bool, len(list))
	for _, v := range list {
		have[ids.NamespaceID(v.ID)] = true
	}
	e.n.pruneFragCache(have)
	e.mu.Lock()
	defer e.mu.Unlock()
	if question > e.listed {
		e.known, e.listed = list, question
	}
	return e.known, nil
}

// setting is what the router told last of a vDisk; nil: there is none of that name. REQUIRES: e.mu is held.
func (e *Edge) setting(name string) *api.VDisk {
	for i := range e.known {
		if e.known[i].Name == name {
			return &e.known[i]
		}
	}
	return nil
}

// names are the names of the vDisks that the router has told of.
func (e *Edge) names() map[ids.NamespaceID]string {
	e.mu.Lock()
	defer e.mu.Unlock()
	names := make(map[ids.NamespaceID]string, len(e.known))
	for _, v := range e.known {
		names[ids.NamespaceID(v.ID)] = v.Name
	}
	return names
}
