package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
)

// server plays an NBD server that says what it was given, and keeps what it is told.
type server struct {
	io.Reader
	heard bytes.Buffer
}

func (s *server) Write(b []byte) (int, error) { return s.heard.Write(b) }

func reply(kind uint32, data ...byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, magicReply)
	b = binary.BigEndian.AppendUint32(b, optionGo)
	b = binary.BigEndian.AppendUint32(b, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

func TestNegotiate(t *testing.T) {
	hello := []byte("NBDMAGICIHAVEOPT\x00\x03")
	size := []byte{0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1} // 4 GiB
	sizes := []byte{0, 3, 0, 0, 0, 1, 0, 0, 16, 0, 2, 0, 0, 0}
	for _, c := range []struct {
		name    string
		says    [][]byte
		size    uint64
		refused bool
		fails   string
	}{
		{"all well", [][]byte{hello, reply(kindFact, size...), reply(kindFact, sizes...), reply(kindAck)}, 4 << 30,
			false, ""},
		{"not there yet", [][]byte{hello, reply(kindUnknown, []byte("gone")...)}, 0, false, "gone"},
		{"wants TLS", [][]byte{hello, reply(1<<31|5, []byte("TLS")...)}, 0, true, "TLS"},
		{"no NBD", [][]byte{[]byte("HTTP/1.1 400 Bad Request\r\n\r\n")}, 0, true, "no NBD"},
		{"no NBD any more", [][]byte{hello, make([]byte, 20)}, 0, true, "no NBD"},
		{"a flood", [][]byte{hello, reply(kindFact, make([]byte, 1<<20)...)}, 0, true, "no NBD"},
		{"dies", [][]byte{hello, reply(kindAck)[:10]}, 0, false, "EOF"},
		{"dies at once", nil, 0, false, "EOF"},
	} {
		s := &server{Reader: bytes.NewReader(bytes.Join(c.says, nil))}
		size, err := negotiate(s, "db")
		if size != c.size || (err == nil) != (c.fails == "") || errors.Is(err, errRefused) != c.refused ||
			err != nil && !strings.Contains(err.Error(), c.fails) {
			t.Errorf("%s: %d, %v", c.name, size, err)
		}
		if want := "\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x07\x00\x00\x00\x08\x00\x00\x00\x02db\x00\x00"; c.fails == "" &&
			s.heard.String() != want {
			t.Errorf("%s: it says %q", c.name, s.heard.String())
		}
	}
}

// Attributes come back as they were put in; a list that is cut off or lies about its lengths ends early.
func TestAttributes(t *testing.T) {
	list := attribute(nil, 1, []byte{1, 2, 3})
	list = attribute(list, 7, attribute(nil, 9, []byte("x")))
	var got []uint16
	each(list, func(kind uint16, v []byte) {
		got = append(got, kind)
		if kind == 1 && !bytes.Equal(v, []byte{1, 2, 3}) {
			t.Errorf("value %v", v)
		}
		if kind == 7 {
			each(v, func(kind uint16, v []byte) { got = append(got, kind) })
		}
	})
	if len(got) != 3 || got[0] != 1 || got[1] != 7 || got[2] != 9 {
		t.Errorf("kinds %v", got)
	}
	for i := range list {
		each(list[:i], func(_ uint16, v []byte) {})
		for _, b := range []byte{0, 1, 0xff} {
			bad := bytes.Clone(list)
			bad[i] = b
			each(bad, func(_ uint16, v []byte) {})
		}
	}
}
