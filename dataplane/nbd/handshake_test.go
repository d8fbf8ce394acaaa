package nbd

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"

	"vstor/dataplane/block"
	"vstor/dataplane/errs"
	"vstor/dataplane/ring"
)

type fakeExports struct {
	list []ExportInfo
	fail error
	open int
	peer Peer // the last that asked
}

type fakeExport struct {
	info ExportInfo
	set  *fakeExports
}

func (e *fakeExport) Info() ExportInfo     { return e.info }
func (e *fakeExport) Loop() *ring.Loop     { return nil }
func (e *fakeExport) Device() block.Device { return nil }
func (e *fakeExport) Close()               { e.set.open-- }

func (x *fakeExports) List(Peer) []ExportInfo { return x.list }

func (x *fakeExports) Open(name string, p Peer) (Export, error) {
	x.peer = p
	if x.fail != nil {
		return nil, x.fail
	}
	for _, i := range x.list {
		if i.Name == name {
			x.open++
			return &fakeExport{i, x}, nil
		}
	}
	return nil, errs.New(errs.Absent, "there is no vDisk %q", name)
}

func newFakes() *fakeExports {
	return &fakeExports{list: []ExportInfo{
		{Name: "a", Description: "first", Size: 0x123000},
		{Name: "ro", Size: 4096, ReadOnly: true, Rotational: true},
	}}
}

func opt(o Option, data ...byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, optionMagic)
	b = binary.BigEndian.AppendUint32(b, uint32(o))
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

func infoData(name string, types ...uint16) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(name)))
	b = append(b, name...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(types)))
	for _, t := range types {
		b = binary.BigEndian.AppendUint16(b, t)
	}
	return b
}

func flags(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// cut splits an answer into the greeting and replies in words: "7:info(..) 7:ack 6:unknown".
func cut(t *testing.T, out []byte) (words []string, rest []byte) {
	t.Helper()
	if !bytes.HasPrefix(out, []byte("NBDMAGICIHAVEOPT\x00\x03")) {
		t.Fatalf("no greeting in %x", out)
	}
	out = out[greetingSize:]
	names := map[OptionReply]string{RepAck: "ack", RepServer: "server", RepInfo: "info", RepErrUnsup: "unsup",
		RepErrPolicy: "policy", RepErrInvalid: "invalid", RepErrPlatform: "platform", RepErrUnknown: "unknown",
		RepErrShutdown: "shutdown", RepErrTooBig: "toobig", RepErrTLSReqd: "tlsreqd", RepErrExtended: "extended",
		RepMetaContext: "meta"}
	for len(out) >= optionReplySize && binary.BigEndian.Uint64(out) == optionReplyMagic {
		o, rep := binary.BigEndian.Uint32(out[8:]), OptionReply(binary.BigEndian.Uint32(out[12:]))
		n := binary.BigEndian.Uint32(out[16:])
		data := out[optionReplySize:][:n]
		w := string(rune('0'+o)) + ":" + names[rep]
		if rep&repError != 0 {
			if len(data) == 0 || names[rep] == "" {
				t.Errorf("error reply %x without a sentence or a name", uint32(rep))
			}
		} else if n > 0 {
			w += "(" + hex.EncodeToString(data) + ")"
		}
		words = append(words, w)
		out = out[optionReplySize+n:]
	}
	return words, out
}

func TestHandshake(t *testing.T) {
	const exportA = "info(0000000000000012300" + "00d6d)" // size, HAS|FLUSH|FUA|TRIM|ZEROES|MULTI|CACHE|FAST
	const sizes = "info(0003000000010000100002000000)"
	cat := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	long := strings.Repeat("x", nameMax)
	for _, tc := range []struct {
		name string
		in   []byte
		want string // replies in words
		rest string // hex of what follows them
		open string // name of the export that came out
		err  error  // nil with an export; io.EOF where the input ended and the server wanted more
	}{
		{name: "go", in: cat(flags(3), opt(OptGo, infoData("a")...)), open: "a",
			want: "7:" + exportA + " 7:" + sizes + " 7:ack"},
		{name: "go, all infos", in: cat(flags(3), opt(OptGo, infoData("a", 0, 1, 2, 3, 77)...)), open: "a",
			want: "7:" + exportA + " 7:info(000161) 7:info(00026669727374) 7:" + sizes + " 7:ack"},
		{name: "read-only", in: cat(flags(1), opt(OptGo, infoData("ro")...)), open: "ro",
			want: "7:info(000000000000000010000" + "51f) 7:" + sizes + " 7:ack"},
		{name: "info, then go", in: cat(flags(3), opt(OptInfo, infoData("a")...), opt(OptGo, infoData("a")...)),
			open: "a", want: "6:" + exportA + " 6:" + sizes + " 6:ack 7:" + exportA + " 7:" + sizes + " 7:ack"},
		{name: "unknown, then abort", in: cat(flags(3), opt(OptGo, infoData("b")...), opt(OptAbort, 1, 2)),
			want: "7:unknown 2:ack", err: errAborted},
		{name: "no default", in: cat(flags(3), opt(OptGo, infoData("")...)), want: "7:unknown", err: io.EOF},
		{name: "list", in: cat(flags(3), opt(OptList)), err: io.EOF,
			want: "3:server(00000001616669727374) 3:server(00000002726f) 3:ack"},
		{name: "list with data", in: cat(flags(3), opt(OptList, 1)), want: "3:invalid", err: io.EOF},
		{name: "no tls, rubbish", err: io.EOF, want: "5:unsup <:unsup 4:unsup",
			in: cat(flags(3), opt(5), opt(12, 1, 2), opt(4))},
		{name: "export name", in: cat(flags(3), opt(OptExportName, 'a')), open: "a", rest: "00000000001230000d6d"},
		{name: "export name with zeros", in: cat(flags(1), opt(OptExportName, 'a')), open: "a",
			rest: "00000000001230000d6d" + strings.Repeat("00", 124)},
		{name: "export name of an old client", in: cat(flags(0), opt(OptExportName, 'a')), open: "a",
			rest: "00000000001230000d6d" + strings.Repeat("00", 124)},
		{name: "export name unknown", in: cat(flags(3), opt(OptExportName, 'b')), err: errs.Absent},
		{name: "old client asks more", in: cat(flags(0), opt(OptList)), err: errBadPeer},
		{name: "unknown client flag", in: cat(flags(4), opt(OptList)), err: errBadPeer},
		{name: "bad option magic", in: cat(flags(3), make([]byte, 16)), err: errBadPeer},
		{name: "short info", in: cat(flags(3), opt(OptInfo, 0, 0, 0, 0, 0)), want: "6:invalid", err: io.EOF},
		{name: "info name beyond data", in: cat(flags(3), opt(OptInfo, 0, 0, 0, 9, 'a', 'b', 0, 0)),
			want: "6:invalid", err: io.EOF},
		{name: "info count beyond data", in: cat(flags(3), opt(OptInfo, 0, 0, 0, 1, 'a', 0, 2, 0, 0)),
			want: "6:invalid", err: io.EOF},
		{name: "longest name", in: cat(flags(3), opt(OptGo, infoData(long)...)), want: "7:unknown", err: io.EOF},
		{name: "name too long", in: cat(flags(3), opt(OptGo, infoData(long+"x")...)), want: "7:invalid", err: io.EOF},
		{name: "export name too long", in: cat(flags(3), opt(OptExportName, []byte(long+"x")...)),
			err: errBadPeer},
		{name: "too big, then go", open: "a", want: "6:toobig 7:" + exportA + " 7:" + sizes + " 7:ack",
			in: cat(flags(3), opt(OptInfo, make([]byte, optionMax+1)...), opt(OptGo, infoData("a")...))},
		{name: "big abort", in: cat(flags(3), opt(OptAbort, make([]byte, optionMax+1)...)),
			want: "2:ack", err: errAborted},
		{name: "far too big", in: cat(flags(3), opt(99)[:12], flags(optionSkipMax+1)), err: errBadPeer},
		{name: "silence", in: nil, err: io.EOF},
		{name: "half flags", in: []byte{0, 0}, err: io.ErrUnexpectedEOF},
		{name: "half option", in: cat(flags(3), opt(OptGo)[:9]), err: io.ErrUnexpectedEOF},
	} {
		t.Run(tc.name, func(t *testing.T) {
			x := newFakes()
			var out bytes.Buffer
			in := bytes.NewReader(append(tc.in, "behind"...)) // the handshake must not read ahead
			if tc.err != nil && tc.err != errAborted {
				in = bytes.NewReader(tc.in)
			}
			h := &handshake{rw: struct {
				io.Reader
				io.Writer
			}{in, &out}, exports: x, closing: func() bool { return false }}
			exp, err := h.run()
			words, rest := cut(t, out.Bytes())
			if got := strings.Join(words, " "); got != tc.want {
				t.Errorf("replies\n got %s\nwant %s", got, tc.want)
			}
			if got := hex.EncodeToString(rest); got != tc.rest {
				t.Errorf("rest\n got %s\nwant %s", got, tc.rest)
			}
			if !errors.Is(err, tc.err) {
				t.Errorf("error %v, want %v", err, tc.err)
			}
			if (exp != nil) != (tc.open != "") || exp != nil && exp.Info().Name != tc.open {
				t.Errorf("export %v, want %q", exp, tc.open)
			}
			if exp != nil {
				exp.Close()
				if in.Len() != len("behind") {
					t.Errorf("%d bytes are left behind the handshake", in.Len())
				}
			}
			if x.open != 0 {
				t.Errorf("%d exports left open", x.open)
			}
		})
	}
}

func TestHandshakeRefusals(t *testing.T) {
	for kind, want := range map[errs.Kind]string{errs.Absent: "unknown", errs.Busy: "policy", errs.Refused: "policy",
		errs.Closed: "shutdown", errs.Unsupported: "platform", errs.IO: "unknown"} {
		x := newFakes()
		x.fail = errs.New(kind, "no")
		var out bytes.Buffer
		h := &handshake{rw: struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(append(flags(3), opt(OptGo, infoData("a")...)...)), &out}, exports: x,
			closing: func() bool { return false }}
		h.run()
		if words, _ := cut(t, out.Bytes()); len(words) != 1 || words[0] != "7:"+want {
			t.Errorf("%v: %v", kind, words)
		}
		if !bytes.HasSuffix(out.Bytes(), []byte("no")) {
			t.Errorf("%v: the sentence is missing in %q", kind, out.Bytes())
		}
	}
}

func TestHandshakeWhileClosing(t *testing.T) {
	in := append(flags(3), opt(OptGo, infoData("a")...)...)
	in = append(in, opt(OptAbort)...)
	var out bytes.Buffer
	h := &handshake{rw: struct {
		io.Reader
		io.Writer
	}{bytes.NewReader(in), &out}, exports: newFakes(), closing: func() bool { return true }}
	exp, err := h.run()
	if words, _ := cut(t, out.Bytes()); strings.Join(words, " ") != "7:shutdown 2:ack" || exp != nil || err != errAborted {
		t.Errorf("%v %v %v", words, exp, err)
	}
}

// A client that never gets to the point is sent away.
func TestTooManyOptions(t *testing.T) {
	in := flags(3)
	for range optionsMax + 1 {
		in = append(in, opt(OptList)...)
	}
	h := &handshake{rw: struct {
		io.Reader
		io.Writer
	}{bytes.NewReader(in), io.Discard}, exports: newFakes(), closing: func() bool { return false }}
	if exp, err := h.run(); exp != nil || !errors.Is(err, errBadPeer) {
		t.Errorf("%d options: %v", optionsMax+1, err)
	}
}

// FuzzHandshake: whatever a client says, in the clear and, from STARTTLS on, protected, the server neither
// panics nor hangs, answers in whole replies, leaves no export open and gives none without the TLS it requires.
func FuzzHandshake(f *testing.F) {
	add := func(force bool, after []byte, opts ...[]byte) {
		f.Add(append(flags(3), bytes.Join(opts, nil)...), after, force)
	}
	goOn := opt(OptGo, infoData("a", 0, 1, 2, 3)...)
	set := opt(OptSetMeta, metaData("a", "base:allocation", "qemu:", "x-y:z")...)
	add(false, nil, goOn)
	f.Add(append(flags(1), opt(OptExportName, 'a')...), []byte{}, false)
	add(false, nil, opt(OptList), opt(OptAbort))
	add(false, nil, opt(OptStructured), opt(OptInfo, infoData("ro", 1, 2)...), set, goOn)
	add(false, nil, opt(OptExtendedHeaders), set, opt(OptListMeta, metaData("a", "base:")...), goOn)
	add(false, nil, opt(OptExtendedHeaders), opt(OptStructured), opt(OptExportName, 'a'))
	add(false, nil, opt(OptInfo, make([]byte, optionMax+1)...), goOn)
	add(true, goOn, opt(OptList), opt(OptStartTLS), goOn)
	add(true, append(opt(OptStartTLS), opt(OptExportName, 'a')...), opt(OptStartTLS))
	f.Fuzz(func(t *testing.T, in, after []byte, force bool) {
		x := newFakes()
		h := &handshake{exports: x, forceTLS: force}
		_, rest, exp, err := shake(t, h, script{before: in, after: after, tls: force || len(after) > 0})
		if (exp == nil) == (err == nil) {
			t.Fatalf("export %v and error %v", exp, err)
		}
		if exp != nil {
			if force && !x.peer.TLS {
				t.Fatal("an export without TLS")
			}
			if n := len(rest); n != 0 && h.agreed.mode == Extended {
				t.Fatal("EXPORT_NAME under extended headers")
			}
			if c := h.agreed.terms(exp.Info()); c.contexts != 0 && c.mode == Simple {
				t.Fatalf("%+v", c)
			}
			exp.Close()
		}
		if x.open != 0 {
			t.Fatalf("%d exports left open", x.open)
		}
		if len(rest) != 0 && len(rest) != 10 && len(rest) != 134 {
			t.Fatalf("%d bytes that are no reply", len(rest))
		}
	})
}
