// Package server is the daemon's half of an ASD: it serves a store.Store over the protocol of asd/proto,
// on any number of unix and TCP listeners.
//
//	accept ── handshake (goroutine, deadline) ── link.Conn on the server's one loop
//	                                                │ FrameIn
//	        ┌───────────────────────────────────────┼───────────────────────────────┐
//	     read.go                                  put.go                          work.go
//	  ReadRanges: Locate in RAM, the drive     data lands in a put buffer,     Delete, Get, List, Verify, Fence,
//	  is read on the loop into pool pages,     a worker checks its sums and    Describe: workers, deletes first
//	  which the socket sends                   writes it as it is, and the
//	                                           store's committer ends it
//	        └───────────────────────────────────────┴───────────────────────────────┘
//	                                          request.answer ── Send
//
// A peer on this host may get the drive itself and read it under leases (short.go).
//
// Ping, Info, Stat, Locate, Extents, Lease and Epoch are answered on the loop at once (quick.go): they stay true while
// the drive hangs.
// The loop never blocks: whatever may wait for the drive or the index runs on a worker.
//
// Every bound and what crossing it does:
//
//	connections          MaxConnections   refused, Busy
//	handshakes           MaxHandshakes    the oldest one under way is closed
//	handshake            HandshakeTimeout closed, counted
//	requests             MaxRequests      per connection: it is not read until a reply has left
//	  of all             requestsMax      the connection waits in a line
//	bytes                MaxBytes         the same, per connection
//	pages of reads       PoolBytes        the connection waits in a line
//	bytes of puts        PutBuffers       the same, in a line of its own
//	verified reads       getBuffers       the same
//	silence              StallTimeout     closed, but only while others wait for what it holds; link's own
//	                                      timeout ends it anyway
//	idle                 IdleTimeout      closed
//
// The lines are strictly first come, first served, so nobody starves; there is one for each kind of memory,
// so who waits for a put buffer holds up no reader. Start reading at server.go, then conn.go, request.go.
package server
