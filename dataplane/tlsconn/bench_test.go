package tlsconn

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// benchWays are what a connection can be pumped over.
var benchWays = []string{"tls", "tls without a layer"}

// stand is a loop's stand-in: a thread of its own that blocks in system calls.
func stand(loop net.Conn, serve func(fd int)) {
	f, err := loop.(*net.UnixConn).File()
	if err != nil {
		panic(err)
	}
	go func() {
		runtime.LockOSThread()
		fd := int(f.Fd())
		unix.SetNonblock(fd, false)
		serve(fd)
		f.Close()
	}()
}

// BenchmarkIn carries 1 MiB writes of a client to the loop, BenchmarkOut the other way.
func BenchmarkIn(b *testing.B) {
	for _, how := range benchWays {
		b.Run(how, func(b *testing.B) {
			loop, peer := pumped(b, how)
			stand(loop, func(fd int) {
				for buf := make([]byte, 256<<10); ; {
					if n, err := unix.Read(fd, buf); n <= 0 && err != unix.EINTR {
						return
					}
				}
			})
			benchStream(b, peer, func(p []byte) { peer.Write(p) })
		})
	}
}

func BenchmarkOut(b *testing.B) {
	for _, how := range benchWays {
		b.Run(how, func(b *testing.B) {
			loop, peer := pumped(b, how)
			stand(loop, func(fd int) {
				for buf := make([]byte, 1<<20); ; {
					if n, err := unix.Write(fd, buf); n <= 0 && err != unix.EINTR {
						return
					}
				}
			})
			benchStream(b, peer, func(p []byte) { io.ReadFull(peer, p) })
			loop.Close()
		})
	}
}

func benchStream(b *testing.B, peer net.Conn, carry func([]byte)) {
	p := make([]byte, 1<<20)
	b.SetBytes(1 << 20)
	b.ReportAllocs()
	start := cpu()
	for b.Loop() {
		carry(p)
	}
	b.ReportMetric(float64(cpu()-start)/float64(b.N), "cpu-ns/op")
}

// cpu is what this process has used, in nanoseconds.
func cpu() int64 {
	var ru unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &ru)
	return ru.Utime.Nano() + ru.Stime.Nano()
}

// Benchmark4K reads blocks: a request of 28 bytes, an answer of 16 + 4096, so many at a time.
func Benchmark4K(b *testing.B) {
	for _, how := range benchWays {
		for _, depth := range []int{1, 32} {
			b.Run(fmt.Sprintf("%s/depth=%d", how, depth), func(b *testing.B) {
				loop, peer := pumped(b, how)
				stand(loop, answer4K)
				bench4K(b, peer, depth)
			})
		}
	}
}

// answer4K answers all requests that one read brings with one write.
func answer4K(fd int) {
	in, out := make([]byte, 28*64), make([]byte, 64*(16+4096))
	for have := 0; ; {
		n, err := unix.Read(fd, in[have:])
		if n <= 0 || err != nil {
			return
		}
		have += n
		k := have / 28
		for w := out[:k*(16+4096)]; len(w) > 0; {
			n, err := unix.Write(fd, w)
			if err != nil {
				return
			}
			w = w[n:]
		}
		have = copy(in, in[k*28:have])
	}
}

func bench4K(b *testing.B, peer net.Conn, depth int) {
	req, rep := make([]byte, 28*depth), make([]byte, depth*(16+4096))
	b.ReportAllocs()
	start := cpu()
	// Half of the depth is on its way while the other half is read.
	half := max(1, depth/2)
	peer.Write(req[:28*(depth-half)])
	done := 0
	for b.Loop() {
		if done == 0 {
			peer.Write(req[:28*half])
			io.ReadFull(peer, rep[:half*(16+4096)])
			done = half
		}
		done--
		binary.LittleEndian.PutUint32(req, uint32(done))
	}
	b.ReportMetric(float64(cpu()-start)/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1000, "kIOPS")
}
