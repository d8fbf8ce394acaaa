// Package node is the composition root: it makes the parts of a deployment from a configuration, joins
// them, and takes them down in order. The command, the tests and the benchmarks all start a Node; no
// other package joins volume, edge, pracc, proxy, nbd and asd.
//
//	node.go      start and stop, in order, with the reasons
//	host.go      the machine: folders and drives, real or in memory
//	drives.go    the ASDs of this process
//	backend.go   proxy as the Volume Drivers need it
//	fetcher.go cache.go fragcache.go   PRACC and the two caches as the Edge needs them
//	looprig.go   a loop with all that lives on it: pool, journal, PRACC, vDisks
//	registry.go  names, numbers and states of vDisks in the metadata store
//	vdisks.go    create, open, remove
//	failed.go    vDisks that do not open: parked, tried again
//	mapdb.go floor.go   maps made again from the SCOs, and when they may be
//	identheal.go corruption.go   damage: the identity found again; what was met, by place
//	daemons.go asdrole.go   ASDs as processes of their own
//	edges.go     vDisks for edges in other processes
//	roles.go edgerole.go edgelist.go edgecaches.go edgestatus.go   the router's and the edge's process
//	fleet.go fleetask.go   their parent: starts them, puts together what they tell
//	serve.go     the NBD sockets
//	exports.go   vDisks as NBD exports; bare.go: without NBD
//	access.go settings.go   whom a vDisk is open to, and how that is changed
//	nbdtls.go    certificates for NBD: read, read again, told of before they end
//	status.go metrics.go memory.go   what the API shows
package node
