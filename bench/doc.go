// Package bench measures a deployment against a peer in the same run, on the same machine, with the same
// fio jobs, and prints ratios: numbers of different days or machines say nothing.
//
// A run makes volumes of the same size on one file system: a vDisk of a fresh deployment in one process, one of
// a deployment whose ASDs are processes, and a raw file, written through once, behind qemu-nbd with io_uring
// and direct IO, and behind nbdkit. The jobs go round, each job on each target, in turns, and the ratios within each
// round are compared: their median counts.
// The raw file under fio's own io_uring engine is what the drive gives to fio, our NBD before a bare log what storage
// begins with. Beside them one ASD stands alone: the bench is its client, over TCP, and reads and puts as many bytes.
//
// Parts of the path that fio does not reach, PRACC, the Edge and the caches, are driven by a process that opens the
// deployment for that (RunPart); what an IO costs more on one than on the part below is what that hop costs.
//
// What to do is a plan that is made first, so that a run can say how long it takes; a job during which somebody else
// used the machine is done once more, and its round left out if that was no better; without half of them or more there
// is no ratio.
//
//	jobset.go   what is measured, and the ratios it should reach; job.go: what a job is
//	jobs/       fio's part of it, one file per job, which anybody can run; jobfile.go reads them
//	options.go  of a run
//	plan.go     who does what, in which order, and how long it takes; progress.go tells how far it is
//	run.go      doing it
//	disturb.go  what others took of the machine meanwhile
//	fio.go      one fio run
//	openloop.go one run at a fixed rate, by package load
//	target.go   what can be measured
//	peer.go     qemu-nbd, nbdkit, the bare server and the raw file; tgt.go, ceph.go: those one has to ask for
//	ours.go     the deployments
//	variant.go  them with other settings: with a block cache, with short-circuit reads, on full drives
//	tcp.go      one of them over TCP, plain and with TLS; cert.go: its certificate
//	asd.go      one ASD alone
//	asdread.go  its reads, by a loop; closedloop.go: what keeps IOs going on one
//	asdput.go   its puts, by goroutines
//	part.go     parts of the path, each with what is below it and nothing before it
//	inside.go   the process that drives one; insidelow.go: PRACC and the drive; insidecaches.go: the caches
//	drivelog.go the drive as a log uses it: alone in insidelog.go, behind NBD in bare.go
//	hops.go     what each of them costs
//	profile.go  where the time of our processes goes meanwhile
//	proc.go     CPU and bytes from /proc and /sys
//	report.go   medians, and ratios round by round; table.go prints them, stored.go keeps them as JSON
//	figures.go  all figures of a run; vitastor.go: a peer that is in none, through qemu-nbd
//	bars.go     the bars in one table; limits.go: what forbids those that are missed
//	compare.go  two stored runs; benchstat.go: lines for another tool that does it
//	html.go     the page, with its plots; markdown.go: the summary, BENCHMARKS.md
package bench
