package stamp

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"

	"vstor/bench/nbdc"
)

// memServer is an NBD server over a byte array that remembers, for each block, what it held before, so
// that a test can crash it into any state.
type memServer struct {
	mu      sync.Mutex
	data    []byte
	history map[int][][]byte // block -> what it held, oldest first, since keep
	dead    bool
	conns   []net.Conn
	l       net.Listener
	// beforeAck is asked after each request was applied; false: no answer, the connection ends.
	beforeAck func(cmd nbdc.Cmd) bool
}

func startServer(t *testing.T, blocks int) *memServer {
	t.Helper()
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	s := &memServer{data: make([]byte, blocks*BlockSize), history: map[int][][]byte{}, l: l}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, c)
			s.mu.Unlock()
			go s.serve(c)
		}
	}()
	t.Cleanup(func() { l.Close(); s.crash() })
	return s
}

func (s *memServer) dial() (*nbdc.Conn, error) {
	return nbdc.Dial("unix", s.l.Addr().String(), "x")
}

// crash cuts all connections; requests that come after change nothing.
func (s *memServer) crash() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead = true
	for _, c := range s.conns {
		c.Close()
	}
	s.conns = nil
}

func (s *memServer) restart() {
	s.mu.Lock()
	s.dead = false
	s.mu.Unlock()
}

func (s *memServer) serve(c net.Conn) {
	defer c.Close()
	b := binary.BigEndian.AppendUint64(nil, 0x4e42444d41474943)
	b = binary.BigEndian.AppendUint64(b, 0x49484156454f5054)
	b = binary.BigEndian.AppendUint16(b, 3)
	c.Write(b)
	head := make([]byte, 20)
	if _, err := io.ReadFull(c, head); err != nil {
		return
	}
	io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(head[16:])))
	b = optReply(nil, 3, binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint64([]byte{0, 0},
		uint64(len(s.data))), 0x16d))
	c.Write(optReply(b, 1, nil))
	req := make([]byte, 28)
	var payload []byte
	for {
		if _, err := io.ReadFull(c, req); err != nil {
			return
		}
		cmd := nbdc.Cmd(binary.BigEndian.Uint16(req[6:]))
		off, n := int(binary.BigEndian.Uint64(req[16:])), int(binary.BigEndian.Uint32(req[24:]))
		payload = append(payload[:0], make([]byte, n)...)
		if cmd == nbdc.CmdWrite {
			if _, err := io.ReadFull(c, payload); err != nil {
				return
			}
		}
		if cmd == nbdc.CmdDisc || !s.apply(cmd, off, payload) {
			return
		}
		out := binary.BigEndian.AppendUint32(nil, 0x67446698)
		out = append(binary.BigEndian.AppendUint32(out, 0), req[8:16]...)
		if cmd == nbdc.CmdRead {
			out = append(out, payload...)
		}
		c.Write(out)
	}
}

func optReply(b []byte, kind uint32, data []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, 0x3e889045565a9)
	b = binary.BigEndian.AppendUint32(b, 7)
	b = binary.BigEndian.AppendUint32(b, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

func (s *memServer) apply(cmd nbdc.Cmd, off int, p []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return false
	}
	switch cmd {
	case nbdc.CmdRead:
		copy(p, s.data[off:])
	case nbdc.CmdWrite, nbdc.CmdTrim, nbdc.CmdZeroes:
		for block := off / BlockSize; block*BlockSize < off+len(p); block++ {
			old := append([]byte{}, s.block(block)...)
			s.history[block] = append(s.history[block], old)
		}
		copy(s.data[off:], p) // p is zeros for all but writes
	}
	return s.beforeAck == nil || s.beforeAck(cmd)
}

func (s *memServer) block(i int) []byte { return s.data[i*BlockSize : (i+1)*BlockSize] }
