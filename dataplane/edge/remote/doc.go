// Package remote is a Volume Driver in another process, as the Edge sees it: an edge.Driver over a connection to the
// router, with a cache of where blocks lie.
//
//	Resolve     what the cache knows under the lease; else "asked": the router reads it    locate.go, cache.go
//	Mutate      changes, in order, kept until they are acknowledged                        change.go
//	ReadLogged  what was "asked", and Extents, Warm, Manifest                              ask.go
//	session     dial, open, renew; lost, replay, fenced                                    session.go, connect.go
//	stall       what has waited too long for a router, or for room there, fails            stall.go
//	pushes      Invalidate, Yield, Revoke, Redirect                                        push.go
//
// # What is kept, and when
//
// Nobody but this edge changes the vDisk while its lease runs, so what it must watch are its own changes. A range is
// dropped from the cache when a change of it is taken, and again when that is acknowledged. A look-up and a change
// whose times overlap know of each other: what the look-up says of that range is not kept. So a location that is kept
// was looked up after every change of its block had been acknowledged and before the next was sent. And nothing is
// kept that was looked up below the sequence that had been acknowledged when it was asked for.
//
// # A lost connection
//
// Changes that were not acknowledged may have happened or not. The router lets the old session come to rest, then
// all of them are sent again, in their order, before any other change; what the old session did of them is written over
// by the same. That is as if each happened once, when its repetition did, provided that nobody sees the time between: a
// read that had seen the last of two changes of a block would see the first come back. So reads of their blocks that go
// to the router are held until the last repetition is acknowledged, and reads of other blocks are not: what is repeated
// may wait at the router for as long as drives are full. Reads from the cache go on: it knows no block of which a
// change is under way. Acknowledgements come in the order in which changes were sent, so those that lack one are the
// last ones, and no acknowledged change is overtaken by the repetition of an older one.
//
// A router that comes back from a kill has all that was acknowledged. One whose machine lost power may lack what was
// not flushed. Its sequence tells, and then the vDisk is lost to this edge as if another had taken it over: see broken.
//
// All of it belongs to the loop, but for Open, Manifest and Shut.
package remote
