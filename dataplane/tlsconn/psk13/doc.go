// Package psk13 is the server's side of TLS 1.3 (RFC 8446) for clients that share a key with it and show no
// certificate. crypto/tls resumes its own sessions with such keys but takes none from outside.
//
//	client                                      server
//	ClientHello  key_share, psk modes,
//	             identities and binders ──────►  hello.go: what is offered; handshake.go: what is chosen
//	             ◄────── HelloRetryRequest       only if no share is of a group that we have
//	ClientHello  ────────────────────────────►
//	             ◄── ServerHello key_share, psk
//	             ◄── {EncryptedExtensions, Finished}
//	{Finished}   ────────────────────────────►
//	[data]       ◄───────────────────────────►  conn.go, record.go
//
// Only psk_dhe_ke: with an ephemeral Diffie-Hellman exchange a key that leaks later opens no recorded
// session. There are no tickets and no early data: disks stay attached for days.
//
// Whoever lacks the key learns nothing: the binder, a MAC over the ClientHello, is checked before anything
// is computed or answered, and an unknown identity is checked against a key that nobody has, so that it
// fails like a wrong key. All comparisons of secrets take constant time. The primitives are the standard
// library's.
//
// The package reads and writes a net.Conn and has no goroutines; deadlines are the caller's.
package psk13
