// Package link carries frames of package wire over stream sockets, for both sides of the protocols between
// vstor's processes.
//
// A connection has two lives, as one of NBD has.
//
//	handshake (goroutine, net.Conn, deadline) ── Take: a bare descriptor ── New, Start (loop)
//	  of each protocol                             socket.go, tlsconn         conn.go
//
//	        ┌───────────────────────── a ring.Loop, run to completion ─────────────────────────┐
//	socket ─ RecvSelect ─ receive.go: header and body out of the receive buffer ─► FrameIn       │
//	        │  RecvV ────── data into the pages that FrameIn named ──────────────► FrameData     │
//	socket ── SendV ────── send.go: all frames of the pass in one batch ◄───────── Send          │
//	        └──────────────────────────────────────────────────────────────────────────────────┘
//
// A server's peers come in by its Door (door.go): accepted, shaken hands with, and counted, within bounds.
//
// The package knows frames and nothing of what they mean: server and client are Handlers. Once warm it
// allocates nothing per frame.
//
// Every bound and what crossing it does:
//
//	header and body   one page             longer: the connection is closed, counted
//	data              the Handler          names pages, skips, or stalls
//	stalled           Hub.StashBytes       a connection that does not read keeps what it had received;
//	                                       above the bound it is closed, counted
//	frames to send    the Handler          has as many as it admitted requests
//	batch             one page of headers, one in flight; the others wait for it
//	                  1 MiB or 256 runs
//	silence           Options.Timeout      in the middle of a frame, either way: closed, counted
package link
