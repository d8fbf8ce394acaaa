// Package router is the router's end of the Edge protocol: it lets edges open vDisks, one exclusively, and carries out
// what they ask.
//
//	Server   accepts, shakes hands, finds the vDisk                     server.go, handshake.go
//	VDisk    a vDisk that edges may open: who has it, what was pushed   vdisk.go
//	Table    decides who has it; a step function                        table.go
//	session  one connection, on the vDisk's loop                        session.go
//	request  one request until its answer has left                      request.go, change.go
//
// Reads climb the same ladder as those of this process (block.Device); changes go to the Volume Driver as they are,
// with the checksums that they were given at the edge.
//
// # Who may wait for an edge
//
// Locations that an edge was told are used under its lease. What must not happen while they are (another holder, an
// object deleted, the vDisk removed) waits until the edge has released them, has answered the push that takes them
// back, or until its lease has run out: VDisk.Settle and Table. A restarted router knows from the record who may have
// a lease, and counts it from its own start.
//
// # Bounds
//
//	requests       Options.Requests   of a connection; then it is not read from until one was answered
//	data           Options.Bytes      the same, of what they carry or ask for
//	pages          the loop's pool    where none is free the connection is not read from, and looks again in a ms
//	openers        queueMax           that wait to be exclusive; one more is refused
//	connections    ServerOptions.Connections   one more is refused
//	handshakes     ServerOptions.Handshakes    one more ends the oldest
//	manifests      Options.Requests   goroutines of a connection that ask for one
package router
