package nbd

import "testing"

// BenchmarkRequest is what the protocol alone costs a 4 KiB read: its request read, its reply's head written, in each
// mode. Beside it stand the kernel, the loop and the device: see BenchmarkFio.
func BenchmarkRequest(b *testing.B) {
	out := make([]byte, errorRoom)
	b.Run("simple", func(b *testing.B) {
		in := AppendRequest(nil, Structured, Request{Type: CmdRead, Cookie: 7, Offset: 1 << 20, Length: 4096})
		b.ReportAllocs()
		for b.Loop() {
			q, ok := ParseRequest(in)
			if !ok {
				b.Fatal("it does not parse")
			}
			PutReply(out, 0, q.Cookie)
		}
	})
	for name, m := range map[string]Mode{"structured": Structured, "extended": Extended} {
		b.Run(name, func(b *testing.B) {
			in := AppendRequest(nil, m, Request{Type: CmdRead, Cookie: 7, Offset: 1 << 20, Length: 4096})
			parse := ParseRequest
			if m == Extended {
				parse = ParseExtendedRequest
			}
			b.ReportAllocs()
			for b.Loop() {
				q, ok := parse(in)
				if !ok {
					b.Fatal("it does not parse")
				}
				putData(out, m, Chunk{Done: true, Cookie: q.Cookie, Offset: q.Offset}, int64(q.Offset), int64(q.Length))
			}
		})
	}
}
