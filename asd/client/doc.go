// Package client is the asking side of the ASD protocol: one ASD value for each ASD that another process
// serves.
//
//	         ┌ health   a goroutine with a connection of its own: Stat every second, due within one.
//	         │          It alone decides whether the ASD is up. When it goes down all pooled
//	         │          connections are closed, so that calls on them fail now and not by a timeout
//	ASD ─────┼ calls    Put, Get, Delete, List ...: any goroutine, blocking. A pool of connections, one call
//	         │          at a time on each: no reader goroutine, nobody waits behind another's payload
//	         └ Readers  one per loop: reads for PRACC, pipelined on one connection of the loop (link.Conn),
//	                    answers in any order, straight into the caller's pages
//	           Direct   of a Reader on the ASD's host: the drive itself, read on the loop, where a lease and a
//	                    table of extents say so (direct.go, short.go, extents.go); all else goes over the socket
//
// # What an error means
//
// Absent, Corrupt, Full, Refused, IO, Invalid, Busy, Closed are what that ASD answered. All else (no
// connection, no answer, an answer that makes no sense, another ASD at that address, data damaged on its
// way) is Unreachable, and says nothing about the fragment. A caller that gave up gets Canceled.
//
// # Bounds
//
//	calls at a time          Options.BulkConns   further ones wait, as long as their context allows
//	time of a call           its context, and Options.CallTimeout; then Unreachable, the connection is closed
//	reads sent on a Reader   ReaderOptions.InFlight and what the ASD allows; further ones wait in order
//	reads of a Reader        ReaderOptions.Reads; further ones end with EBUSY
//	silence of a Reader      ReaderOptions.StallAfter: all its reads end, others are asked
//	age of a read            ReaderOptions.ReadTimeout
//	extents known            ReaderOptions.ExtentBytes; further ones take the place of what was not used
package client
