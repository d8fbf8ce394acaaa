// Package nbd serves block devices over the NBD protocol: fixed newstyle handshake, TLS by STARTTLS, simple
// replies, structured replies and extended headers with block status, any alignment, many connections per
// export, over unix sockets and TCP. It knows block.Device and ring.Loop and nothing above or below them.
//
// A connection has two lives.
//
//	accept ── handshake (goroutine, net.Conn, deadline) ── detach the fd ── attach to the export's loop
//	             handshake.go negotiate.go contexts.go                          conn.go
//	             over proto_handshake.go
//
// TLS ends in the handshake: what it decrypts is pumped into a pair of sockets, one of which is the fd
// (tls.go), so that transmission knows nothing of it.
//
//	                    ┌────────────────── loop of the vDisk, run to completion ───────────────────┐
//	socket ─ RecvSelect ─ receive.go: headers out of the receive buffer, payload into pages         │
//	                    │      └ admit.go ─ rules.go, budget.go ─ Submit ─ block.Device ─ Completed │
//	                    │                └ steps.go, status.go: several Submits ◄─────────────┤     │
//	socket ──── SendV ── send.go: every reply of the pass in one batch ◄──────────────────────┘     │
//	                    └───────────────────────────────────────────────────────────────────────────┘
//
// The handshake may block, so it has a goroutine, which ends with it. Transmission has none: a
// connection is a few hundred bytes of state on the loop that owns the vDisk, so state needs no lock
// and a request costs no wake-up, no allocation and no hand-over.
//
// Every bound and what crossing it does:
//
//	connections        Options.MaxConnections     the new one is closed at once, counted
//	handshake          Options.HandshakeTimeout   the connection is closed, counted
//	option payload     optionMax                  ERR_TOO_BIG, payload skipped; above optionSkipMax closed
//	requests           Options.MaxInflight        the socket is not read until a reply has left
//	write payload      Options.MaxWriteBytes      the same
//	read payload and   Options.MaxReadBytes,      the same; counted from the request until the reply has
//	block status       Options.LoopReadBytes      left, so a slow reader stops itself and nobody else
//	long requests      longMax, rangeSteps        further ones and further pieces wait for their turn
//	a block status     a page, roundsMax          the reply ends there; the client asks for the rest
//	pages of a loop    buf.Pool                   the connection waits in a FIFO for pages
//	stashed bytes      one receive buffer per     a connection that stops reading keeps what it had
//	                   connection, LoopStashBytes received; above the loop's bound it is closed, counted
//	silent peer        Options.StallTimeout       only while others wait for what it holds: closed, counted
//
// The wire is drawn in proto_handshake.go, contexts.go, proto.go and proto_reply.go; what is allowed and what
// is answered stands in rules.go. Start reading at server.go, then conn.go, receive.go, admit.go, send.go.
package nbd
