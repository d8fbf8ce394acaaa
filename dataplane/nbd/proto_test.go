package nbd

import (
	"encoding/hex"
	"testing"

	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
)

func TestGoldenBytes(t *testing.T) {
	r := Request{Flags: FlagFUA, Type: CmdWrite, Cookie: 0x1122334455667788, Offset: 0x99aabbccddeeff00, Length: 4096}
	b := AppendRequest(nil, Structured, r)
	const want = "25609513" + "0001" + "0001" + "1122334455667788" + "99aabbccddeeff00" + "00001000"
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("request\n got %s\nwant %s", got, want)
	}
	if got, ok := ParseRequest(b); !ok || got != r {
		t.Errorf("parsed %v %v", got, ok)
	}
	b = make([]byte, ReplySize)
	PutReply(b, ENOSPC, 0x1122334455667788)
	if got := hex.EncodeToString(b); got != "67446698"+"0000001c"+"1122334455667788" {
		t.Errorf("reply %s", got)
	}
	if e, c, ok := ParseReply(b); e != ENOSPC || c != 0x1122334455667788 || !ok {
		t.Errorf("parsed %v %x %v", e, c, ok)
	}
}

func TestErrnoOf(t *testing.T) {
	for k, want := range map[errs.Kind]Errno{errs.OK: OK, errs.Full: ENOSPC, errs.IO: EIO, errs.Corrupt: EIO,
		errs.Unreachable: EIO, errs.Invalid: EINVAL, errs.Closed: ESHUTDOWN, errs.Refused: EPERM, errs.Unsupported: EINVAL,
		200: EIO} {
		if got, why := errnoOf(k, false); got != want || (why == whyNot) != (got == OK) {
			t.Errorf("%v: %v, want %v", k, got, want)
		}
	}
	if got, _ := errnoOf(errs.Unsupported, true); got != ENOTSUP {
		t.Errorf("a fast zero that is not fast: %v", got)
	}
}

func TestPieces(t *testing.T) {
	const limit = 1 << 20
	for _, off := range []int64{0, 1, 4095, 4096, limit - 1, limit, limit + 512} {
		for _, n := range []int64{1, 4096, limit, limit + 4096, limit + 4097, 32 << 20} {
			at, left, count := off, n, 0
			for left > 0 {
				p := pieceLen(at, left, limit)
				if p <= 0 || p > limit+buf.PageSize || p > left {
					t.Fatalf("a piece of %d of %d at %d", p, left, at)
				}
				if at += p; p < left && at%limit != 0 {
					t.Fatalf("a piece ends at %d", at)
				}
				left -= p
				count++
			}
			if count > int(n/limit)+2 {
				t.Fatalf("%d at %d: %d pieces", n, off, count)
			}
		}
	}
}

// FuzzRequest: a header that parses is written back to the same bytes, and what check lets through
// is safe to hand to a device.
func FuzzRequest(f *testing.F) {
	r := Request{Type: CmdWrite, Offset: 1 << 40, Length: 4096}
	for m := Simple; m <= Extended; m++ {
		f.Add(AppendRequest(nil, m, r), int64(1<<41), false, uint8(m), uint8(m))
	}
	f.Fuzz(func(t *testing.T, b []byte, size int64, ro bool, mode, contexts uint8) {
		rules := terms{size: size, readOnly: ro, mode: Mode(mode % 3), contexts: contextSet(contexts) & allContexts}
		parse := ParseRequest
		if rules.mode == Extended {
			parse = ParseExtendedRequest
		}
		r, ok := parse(b)
		if !ok {
			return
		}
		again := AppendRequest(nil, rules.mode, r)
		if hex.EncodeToString(again) != hex.EncodeToString(b[:len(again)]) {
			t.Fatalf("%x became %x", b[:len(again)], again)
		}
		if _ = r.String(); size < 0 {
			return
		}
		if e, why := rules.check(&r); e != OK || why != whyNot {
			if e == OK || why == whyNot || len(why.String()) == 0 || len(why.String()) > reasonMax {
				t.Fatalf("%v because %q", e, why)
			}
			return
		}
		if int64(r.Offset) < 0 || int64(r.Offset)+int64(r.Length) > size {
			t.Fatalf("%v passed on a device of %d", r, size)
		}
		if int(r.Type) >= len(ops) && r.Type != CmdDisc {
			t.Fatalf("%v passed", r)
		}
		if (r.Type == CmdRead || r.Type == CmdWrite) && r.Length > block.MaxRequest {
			t.Fatalf("%v passed", r)
		}
		if r.Type == CmdBlockStatus && rules.contexts == 0 {
			t.Fatalf("%v passed without a context", r)
		}
		if ro && (r.Type == CmdWrite || r.Type == CmdTrim || r.Type == CmdWriteZeroes) {
			t.Fatalf("%v passed read-only", r)
		}
	})
}
