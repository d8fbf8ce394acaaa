package nbd

import (
	"encoding/hex"
	"math"
	"testing"

	"vstor/dataplane/block"
	"vstor/dataplane/buf"
	"vstor/dataplane/errs"
)

func TestGoldenBytes(t *testing.T) {
	r := Request{Flags: FlagFUA, Type: CmdWrite, Cookie: 0x1122334455667788, Offset: 0x99aabbccddeeff00, Length: 4096}
	b := make([]byte, RequestSize)
	PutRequest(b, r)
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

func TestCheck(t *testing.T) {
	const size = 1 << 30
	for _, tc := range []struct {
		req  Request
		ro   bool
		want Errno
	}{
		{req: Request{Type: CmdRead, Length: 1}},
		{req: Request{Type: CmdRead, Offset: size - 1, Length: 1}},
		{req: Request{Type: CmdRead, Offset: size, Length: 0}},
		{req: Request{Type: CmdRead, Offset: size, Length: 1}, want: EINVAL},
		{req: Request{Type: CmdRead, Offset: math.MaxUint64, Length: 1}, want: EINVAL},
		{req: Request{Type: CmdRead, Offset: 1 << 63, Length: 1}, want: EINVAL},
		{req: Request{Type: CmdRead, Length: block.MaxRequest}},
		{req: Request{Type: CmdRead, Length: block.MaxRequest + 1}, want: EINVAL},
		{req: Request{Type: CmdRead, Flags: FlagFUA, Length: 1}},
		{req: Request{Type: CmdRead, Flags: FlagDF, Length: 1}, want: EINVAL},
		{req: Request{Type: CmdRead, Length: 1}, ro: true},
		{req: Request{Type: CmdWrite, Length: block.MaxRequest}},
		{req: Request{Type: CmdWrite, Length: block.MaxRequest + 1}, want: EINVAL},
		{req: Request{Type: CmdWrite, Offset: size - 1, Length: 2}, want: ENOSPC},
		{req: Request{Type: CmdWrite, Flags: FlagFUA, Length: 1}},
		{req: Request{Type: CmdWrite, Flags: FlagNoHole, Length: 1}, want: EINVAL},
		{req: Request{Type: CmdWrite, Length: 1}, ro: true, want: EPERM},
		{req: Request{Type: CmdFlush}},
		{req: Request{Type: CmdFlush, Flags: FlagFUA}},
		{req: Request{Type: CmdFlush}, ro: true},
		{req: Request{Type: CmdFlush, Length: 1}, want: EINVAL},
		{req: Request{Type: CmdFlush, Offset: 1}, want: EINVAL},
		{req: Request{Type: CmdTrim, Length: size}},
		{req: Request{Type: CmdTrim, Length: size, Offset: 1}, want: EINVAL},
		{req: Request{Type: CmdTrim, Length: 1}, ro: true, want: EPERM},
		{req: Request{Type: CmdWriteZeroes, Flags: FlagFUA | FlagNoHole, Length: size}},
		{req: Request{Type: CmdWriteZeroes, Flags: FlagFastZero, Length: 1}, want: EINVAL},
		{req: Request{Type: CmdWriteZeroes, Offset: 1, Length: size}, want: ENOSPC},
		{req: Request{Type: CmdWriteZeroes, Length: 1}, ro: true, want: EPERM},
		{req: Request{Type: CmdCache, Length: 1}, want: EINVAL},
		{req: Request{Type: CmdBlockStatus, Length: 1}, want: EINVAL},
		{req: Request{Type: 999, Length: 1}, want: EINVAL},
	} {
		if got := check(tc.req, size, tc.ro); got != tc.want {
			t.Errorf("%v read-only %v: %v, want %v", tc.req, tc.ro, got, tc.want)
		}
	}
}

func TestErrnoOf(t *testing.T) {
	for k, want := range map[errs.Kind]Errno{errs.OK: OK, errs.Full: ENOSPC, errs.IO: EIO, errs.Corrupt: EIO,
		errs.Unreachable: EIO, errs.Invalid: EINVAL, errs.Closed: ESHUTDOWN, errs.Refused: EPERM, 200: EIO} {
		if got := errnoOf(k); got != want {
			t.Errorf("%v: %v, want %v", k, got, want)
		}
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
	b := make([]byte, RequestSize)
	PutRequest(b, Request{Type: CmdWrite, Offset: 1 << 40, Length: 4096})
	f.Add(b, int64(1<<41), false)
	f.Fuzz(func(t *testing.T, b []byte, size int64, ro bool) {
		r, ok := ParseRequest(b)
		if !ok {
			return
		}
		again := make([]byte, RequestSize)
		if PutRequest(again, r); hex.EncodeToString(again) != hex.EncodeToString(b[:RequestSize]) {
			t.Fatalf("%x became %x", b[:RequestSize], again)
		}
		if _ = r.String(); size < 0 || check(r, size, ro) != OK {
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
		if ro && r.Type != CmdRead && r.Type != CmdFlush && r.Type != CmdDisc {
			t.Fatalf("%v passed read-only", r)
		}
	})
}
