package wire

import (
	"bytes"
	"encoding/hex"
	"testing"

	"vstor/dataplane/errs"
)

func sample() (Header, []byte) {
	h := Header{Type: 21 | Reply, Flags: 0x0102, ID: 0x1122334455667788, Body: 5, Data: 4096, Arg: 9}
	b := append(make([]byte, HeaderSize), "hello"...)
	h.Seal(b)
	return h, b
}

const golden = "76735746" + "0195" + "0201" + "8877665544332211" + "05000000" + "00100000" + "09000000" +
	"47ef7ce0" + "68656c6c6f"

func TestGolden(t *testing.T) {
	h, b := sample()
	if got := hex.EncodeToString(b); got != golden {
		t.Fatalf("the format has changed:\n%s\nwant\n%s", got, golden)
	}
	var got Header
	if err := got.Decode(b); err != nil || got != h {
		t.Fatalf("%+v, %v", got, err)
	}
	before := bytes.Clone(b)
	if err := got.Verify(b); err != nil || !bytes.Equal(b, before) {
		t.Fatal(err)
	}
	if got.Kind() != errs.Exists {
		t.Error(got.Kind())
	}
}

// Every flipped bit of header and body is noticed.
func TestFlips(t *testing.T) {
	for bit := range (HeaderSize + 5) * 8 {
		_, b := sample()
		b[bit/8] ^= 1 << (bit % 8)
		var h Header
		err := h.Decode(b)
		if err == nil && int(h.Body) <= 5 {
			err = h.Verify(b)
		}
		if err == nil && h.Body > 5 {
			continue // more bytes would be waited for, and then fail
		}
		want := errs.Corrupt
		if bit/8 == 4 {
			want = errs.Version
		}
		if errs.Of(err) != want {
			t.Errorf("bit %d: %v", bit, err)
		}
	}
}

func TestBounds(t *testing.T) {
	for _, tc := range []struct {
		h  Header
		ok bool
	}{
		{Header{Data: DataMax}, true}, {Header{Data: DataMax + 1}, false}, {Header{Body: BodyMax}, true},
		{Header{Body: BodyMax + 1}, false}, {Header{Body: 1<<32 - 1}, false},
	} {
		b := make([]byte, 8192)
		body := tc.h.Body
		seal := tc.h
		seal.Body = min(body, 4096)
		seal.Seal(b)
		b[16], b[17], b[18], b[19] = byte(body), byte(body>>8), byte(body>>16), byte(body>>24)
		var h Header
		if err := h.Decode(b); (err == nil) != tc.ok {
			t.Errorf("%+v: %v", tc.h, err)
		}
	}
}

func TestCursor(t *testing.T) {
	c := NewCursor([]byte{1, 2, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 9, 8, 7})
	var two [2]byte
	if c.U8() != 1 || c.U16() != 2 || c.U32() != 3 || c.U64() != 4 || c.Left() != 3 {
		t.Error("wrong numbers")
	}
	if c.Copy(two[:]); two != [2]byte{9, 8} || c.Done() || !c.OK() {
		t.Error("wrong bytes")
	}
	if c.U8() != 7 || !c.Done() {
		t.Error("not done")
	}
	if c.U64() != 0 || c.U32() != 0 || c.U16() != 0 || c.U8() != 0 || c.OK() || c.Done() {
		t.Error("a read beyond the end went unnoticed")
	}
	c = NewCursor([]byte{1, 2})
	if c.Bytes(-1) != nil || c.OK() || c.Left() != 0 {
		t.Error("negative")
	}
	c = NewCursor([]byte{1, 2, 3})
	c.Bytes(2)
	if b := c.Bytes(1); cap(b) != 1 {
		t.Error("a part reaches into the next")
	}
}

func FuzzHeader(f *testing.F) {
	_, b := sample()
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < HeaderSize {
			return
		}
		var h Header
		if h.Decode(b) != nil || HeaderSize+int(h.Body) > len(b) || h.Verify(b) != nil {
			return
		}
		again := bytes.Clone(b)
		h.Seal(again)
		if !bytes.Equal(again, b) {
			t.Fatalf("sealed differently:\n%x\n%x", again, b)
		}
	})
}
