// Package proto is the protocol between an Edge and the storage router: the messages, as bytes and as structs. Pure:
// no IO, no goroutines. The frames are those of package wire. One connection is one opener of one vDisk.
//
//	edge                                      router
//	  Hello  version, opener, vDisk, nonce ─>
//	                                       <─ Welcome  version, nonce, proof
//	  Auth   proof                         ─>
//	                                       <─ Ready    bounds of the connection  (or Refuse, a sentence, at any step)
//	  Open   mode                          ─>
//	                                       <─ Opened   session, epoch, size, lease
//	  requests, as many as the bounds say  ─>
//	                                       <─ replies, in any order; the id says which
//	                                       <─ pushes: Invalidate, Yield, Revoke, Redirect
//	  a reply to each push                 ─>
//
// # Order
//
// The router takes requests in the order in which they were sent. Changes (Write, Trim, Zero) take effect, and are
// acknowledged, in that order too. An answer says what held at some moment between its request's arrival and its own
// departure; answers of Locations, Renew and Open, and pushes, leave in the order in which what they say was true.
//
// # The vDisk's sequence
//
// Each acknowledgement, location and data reply begins with a sequence of the vDisk: what the answer says includes
// all changes up to it that the journal took. An edge keeps nothing that was looked up below what it saw acknowledged.
//
// # Sessions
//
// A session begins with an Open that is granted and ends with its connection, or before. An opener is a process; its
// next session of the same vDisk replaces the one before, which the router first lets come to rest: what was sent on
// it and is not acknowledged has happened or never will. Locations are given to the exclusive opener alone, and may
// be used for as long as its lease: the length that Opened and Renew's answer say, counted from when the request for
// it was sent.
//
// # Bounds
//
// Ready says how many requests may be unanswered, and how many bytes of data they may carry or ask for together.
// Who goes beyond is not refused: the router stops reading until it has answered enough.
//
// # Outcomes
//
// A reply carries an errs.Kind. If it is not OK the body is a sentence, and there is no data. Refused means that the
// session is over for good: another opener has the vDisk.
package proto
