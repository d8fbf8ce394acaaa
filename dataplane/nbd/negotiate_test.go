package nbd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"vstor/dataplane/errs"
	"vstor/dataplane/tlsconn"
)

func metaData(name string, queries ...string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(name)))
	b = append(b, name...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(queries)))
	for _, q := range queries {
		b = binary.BigEndian.AppendUint32(b, uint32(len(q)))
		b = append(b, q...)
	}
	return b
}

// script is what a client sends, piece by piece; the pieces after a "tls" one are read from the second
// stream.
type script struct {
	before, after []byte
	tls           bool
}

// shake runs a handshake over a script and gives its replies in words.
func shake(t *testing.T, h *handshake, s script) (words []string, rest []byte, exp Export, err error) {
	t.Helper()
	type stream struct {
		io.Reader
		io.Writer
	}
	var out bytes.Buffer
	plain := bytes.NewReader(s.before)
	h.rw = stream{plain, &out}
	if s.tls {
		h.startTLS = func() (io.ReadWriter, tlsconn.Identity, error) {
			if s.after == nil {
				return nil, tlsconn.Identity{}, errs.New(errs.Refused, "no certificate")
			}
			return stream{bytes.NewReader(s.after), &out}, tlsconn.Identity{Names: []string{"alice"}}, nil
		}
	}
	if h.exports == nil {
		h.exports = newFakes()
	}
	if h.closing == nil {
		h.closing = func() bool { return false }
	}
	exp, err = h.run()
	words, rest = cut(t, out.Bytes())
	for i, w := range words { // the data is judged elsewhere
		if w, _, ok := strings.Cut(w, "("); ok {
			words[i] = w
		}
	}
	return words, rest, exp, err
}

// TestNegotiation is the protocol text about the order of options, as a table.
func TestNegotiation(t *testing.T) {
	alloc, depth := "base:allocation", "qemu:allocation-depth"
	set := func(name string, q ...string) []byte { return opt(OptSetMeta, metaData(name, q...)...) }
	list := func(name string, q ...string) []byte { return opt(OptListMeta, metaData(name, q...)...) }
	goOn := opt(OptGo, infoData("a")...)
	const gone = " 7:info 7:info 7:ack"
	structured, extended := opt(OptStructured), opt(OptExtendedHeaders)
	for _, tc := range []struct {
		name     string
		in       [][]byte
		want     string
		mode     Mode
		contexts contextSet
		err      error
	}{
		{name: "structured", in: [][]byte{structured, goOn}, want: "8:ack" + gone, mode: Structured},
		{name: "structured twice", in: [][]byte{structured, structured, goOn}, want: "8:ack 8:invalid" + gone,
			mode: Structured},
		{name: "structured with data", in: [][]byte{opt(OptStructured, 1), goOn}, want: "8:invalid" + gone},
		{name: "extended", in: [][]byte{extended, goOn}, want: ";:ack" + gone, mode: Extended},
		{name: "extended with data", in: [][]byte{opt(OptExtendedHeaders, 1, 2), goOn}, want: ";:invalid" + gone},
		{name: "extended twice", in: [][]byte{extended, extended, goOn}, want: ";:ack ;:invalid" + gone, mode: Extended},
		{name: "structured, then extended", in: [][]byte{structured, extended, goOn}, want: "8:ack ;:ack" + gone,
			mode: Extended},
		{name: "extended, then structured", in: [][]byte{extended, structured, goOn}, want: ";:ack 8:extended" + gone,
			mode: Extended},
		{name: "export name after extended", in: [][]byte{extended, opt(OptExportName, 'a')}, want: ";:ack",
			err: errBadPeer},

		{name: "set too early", in: [][]byte{set("a", alloc), structured, goOn}, want: "::invalid 8:ack" + gone,
			mode: Structured},
		{name: "list too early", in: [][]byte{list("a")}, want: "9:invalid", err: io.EOF},
		{name: "set", in: [][]byte{structured, set("a", alloc), goOn}, want: "8:ack ::meta ::ack" + gone,
			mode: Structured, contexts: 1},
		{name: "set under extended", in: [][]byte{extended, set("a", depth, alloc), goOn},
			want: ";:ack ::meta ::meta ::ack" + gone, mode: Extended, contexts: 3},
		{name: "set before extended", in: [][]byte{structured, set("a", alloc), extended, goOn},
			want: "8:ack ::meta ::ack ;:ack" + gone, mode: Extended, contexts: 1},
		{name: "one twice", in: [][]byte{structured, set("a", alloc, alloc), goOn}, want: "8:ack ::meta ::ack" + gone,
			mode: Structured, contexts: 1},
		{name: "set of nothing", in: [][]byte{structured, set("a", alloc), set("a"), goOn},
			want: "8:ack ::meta ::ack ::ack" + gone, mode: Structured},
		{name: "set of wildcards and strangers", in: [][]byte{structured,
			set("a", "base:", "base:nonsense", "x-other:thing", "qemu:dirty-bitmap:b", "qemu:"), goOn},
			want: "8:ack ::ack" + gone, mode: Structured},
		{name: "set replaces", in: [][]byte{structured, set("a", alloc), set("a", depth), goOn},
			want: "8:ack ::meta ::ack ::meta ::ack" + gone, mode: Structured, contexts: 2},
		{name: "a set that fails replaces too", in: [][]byte{structured, set("a", alloc), set("a", "nocolon"), goOn},
			want: "8:ack ::meta ::ack ::invalid" + gone, mode: Structured},
		{name: "a set of an unknown export replaces too", in: [][]byte{structured, set("a", alloc), set("b", alloc), goOn},
			want: "8:ack ::meta ::ack ::unknown" + gone, mode: Structured},
		{name: "a set that is too big replaces too", in: [][]byte{structured, set("a", alloc),
			opt(OptSetMeta, make([]byte, optionMax+1)...), goOn}, want: "8:ack ::meta ::ack ::toobig" + gone,
			mode: Structured},
		{name: "set for another export", in: [][]byte{structured, set("ro", alloc), goOn},
			want: "8:ack ::meta ::ack" + gone, mode: Structured},
		{name: "export name after set", in: [][]byte{structured, set("a", alloc), opt(OptExportName, 'a')},
			want: "8:ack ::meta ::ack", mode: Structured, contexts: 1},
		{name: "export name after set for another", in: [][]byte{structured, set("ro", alloc), opt(OptExportName, 'a')},
			want: "8:ack ::meta ::ack", mode: Structured},
		{name: "another info between", in: [][]byte{structured, set("a", alloc), opt(OptInfo, infoData("ro")...), goOn},
			want: "8:ack ::meta ::ack 6:info 6:info 6:ack" + gone, mode: Structured, contexts: 1},

		{name: "list all", in: [][]byte{structured, list("a")}, want: "8:ack 9:meta 9:meta 9:ack", err: io.EOF},
		{name: "list wildcard", in: [][]byte{structured, list("a", "base:")}, want: "8:ack 9:meta 9:ack", err: io.EOF},
		{name: "list names", in: [][]byte{structured, list("a", depth, "qemu:", "x-y:")}, want: "8:ack 9:meta 9:ack",
			err: io.EOF},
		{name: "list strangers", in: [][]byte{structured, list("a", "x-y:z", "bas:", "base:alloc")}, want: "8:ack 9:ack",
			err: io.EOF},
		{name: "list keeps what is set", in: [][]byte{structured, set("a", alloc), list("ro", "nocolon"), goOn},
			want: "8:ack ::meta ::ack 9:invalid" + gone, mode: Structured, contexts: 1},
		{name: "list of an unknown export", in: [][]byte{structured, list("b")}, want: "8:ack 9:unknown", err: io.EOF},
		{name: "empty namespace", in: [][]byte{structured, list("a", ":x")}, want: "8:ack 9:invalid", err: io.EOF},
		{name: "empty query", in: [][]byte{structured, list("a", "")}, want: "8:ack 9:invalid", err: io.EOF},
		{name: "zero byte", in: [][]byte{structured, list("a\x00")}, want: "8:ack 9:invalid", err: io.EOF},
		{name: "query beyond data", in: [][]byte{structured, opt(OptListMeta, metaData("a", alloc)[:20]...)},
			want: "8:ack 9:invalid", err: io.EOF},
		{name: "count beyond data", in: [][]byte{structured, opt(OptListMeta, 0, 0, 0, 1, 'a', 255, 0, 0, 0)},
			want: "8:ack 9:invalid", err: io.EOF},
		{name: "data behind the queries", in: [][]byte{structured, opt(OptListMeta, append(metaData("a"), 1)...)},
			want: "8:ack 9:invalid", err: io.EOF},
		{name: "no count", in: [][]byte{structured, opt(OptListMeta, 0, 0, 0, 1, 'a', 0)},
			want: "8:ack 9:invalid", err: io.EOF},
		{name: "no name", in: [][]byte{structured, opt(OptListMeta, 0, 0)}, want: "8:ack 9:invalid", err: io.EOF},
		{name: "longest name and query", in: [][]byte{structured,
			list(strings.Repeat("x", nameMax), "x:"+strings.Repeat("y", nameMax-2))}, want: "8:ack 9:unknown", err: io.EOF},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := &handshake{}
			words, _, exp, err := shake(t, h, script{before: append(flags(3), bytes.Join(tc.in, nil)...)})
			if got := strings.Join(words, " "); got != tc.want {
				t.Errorf("replies\n got %s\nwant %s", got, tc.want)
			}
			if !errors.Is(err, tc.err) || (exp != nil) != (tc.err == nil) {
				t.Fatalf("export %v, error %v, want %v", exp, err, tc.err)
			}
			if exp == nil {
				return
			}
			got := h.agreed.terms(exp.Info())
			if want := (terms{size: 0x123000, mode: tc.mode, contexts: tc.contexts}); got != want {
				t.Errorf("agreed on %+v, want %+v", got, want)
			}
			exp.Close()
		})
	}
}

// TestTransmissionFlags: what an export shows under what was agreed.
func TestTransmissionFlags(t *testing.T) {
	const always = TransHasFlags | TransSendFlush | TransSendFUA | TransCanMultiConn | TransSendCache
	const writes = TransSendTrim | TransSendWriteZeroes | TransSendFastZero
	for _, tc := range []struct {
		info     ExportInfo
		mode     Mode
		contexts contextSet
		want     uint16
	}{
		{want: always | writes},
		{info: ExportInfo{ReadOnly: true}, want: always | TransReadOnly},
		{info: ExportInfo{Rotational: true}, want: always | writes | TransRotational},
		{mode: Structured, contexts: 1, want: always | writes | TransSendDF},
		{mode: Extended, want: always | writes | TransSendDF},
		{mode: Extended, contexts: 1, want: always | writes | TransSendDF | TransStatusPayload},
	} {
		if got := transmissionFlags(tc.info, tc.mode, tc.contexts); got != tc.want {
			t.Errorf("%+v: %#x, want %#x", tc, got, tc.want)
		}
	}
}

// TestStartTLS is the protocol text about TLS, as a table. The fake TLS is a second stream: what of the first
// stands behind STARTTLS must never be looked at.
func TestStartTLS(t *testing.T) {
	cat := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	goOn := opt(OptGo, infoData("a")...)
	set := opt(OptSetMeta, metaData("a", "base:allocation")...)
	const gone = "7:info 7:info 7:ack"
	for _, tc := range []struct {
		name   string
		script script
		force  bool
		want   string
		mode   Mode
		tls    bool
		err    error
	}{
		{name: "no TLS here", script: script{before: cat(opt(OptStartTLS), goOn)}, want: "5:unsup " + gone},
		{name: "TLS", script: script{before: opt(OptStartTLS), tls: true, after: goOn}, want: "5:ack " + gone, tls: true},
		{name: "not wanted", script: script{before: goOn, tls: true}, want: gone},
		{name: "with data", script: script{before: cat(opt(OptStartTLS, 0), goOn), tls: true}, want: "5:invalid " + gone},
		{name: "twice", script: script{before: opt(OptStartTLS), tls: true, after: cat(opt(OptStartTLS), goOn)},
			want: "5:ack 5:invalid " + gone, tls: true},
		{name: "refused", script: script{before: opt(OptStartTLS), tls: true}, want: "5:ack", err: errs.Refused},
		{name: "injected", script: script{before: cat(opt(OptStartTLS), opt(OptStructured), goOn), tls: true,
			after: goOn}, want: "5:ack " + gone, tls: true},
		{name: "state is forgotten", script: script{before: cat(opt(OptStructured), set, opt(OptStartTLS)), tls: true,
			after: goOn}, want: "8:ack ::meta ::ack 5:ack " + gone, tls: true},
		{name: "extended is forgotten", script: script{before: cat(opt(OptExtendedHeaders), opt(OptStartTLS)), tls: true,
			after: cat(opt(OptStructured), goOn)}, want: ";:ack 5:ack 8:ack " + gone, mode: Structured, tls: true},

		{name: "required", force: true, script: script{before: cat(goOn, opt(OptList), opt(OptStructured), opt(77),
			opt(OptInfo, make([]byte, optionMax+5)...), opt(OptStartTLS)), tls: true, after: goOn},
			want: "7:tlsreqd 3:tlsreqd 8:tlsreqd }:tlsreqd 6:tlsreqd 5:ack " + gone, tls: true},
		{name: "required, abort", force: true, script: script{before: opt(OptAbort), tls: true}, want: "2:ack",
			err: errAborted},
		{name: "required, export name", force: true, script: script{before: opt(OptExportName, 'a'), tls: true},
			err: errs.Refused},
		{name: "required, export name later", force: true, script: script{before: opt(OptStartTLS), tls: true,
			after: opt(OptExportName, 'a')}, want: "5:ack", tls: true},
		{name: "required, hostile length", force: true, script: script{
			before: cat(opt(OptGo)[:12], flags(optionSkipMax+1)), tls: true}, err: errBadPeer},
	} {
		t.Run(tc.name, func(t *testing.T) {
			x := newFakes()
			h := &handshake{forceTLS: tc.force, exports: x}
			tc.script.before = cat(flags(3), tc.script.before)
			words, _, exp, err := shake(t, h, tc.script)
			if got := strings.Join(words, " "); got != tc.want {
				t.Errorf("replies\n got %s\nwant %s", got, tc.want)
			}
			if !errors.Is(err, tc.err) || (exp != nil) != (tc.err == nil) {
				t.Fatalf("export %v, error %v, want %v", exp, err, tc.err)
			}
			if exp == nil {
				return
			}
			if h.agreed.mode != tc.mode || h.agreed.contexts != 0 {
				t.Errorf("agreed on %+v", h.agreed)
			}
			if tc.tls != x.peer.TLS || tc.tls != (len(x.peer.ID.Names) == 1) {
				t.Errorf("the export was opened by %+v", x.peer)
			}
			exp.Close()
		})
	}
}
