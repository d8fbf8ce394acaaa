// Package tlsconn puts TLS between a client and a loop: it shakes hands on a net.Conn, says who the peer
// proved to be, and pumps what it decrypts into a socket that a loop can own, so that there is one engine
// for plain and for TLS.
//
//	client ==TLS==> nc ==Handshake==> net.Conn ==Pump==> socket pair ==> loop
//
// A peer proves itself by a certificate (crypto/tls, TLS 1.2 and 1.3) or by a pre-shared key (psk13, TLS
// 1.3 only, since crypto/tls knows none). A server may offer both; see Server.Handshake for who gets which.
//
// A connection and its pump cost two goroutines and, while nothing moves, some 16 KiB, with crypto/tls 20 KiB
// more once a long record has come. Each direction holds up to 136 KiB while data is on its way or its taker
// is slow, and gives them back.
package tlsconn
