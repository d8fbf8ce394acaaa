// Package dataplane is the trunk: the path of a vDisk's data from the socket to the drives and back.
// START HERE.
//
//	WRITE   NBD client -> nbd -> edge -> volume
//	          1 the payload comes to rest once, in 4 KiB-aligned pages, and is checksummed per block;
//	            block and checksum stay together for ever                            buf nbd edge
//	          2 one direct-IO write carries a header and every write that waits      volume/journal
//	          3 the blocks enter the overlay; ack, in order                          volume/overlay
//	        later, per vDisk:
//	          4 seal a SCO: newest version of each block, by address, with an index  volume/sco
//	          5 chunk by chunk: verify, erasure code, place, all ASDs in parallel    proxy erasure asd/store
//	          6 commit the manifest in seal order, locations into the map,
//	            trim the journal                                                     meta volume/pagemap
//
//	READ    a ladder; the first rung that answers wins                               edge
//	          1 overlay: the page itself is sent, without a copy                     volume/overlay
//	          2 map: where each block lies and what it must hash to                  volume/pagemap
//	          3 the block cache, by location: RAM without a copy, then its SSD       blockcache
//	          4 the fragment cache, if there is one, else
//	            PRACC: one range read on the one drive that has it, verified         fragcache pracc
//	          5 that drive is late: hedged; dead, slow, stuck or rotten: rebuilt from
//	            k others                                                             pracc erasure
//
// With a process per drive, an ASD in another process is asked over a socket, unless it handed over its drive and said
// under a lease where the fragment lies (short-circuit):
//
//	WRITE   proxy -> asd/client, blocking half -> socket -> asd/server's loop -> asd/store
//	        two large ones at a time for each drive                    dio.Away
//	READ    pracc -> asd/client, loop half     -> the drive, on the own ring
//	                             else          -> socket -> asd/server's loop -> the drive, and back
//
// With the Edge in a process of its own, on the host of its clients, its driver is at the other end of a socket; where
// blocks lie it remembers under a lease, and reads them from the drives without the router:
//
//	WRITE   edge -> edge/remote -> socket -> router -> volume
//	READ    edge -> edge/remote: location known  -> pracc, as above
//	                             else            -> socket -> router -> edge, in the router's process
//
// One loop (ring) owns sockets, journal and drive reads of the vDisks assigned to it: one OS thread, one io_uring,
// run to completion, no lock but around a look-up in a map that goroutines share. Sealing, coding, metadata and
// repair are goroutines, which talk to a loop through its inbox. Nothing that may block runs on a loop.
//
// Packages, lowest first; each uses those above it in this list only, and nbd, edge, proxy, volume and pracc not each
// other: tools/tidy/law.go says who may use whom, and why:
//
//	ids errs invariants stat units   words everyone uses; leaktest: goroutines and descriptors of tests
//	sum                              checksums of many blocks side by side; pure
//	buf                              aligned off-heap pages with reference counts, scatter lists
//	block                            Request, Device, Mutation, Fetch: the shapes of an IO
//	ring                             the io_uring loop, and its plain twin for where io_uring is forbidden
//	wire                             frame header and cursor of the protocols between processes; pure
//	tlsconn                          TLS with certificates or pre-shared keys, pumped into a socket for a loop;
//	                                 tlsconn/psk13: the server's side of TLS 1.3 with pre-shared keys
//	link                             a connection that carries frames, on a loop; the door where peers come in
//	dio                              direct-IO files and drives, and their twins for tests
//	layout                           keys, locations, policies, chunks, placement, manifests; pure
//	erasure                          thin over klauspost/reedsolomon; pure
//	lsm                              what our Pebble databases share: rot, full file systems
//	meta                             the metadata store, on Pebble
//	volume/{journal,overlay,sco,pagemap}, volume   the Volume Driver
//	proxy                            object put, get, delete, repair
//	edge                             block API and read ladder; edge/proto, edge/remote: the Edge protocol, its client
//	router                           the Edge protocol's server: who has a vDisk, sessions, leases
//	nbd                              the NBD server; knows only block.Device
//	config api                       settings and the deployment's folder; HTTP API
//	supervise                        child processes
//	node                             composition root: joins all of them
//
// and beside the trunk: pracc (partial reads); blockcache (blocks that were read; policy: what stays, ssd: the file
// of its second tier); fragcache (whole fragments on an SSD, asked before the ASDs); asd (store: one drive's
// fragments; proto, handshake, server, client: the protocol, how it begins, and its two ends; faults: how to break
// all that); bench (load, nbdc: what generates it; cachesim; plot, stamp; micro: Go benchmarks beside ISA-L and
// memcpy); tools (vstor: the command; dump; tidy; e2e; guest; recipes). What only tests use is beside what it stands
// for: meta/metatest, nbd/nbdtest, ring/ringtest, tlsconn/tlstest.
//
// Reading order for a newcomer: block, then nbd/receive.go, edge/disk.go, volume/doc.go and what it names,
// proxy/doc.go, asd/store/doc.go, pracc/doc.go, asd/proto/doc.go, node/node.go.
package dataplane
