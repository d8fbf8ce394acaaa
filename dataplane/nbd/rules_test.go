package nbd

import (
	"math"
	"testing"

	"vstor/dataplane/block"
)

// TestCheck is the protocol text about errors, as a table. A case without modes holds in all of them; a
// write of an extended request has its payload flag added unless bare is set.
func TestCheck(t *testing.T) {
	const size, most = 1 << 40, block.MaxRequest
	const s, x, e = 1 << Simple, 1 << Structured, 1 << Extended
	for _, tc := range []struct {
		req   Request
		modes int
		ro    bool
		none  bool // no context is selected
		bare  bool
		want  Errno
	}{
		{req: Request{Type: CmdRead, Length: 1}},
		{req: Request{Type: CmdRead, Offset: size - 1, Length: 1}},
		{req: Request{Type: CmdRead, Offset: size, Length: 0}},
		{req: Request{Type: CmdRead, Offset: size, Length: 1}, want: EINVAL},
		{req: Request{Type: CmdRead, Offset: math.MaxUint64, Length: 1}, want: EINVAL},
		{req: Request{Type: CmdRead, Offset: 1 << 63, Length: 1}, want: EINVAL},
		{req: Request{Type: CmdRead, Length: most}},
		{req: Request{Type: CmdRead, Length: most + 1}, modes: s, want: EINVAL},
		{req: Request{Type: CmdRead, Length: most + 1}, modes: x | e, want: EOVERFLOW},
		{req: Request{Type: CmdRead, Length: 1 << 63}, modes: e, want: EOVERFLOW},
		{req: Request{Type: CmdRead, Flags: FlagFUA, Length: 1}},
		{req: Request{Type: CmdRead, Flags: FlagDF, Length: 1}, modes: s, want: EINVAL},
		{req: Request{Type: CmdRead, Flags: FlagDF, Length: most}, modes: x | e},
		{req: Request{Type: CmdRead, Flags: FlagDF, Length: most + 1}, modes: x | e, want: EOVERFLOW},
		{req: Request{Type: CmdRead, Flags: FlagDF | FlagReqOne, Length: most + 1}, want: EINVAL},
		{req: Request{Type: CmdRead, Flags: FlagNoHole, Length: 1}, want: EINVAL},
		{req: Request{Type: CmdRead, Flags: FlagPayload, Length: 1}, want: EINVAL},
		{req: Request{Type: CmdRead, Length: 1}, ro: true},
		{req: Request{Type: CmdWrite, Length: most}},
		{req: Request{Type: CmdWrite, Length: most + 1}, want: EINVAL},
		{req: Request{Type: CmdWrite, Offset: size - 1, Length: 2}, want: ENOSPC},
		{req: Request{Type: CmdWrite, Flags: FlagFUA, Length: 1}},
		{req: Request{Type: CmdWrite, Flags: FlagNoHole, Length: 1}, want: EINVAL},
		{req: Request{Type: CmdWrite, Flags: FlagDF, Length: 1}, want: EINVAL},
		{req: Request{Type: CmdWrite, Length: 1}, ro: true, want: EPERM},
		{req: Request{Type: CmdWrite, Length: 1}, modes: e, bare: true, want: EINVAL},
		{req: Request{Type: CmdWrite, Flags: FlagPayload, Length: 1}, modes: s | x, want: EINVAL},
		{req: Request{Type: CmdFlush}},
		{req: Request{Type: CmdFlush, Flags: FlagFUA}},
		{req: Request{Type: CmdFlush}, ro: true},
		{req: Request{Type: CmdFlush, Length: 1}, want: EINVAL},
		{req: Request{Type: CmdFlush, Offset: 1}, want: EINVAL},
		{req: Request{Type: CmdTrim, Length: math.MaxUint32}},
		{req: Request{Type: CmdTrim, Length: size}, modes: e},
		{req: Request{Type: CmdTrim, Length: size, Offset: 1}, modes: e, want: EINVAL},
		{req: Request{Type: CmdTrim, Flags: FlagFUA, Length: 1}},
		{req: Request{Type: CmdTrim, Flags: FlagNoHole, Length: 1}, want: EINVAL},
		{req: Request{Type: CmdTrim, Flags: FlagPayload, Length: 1}, want: EINVAL},
		{req: Request{Type: CmdTrim, Length: 1}, ro: true, want: EPERM},
		{req: Request{Type: CmdTrim, Offset: size, Length: 1}, want: EINVAL},
		{req: Request{Type: CmdWriteZeroes, Flags: FlagFUA | FlagNoHole, Length: math.MaxUint32}},
		{req: Request{Type: CmdWriteZeroes, Length: size}, modes: e},
		{req: Request{Type: CmdWriteZeroes, Flags: FlagFastZero | FlagNoHole, Length: 1}},
		{req: Request{Type: CmdWriteZeroes, Flags: FlagFastZero, Length: size}, modes: e},
		{req: Request{Type: CmdWriteZeroes, Flags: FlagDF, Length: 1}, want: EINVAL},
		{req: Request{Type: CmdWriteZeroes, Offset: 1, Length: size}, modes: e, want: ENOSPC},
		{req: Request{Type: CmdWriteZeroes, Offset: size, Length: 1}, want: ENOSPC},
		{req: Request{Type: CmdWriteZeroes, Length: 1}, ro: true, want: EPERM},
		{req: Request{Type: CmdWriteZeroes, Flags: FlagFastZero, Length: 1}, ro: true, want: EPERM},
		{req: Request{Type: CmdCache, Length: 1}},
		{req: Request{Type: CmdCache, Length: size}, modes: e, ro: true},
		{req: Request{Type: CmdCache, Flags: FlagFUA, Length: 1}},
		{req: Request{Type: CmdCache, Flags: FlagDF, Length: 1}, want: EINVAL},
		{req: Request{Type: CmdCache, Offset: size, Length: 1}, want: EINVAL},
		{req: Request{Type: CmdBlockStatus, Length: 1}, modes: x | e},
		{req: Request{Type: CmdBlockStatus, Length: size}, modes: e, ro: true},
		{req: Request{Type: CmdBlockStatus, Flags: FlagReqOne | FlagFUA, Length: 1}, modes: x | e},
		{req: Request{Type: CmdBlockStatus, Flags: FlagPayload, Length: 12}, modes: x, want: EINVAL},
		{req: Request{Type: CmdBlockStatus, Flags: FlagPayload, Length: 12}, modes: e},
		{req: Request{Type: CmdBlockStatus, Flags: FlagPayload, Length: 12}, modes: e, none: true, want: EINVAL},
		{req: Request{Type: CmdBlockStatus, Flags: FlagDF, Length: 1}, want: EINVAL},
		{req: Request{Type: CmdBlockStatus}, want: EINVAL},
		{req: Request{Type: CmdBlockStatus, Offset: size - 1, Length: 2}, want: EINVAL},
		{req: Request{Type: CmdBlockStatus, Length: 1}, none: true, want: EINVAL},
		{req: Request{Type: 8, Length: 1}, want: EINVAL},
		{req: Request{Type: 999, Length: 1}, want: EINVAL},
		{req: Request{Type: 999, Flags: 1 << 15, Length: 1}, ro: true, want: EINVAL},
	} {
		for m := Simple; m <= Extended; m++ {
			if tc.modes != 0 && tc.modes&(1<<m) == 0 || m != Extended && tc.req.Length > math.MaxUint32 {
				continue
			}
			rules, req := terms{size: size, readOnly: tc.ro, mode: m, contexts: allContexts}, tc.req
			if tc.none || m == Simple {
				rules.contexts = 0
			}
			if m == Extended && req.Type == CmdWrite && !tc.bare {
				req.Flags |= FlagPayload
			}
			got, why := rules.check(&req)
			if got != tc.want || (why == whyNot) != (got == OK) || len(why.String()) > reasonMax {
				t.Errorf("mode %d, read-only %v, %v: %v (%v), want %v", m, tc.ro, req, got, why, tc.want)
			}
		}
	}
}

// TestControl: the payload of a BLOCK_STATUS.
func TestControl(t *testing.T) {
	id := func(ids ...uint32) []byte {
		b := []byte{0, 0, 1, 0, 0, 0, 0, 0}
		for _, i := range ids {
			b = append(b, 0, 0, 0, byte(i))
		}
		return b
	}
	for _, tc := range []struct {
		in   []byte
		have contextSet
		want contextSet
	}{
		{in: id(1), have: 3, want: 1},
		{in: id(2), have: 3, want: 2},
		{in: id(2, 1), have: 3, want: 3},
		{in: id(2), have: 1},
		{in: id(1, 1), have: 3},
		{in: id(0), have: 3},
		{in: id(3), have: 3},
		{in: id(200), have: 3},
		{in: id(), have: 3},
		{in: id(1)[:11], have: 3},
		{in: id(1)[:4], have: 3},
		{in: nil, have: 3},
	} {
		n, got, ok := parseControl(tc.in, tc.have)
		if ok != (tc.want != 0) || ok && (got != tc.want || n != 1<<40) {
			t.Errorf("%x of %b: %b %d %v, want %b", tc.in, tc.have, got, n, ok, tc.want)
		}
	}
}
