// Package bench measures a deployment against a peer in the same run, on the same machine, with the same
// fio jobs, and prints ratios: numbers of different days or machines say nothing.
//
// A run makes volumes of the same size on one file system: a vDisk of a fresh deployment in one process, one of
// a deployment whose ASDs are processes, and a raw file, written through once, behind qemu-nbd with io_uring
// and direct IO. The jobs go round, each job on each target, in turns, and medians over the rounds are compared.
// The raw file under fio's own io_uring engine is the limit of the drive. Beside them one ASD stands alone:
// the bench is its client, over TCP, and does the same jobs on as many bytes.
//
//	job.go      what is measured, and the ratios it should reach
//	target.go   the peer and the raw file: start, restart, what they cost
//	ours.go     the deployments
//	variant.go  them with other settings: with a block cache, with short-circuit reads
//	tcp.go      one of them over TCP, plain and with TLS; cert.go: its certificate
//	asd.go      one ASD alone
//	asdread.go  its reads, by a loop
//	asdput.go   its puts, by goroutines
//	fio.go      one fio run
//	proc.go     CPU and bytes from /proc and /sys
//	run.go      the order of things
//	report.go   medians, table, JSON
package bench
