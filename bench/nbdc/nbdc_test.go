package nbdc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"vstor/dataplane/errs"
)

// Against a server that others wrote.
func TestAgainstNbdkit(t *testing.T) {
	if _, err := exec.LookPath("nbdkit"); err != nil {
		t.Skip("SKIPPED: nbdkit is not installed")
	}
	sock := filepath.Join(t.TempDir(), "s")
	cmd := exec.Command("nbdkit", "-f", "-U", sock, "memory", "16M")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	for i := 0; ; i++ {
		if _, err := os.Stat(sock); err == nil {
			break
		}
		if i == 6000 {
			t.Fatal("nbdkit does not start")
		}
		time.Sleep(10 * time.Millisecond)
	}
	c, err := Dial("unix", sock, "any")
	if err != nil {
		t.Fatal(err)
	}
	want := uint16(CanFlush | CanTrim | CanZeroes | CanMultiConn)
	if c.Size != 16<<20 || c.Flags&want != want {
		t.Errorf("size %d flags %x", c.Size, c.Flags)
	}
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			p := bytes.Repeat([]byte{byte(i + 1)}, 10000)
			got := make([]byte, len(p))
			off := int64(i) * 20000
			if err := errors.Join(c.Write(p, off, FlagFUA), c.Read(got, off), c.Flush()); err != nil || !bytes.Equal(p, got) {
				t.Errorf("request %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	got := make([]byte, 20000)
	err = errors.Join(c.Trim(0, 20000, 0), c.WriteZeroes(20000, 20000, 0), c.Read(got, 20000))
	if err != nil || !bytes.Equal(got, make([]byte, 20000)) {
		t.Errorf("zeroes: %v", err)
	}
	var e Errno
	if err := c.Read(got, 16<<20); !errors.As(err, &e) {
		t.Errorf("a read beyond the end: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Flush(); errs.Of(err) != errs.Unreachable {
		t.Errorf("after Close: %v", err)
	}
}

// What a broken server may send ends in an error, not in a hang.
func TestBrokenServers(t *testing.T) {
	hello := binary.BigEndian.AppendUint64(nil, magicServer)
	hello = binary.BigEndian.AppendUint64(hello, magicOption)
	hello = append(hello, 0, 3)
	reply := func(kind uint32, n int) []byte {
		b := binary.BigEndian.AppendUint64(nil, magicReply)
		b = binary.BigEndian.AppendUint32(b, optGo)
		b = binary.BigEndian.AppendUint32(b, kind)
		return append(binary.BigEndian.AppendUint32(b, uint32(n)), make([]byte, min(n, 100))...)
	}
	simple := func(cookie byte) []byte {
		b := binary.BigEndian.AppendUint32(nil, magicSimple)
		return append(b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, cookie)
	}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for name, c := range map[string]struct {
		sends []byte
		says  string
	}{
		"silence":         {nil, "no greeting"},
		"not NBD":         {bytes.Repeat([]byte("x"), 18), "not newstyle"},
		"not fixed":       {append(append([]byte{}, hello[:16]...), 0, 0), "not fixed"},
		"cut handshake":   {hello, "the handshake broke"},
		"garbage reply":   {join(hello, bytes.Repeat([]byte("y"), 20)), "not an option reply"},
		"endless reply":   {join(hello, reply(repInfo, 1<<30)), "not an option reply"},
		"refused":         {join(hello, reply(1<<31|6, 5)), "was refused"},
		"garbage later":   {join(hello, reply(repAck, 0), bytes.Repeat([]byte("z"), 16)), "not a simple reply"},
		"unknown cookie":  {join(hello, reply(repAck, 0), simple(77)), "nothing waits for"},
		"half a reply":    {join(hello, reply(repAck, 0), simple(1)[:9]), "connection is lost"},
		"half the data":   {join(hello, reply(repAck, 0), simple(1), make([]byte, 100)), "connection is lost"},
		"odd information": {join(hello, reply(repInfo, 1), reply(repInfo, 5), reply(repAck, 0)), "connection is lost"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				nc, err := l.Accept()
				if err != nil {
					return
				}
				defer nc.Close()
				// Wait for a request before answering one; the handshake's bytes may all come at once.
				if i := bytes.Index(c.sends, reply(repAck, 0)); i >= 0 {
					nc.Write(c.sends[:i+20])
					io.ReadFull(nc, make([]byte, 4+16+len("x")+8+28))
					nc.Write(c.sends[i+20:])
					return
				}
				nc.Write(c.sends)
				if len(c.sends) > 18 {
					io.ReadFull(nc, make([]byte, 20))
				}
			}()
			conn, err := Dial("unix", l.Addr().String(), "x")
			if err == nil {
				err = conn.Read(make([]byte, 4096), 0)
				conn.Abort()
			}
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v; want %q", err, c.says)
			}
		})
	}
}
