// Package proto is the protocol between an ASD and those who store and read fragments on it: the
// messages, as bytes and as structs. Pure: no IO, no goroutines. The frames are those of package wire.
//
//	asker                                     ASD
//	  Hello  version, who is wanted, nonce ─>
//	                                       <─ Welcome  version, nonce, proof
//	  Auth   proof                         ─>
//	                                       <─ Ready    who this is, bounds  (or Refuse, a sentence, at any step)
//	  requests, as many as the bounds say  ─>
//	                                       <─ replies, in any order; the id says which
//
// # Who is there
//
// Both sides hold the deployment's secret. Each proves it with HMAC-SHA256 over its role and everything said
// before, both nonces included, so that no proof serves twice or in the other direction. Hello names the
// UUID of the ASD that is wanted: a swapped drive is noticed before the first fragment moves. Until Auth was
// right the ASD says nothing but its version and "authentication failed". The handshake keeps strangers
// out and mistakes apart; against somebody who changes bytes under way there is TLS.
//
// # Bounds
//
// Ready says how many requests a connection may have unanswered, and how many bytes of data they may ask
// for or carry together. Who goes beyond is not refused: the ASD stops reading until it has answered enough.
//
// # Time
//
// A request may carry a limit in milliseconds, from when the ASD takes it in; one that has not begun by then
// is answered Canceled. Time in the socket does not count: who asks keeps a clock of its own. Cancel
// asks that of a request by its id; it has no reply of its own, and the canceled request keeps its one reply.
// A connection that is closed cancels all that was asked on it. Puts that have begun are carried through.
//
// # Outcomes
//
// A reply carries an errs.Kind. If it is not OK the body is a sentence, and there is no data. Absent means
// that the ASD knows that it has no such fragment.
//
// # Short-circuit
//
// Between processes of one host the drive's descriptor and the places of fragments go over the socket instead of
// their bytes, under a lease: short.go.
//
// # Data
//
// ReadRanges gives what is on the drive, unverified: the reader has a checksum for every block. Get verifies
// on the ASD and names the XXH64 of what it sends, Put the XXH64 of each 64 KiB region, which the ASD checks
// before it writes, List and Delete the XXH64 of their lists.
package proto
