package faults

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"vstor/dataplane/dio"
)

func TestParse(t *testing.T) {
	p, err := Parse("drive delay time=50ms on=reads+syncs chance=0.1 off=4k len=1M;\n link flip nth=3 times=2; drive fail")
	if err != nil || len(p.Drive) != 2 || len(p.Link) != 1 {
		t.Fatalf("%+v %v", p, err)
	}
	d := p.Drive[0]
	if d.Do != dio.Delay || d.Delay != 50*time.Millisecond || d.On != dio.Reads|dio.Syncs || d.Off != 4096 ||
		d.Len != 1<<20 || d.Chance != 0.1 {
		t.Errorf("%+v", d)
	}
	if p.Link[0].Nth != 3 || p.Link[0].Times != 2 || p.Drive[1].Chance != 1 {
		t.Errorf("%+v", p)
	}
	if p, err := Parse(" ; "); err != nil || len(p.Drive)+len(p.Link) != 0 {
		t.Errorf("no rules: %+v %v", p, err)
	}
	for text, says := range map[string]string{
		"drive": "names no fault", "drive hang": "no fault", "link torn": "no fault", "disk fail": "no fault",
		"drive fail on=mondays": "reads, writes", "drive fail chance=2": "0 to 1",
		"drive fail chance=NaN": "0 to 1", "drive fail chance=-1": "0 to 1", "drive fail maybe=1": "no condition",
		"link drop on=reads": "for drives", "drive delay time=x": "does not read", "drive fail nth=-1": "count from 0",
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v; want a sentence with %q", text, err, says)
		}
	}
}

// pipe sends 4 KiB through a link with rules and returns what came out.
func pipe(t *testing.T, links *Links) []byte {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fl := links.Listen(l)
	go func() {
		nc, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return
		}
		defer nc.Close()
		nc.Write(make([]byte, 4096))
	}()
	nc, err := fl.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	b, _ := io.ReadAll(nc)
	return b
}

func TestLinks(t *testing.T) {
	whole := make([]byte, 4096)
	links := NewLinks(1)
	if b := pipe(t, links); !bytes.Equal(b, whole) {
		t.Error("without rules it does not come through")
	}
	links.Set(LinkRule{Do: LinkFlip, Nth: 1})
	if b := pipe(t, links); len(b) != 4096 || bytes.Equal(b, whole) {
		t.Error("no flip")
	}
	links.Set(LinkRule{Do: LinkDrop, Chance: 1})
	if b := pipe(t, links); len(b) != 0 {
		t.Error("no drop")
	}
	links.Set(LinkRule{Do: LinkShort, Nth: 1})
	if b := pipe(t, links); len(b) >= 4096 {
		t.Error("not short")
	}
	links.Set(LinkRule{Do: LinkHang, Chance: 1})
	time.AfterFunc(20*time.Millisecond, func() { links.Set() })
	if b := pipe(t, links); !bytes.Equal(b, whole) {
		t.Error("what hung did not come through")
	}
	links.Set(LinkRule{Do: LinkDelay, Chance: 1, Delay: time.Millisecond})
	if b := pipe(t, links); !bytes.Equal(b, whole) {
		t.Error("what was delayed did not come through")
	}
}
