package load

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"vstor/dataplane/errs"
)

const (
	exportSize = 1 << 20
	block      = 4096
)

// server is an NBD server that answers at once, but for a pause; it looks at nothing but lengths.
type server struct {
	addr    string
	pauseAt int64 // the request before which it stands still, from 1; 0: none
	pause   time.Duration
	hangUp  int64 // the request that it answers by hanging up; 0: none
	asked   atomic.Int64
	written atomic.Int64
}

func (s *server) start(t *testing.T) *server {
	t.Helper()
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s.addr = l.Addr().String()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(c)
		}
	}()
	return s
}

// greet is the handshake: fixed newstyle, one option, which is taken for GO.
func greet(c net.Conn) error {
	b := append([]byte("NBDMAGICIHAVEOPT"), 0, 3)
	c.Write(b)
	head := make([]byte, 20)
	if _, err := io.ReadFull(c, head); err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(head[16:]))); err != nil {
		return err
	}
	answer := func(kind uint32, data []byte) {
		b := binary.BigEndian.AppendUint64(nil, 0x3e889045565a9)
		b = binary.BigEndian.AppendUint32(b, 7)
		b = binary.BigEndian.AppendUint32(b, kind)
		b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
		c.Write(append(b, data...))
	}
	info := binary.BigEndian.AppendUint64([]byte{0, 0}, exportSize)
	answer(3, append(info, 1, 1))
	answer(1, nil)
	return nil
}

func (s *server) serve(c net.Conn) {
	defer c.Close()
	if greet(c) != nil {
		return
	}
	head := make([]byte, 28)
	for {
		if _, err := io.ReadFull(c, head); err != nil {
			return
		}
		cmd, n := binary.BigEndian.Uint16(head[6:]), int64(binary.BigEndian.Uint32(head[24:]))
		if cmd == 2 {
			return
		}
		switch s.asked.Add(1) {
		case s.pauseAt:
			time.Sleep(s.pause)
		case s.hangUp:
			return
		}
		reply := binary.BigEndian.AppendUint32(nil, 0x67446698)
		reply = append(append(reply, 0, 0, 0, 0), head[8:16]...)
		if cmd == 1 {
			io.CopyN(io.Discard, c, n)
			s.written.Add(n)
		} else {
			reply = append(reply, make([]byte, n)...)
		}
		c.Write(reply)
	}
}

func (s *server) options(rate float64, d time.Duration) Options {
	return Options{Network: "unix", Addr: s.addr, Export: "x", Rate: rate, For: d, Block: block}
}

// A server that stands still for 400 ms of 1 s delays all who would have come meanwhile, by 200 ms in the mean, and
// not only those few that a closed loop has under way.
func TestPauseIsNotLeftOut(t *testing.T) {
	s := (&server{pauseAt: 200, pause: 400 * time.Millisecond}).start(t)
	o := s.options(1000, time.Second)
	o.InFlight = 8 // so few that the generator itself has to wait
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if n := r.Latency.TotalCount(); n != 1000 {
		t.Errorf("%d latencies of 1000 IOs", n)
	}
	late := 0
	for _, b := range r.Latency.Distribution() {
		if b.From > int64(20*time.Millisecond) {
			late += int(b.Count)
		}
	}
	if late < 300 {
		t.Errorf("%d of 1000 IOs took more than 20 ms, and 400 came while nothing was answered", late)
	}
	if most := time.Duration(r.Latency.Max()); most < 390*time.Millisecond || most > 5*time.Second {
		t.Errorf("the longest took %v", most)
	}
	if r.Late.Max() < int64(100*time.Millisecond) {
		t.Errorf("the generator says it was never later than %v", time.Duration(r.Late.Max()))
	}
}

// The rate is kept, over all connections, whatever is asked for.
func TestRate(t *testing.T) {
	s := (&server{}).start(t)
	o := s.options(2000, 2*time.Second)
	o.Conns, o.Write = 4, true
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if n := r.Latency.TotalCount(); n != 4000 || s.written.Load() != 4000*block {
		t.Errorf("%d IOs, %d bytes written", n, s.written.Load())
	}
	if r.Took < 1900*time.Millisecond || len(r.Series) != 2 || r.Series[0]+r.Series[1] > 4000 || r.Series[0] < 100 {
		t.Errorf("took %v: %v", r.Took, r.Series)
	}
}

func TestWhatCannotBe(t *testing.T) {
	s := (&server{hangUp: 20}).start(t)
	if _, err := Run(t.Context(), s.options(0, time.Second)); errs.Of(err) != errs.Invalid {
		t.Errorf("no rate: %v", err)
	}
	o := s.options(1000, time.Second)
	o.Block = 2 * exportSize
	if _, err := Run(t.Context(), o); errs.Of(err) != errs.Invalid {
		t.Errorf("blocks larger than the export: %v", err)
	}
	if _, err := Run(t.Context(), s.options(1000, time.Second)); errs.Of(err) != errs.Unreachable {
		t.Errorf("a server that hangs up: %v", err)
	}
	o.Addr = "/nowhere"
	if _, err := Run(t.Context(), o); errs.Of(err) != errs.Unreachable {
		t.Errorf("no server: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Run(ctx, (&server{}).start(t).options(100, time.Hour)); err == nil {
		t.Error("a run that was given up has a result")
	}
}
