package tlsconn

import (
	"io"
	"net"
	"os"
	"testing"
	"time"

	"vstor/dataplane/tlsconn/tlstest"
)

// answering stands for crypto/tls: while it reads it writes an answer of its own, to a KeyUpdate.
type answering struct {
	net.Conn // a layer
	wrote    chan error
}

func (a *answering) NetConn() net.Conn { return a.Conn }

func (a *answering) Read(b []byte) (int, error) {
	n, err := a.Conn.Read(b)
	if n > 0 && b[0] == 'K' {
		_, werr := a.Conn.Write([]byte("k"))
		a.wrote <- werr
	}
	return n, err
}

// A deadline that passed during a silence is not the next writer's, who need not be the one that sends data.
func TestPumpAnswersAfterSilence(t *testing.T) {
	nc, peer := tlstest.Sockets(t)
	peer.SetDeadline(time.Now().Add(time.Minute))
	a := &answering{Layer(nc), make(chan error, 1)}
	fd, err := Pump(a)
	must(t, err)
	loop := os.NewFile(uintptr(fd), "loop")
	defer loop.Close()
	_, err = loop.WriteString("x")
	must(t, err)
	b := make([]byte, 1)
	_, err = io.ReadFull(peer, b)
	must(t, err)
	must(t, nc.SetWriteDeadline(time.Unix(1, 0))) // as long ago as a long silence makes it
	time.Sleep(1100 * time.Millisecond)
	_, err = peer.Write([]byte("K"))
	must(t, err)
	must(t, <-a.wrote)
	if _, err = io.ReadFull(peer, b); err != nil || b[0] != 'k' {
		t.Fatal(string(b), err)
	}
}
