package tlstest

import (
	"net"
	"os"
	"testing"
	"time"
)

// patience is after how long a connection of a test that hangs fails it.
const patience = time.Minute

// Sockets are two ends of a TCP connection.
func Sockets(t testing.TB) (server, client net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	client, err = net.Dial("tcp", ln.Addr().String())
	must(t, err)
	server, err = ln.Accept()
	must(t, err)
	t.Cleanup(func() { client.Close(); server.Close() })
	for _, c := range []net.Conn{server, client} {
		must(t, c.SetDeadline(time.Now().Add(patience)))
	}
	return server, client
}

// Loop is a connection over the socket behind a pump, which is a loop's elsewhere. It owns fd.
func Loop(t testing.TB, fd int) net.Conn {
	t.Helper()
	f := os.NewFile(uintptr(fd), "loop")
	defer f.Close()
	loop, err := net.FileConn(f)
	must(t, err)
	must(t, loop.SetDeadline(time.Now().Add(patience)))
	t.Cleanup(func() { loop.Close() })
	return loop
}
