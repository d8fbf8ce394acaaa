package buf

import (
	"bytes"
	"testing"
)

func TestRanges(t *testing.T) {
	v := Vec{Segs: []Seg{{Page: 100, Len: 8192}, {Page: 200, Len: 4096}, {Page: 300, Len: 8192}}}
	for at := 0; at < v.Len(); at += 511 {
		for n := 1; n <= v.Len()-at; n += 1023 {
			var out Vec
			out.AppendRange(&v, at, n)
			if out.Len() != n {
				t.Fatalf("range %d+%d has %d bytes", at, n, out.Len())
			}
			// Dropping the bytes before it gives the same.
			rest := Vec{Segs: append([]Seg(nil), v.Segs...)}
			rest.Advance(at)
			if rest.Segs[0].Page != out.Segs[0].Page || rest.Segs[0].Off != out.Segs[0].Off {
				t.Fatalf("range at %d begins at %v, the rest at %v", at, out.Segs[0], rest.Segs[0])
			}
		}
	}
	v.Advance(v.Len())
	if !v.Empty() {
		t.Fatalf("%v is left", v)
	}
}

func TestCopyIn(t *testing.T) {
	p, err := NewPool(1<<20, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var v Vec
	if !p.Alloc(&v, 3) {
		t.Fatal("the pool is empty")
	}
	data := make([]byte, 5000)
	for i := range data {
		data[i] = byte(i*7 + 1)
	}
	p.CopyIn(&v, 3000, data)
	var got []byte
	for _, s := range v.Segs {
		got = append(got, p.SegBytes(s)...)
	}
	if !bytes.Equal(got[3000:8000], data) {
		t.Error("the bytes are not where they should be")
	}
	p.ReleaseVec(&v)
}
