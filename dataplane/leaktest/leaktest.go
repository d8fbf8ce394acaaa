// Package leaktest fails a test binary whose goroutines or descriptors outlive its tests.
package leaktest

import (
	"flag"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// patience is how long what is on its way out may take.
const patience = 5 * time.Second

// Main is a TestMain's body; it does not return. probe says what is missing here, as ring.Probe does: the tests run
// on what stands in for it, which is said; nil misses nothing.
func Main(m *testing.M, probe func() error) {
	if probe != nil {
		if err := probe(); err != nil {
			fmt.Println("NOTE: loops are plain:", err)
		}
	}
	if l, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		l.Close() // the runtime's own poller comes with it
	}
	fds, goroutines := descriptors(), runtime.NumGoroutine()
	code := m.Run()
	if f := flag.Lookup("test.fuzz"); f != nil && f.Value.String() != "" {
		os.Exit(code) // the fuzzer keeps goroutines of its own
	}
	for end := time.Now().Add(patience); code == 0; time.Sleep(10 * time.Millisecond) {
		left := descriptors()
		if runtime.NumGoroutine() <= goroutines && len(left) <= len(fds) {
			break
		}
		if time.Now().After(end) {
			b := make([]byte, 1<<16)
			fmt.Printf("leaked: descriptors before %v, after %v\n%s\n", fds, left, b[:runtime.Stack(b, true)])
			code = 1
		}
	}
	os.Exit(code)
}

func descriptors() (out []string) {
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.Contains(target, "/proc/") {
			out = append(out, e.Name()+" "+target)
		}
	}
	return out
}
