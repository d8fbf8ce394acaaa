package node

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// from is a caller over TCP, or over a unix socket, who has proved these names.
func from(addr string, names ...string) caller {
	c := caller{unix: addr == "unix", names: names}
	if !c.unix && addr != "" {
		c.addr = netip.MustParseAddr(addr)
	}
	return c
}

func TestAccessJudges(t *testing.T) {
	psk := func(name string) caller { c := from("192.0.2.1"); c.psk = name; return c }
	everybody := []caller{from("10.1.2.3"), from("unix"), from("fe80::1%eth0"), psk("alice"), from(""), from("unix", "x")}
	for _, c := range []struct {
		list    string
		in, out []caller
	}{
		{"", everybody, nil},
		{"all", everybody, nil},
		{"10.0.0.0/8", []caller{from("10.0.0.0"), from("10.255.255.255"), from("::ffff:10.1.2.3")},
			[]caller{from("11.0.0.1"), from("9.255.255.255"), from("unix"), from("::10.1.2.3"), from(""),
				from("::ffff:11.0.0.1")}},
		{"::ffff:10.0.0.0/104", []caller{from("10.9.9.9"), from("::ffff:10.9.9.9")}, []caller{from("11.0.0.1"), from("::1")}},
		{"10.0.0.7", []caller{from("10.0.0.7"), from("::ffff:10.0.0.7")}, []caller{from("10.0.0.8"), from("unix")}},
		{"::ffff:10.0.0.7", []caller{from("10.0.0.7")}, []caller{from("10.0.0.8")}},
		{"0.0.0.0/0", []caller{from("1.2.3.4"), from("::ffff:1.2.3.4")}, []caller{from("::1"), from("unix"), from("")}},
		{"::/0", []caller{from("::1"), from("fe80::1%eth0")},
			[]caller{from("1.2.3.4"), from("::ffff:1.2.3.4"), from("unix")}},
		{"2001:db8::/32", []caller{from("2001:db8:ffff::1")}, []caller{from("2001:db9::"), from("10.0.0.1")}},
		{"fe80::/10", []caller{from("fe80::1%eth0"), from("fe80::1")}, []caller{from("::1")}},
		{"fe80::1", []caller{from("fe80::1%eth0"), from("fe80::1")}, []caller{from("fe80::2%eth0")}},
		{"fe80::1%eth0", []caller{from("fe80::1%eth0")},
			[]caller{from("fe80::1%eth1"), from("fe80::1"), from("fe80::2%eth0")}},
		{"unix", []caller{from("unix"), from("unix", "host1")}, []caller{from("127.0.0.1"), from("::1"), from("")}},
		{"cert:Host1.Example.", []caller{from("10.0.0.1", "host1.example"), from("unix", "x", "HOST1.example."),
			from("fe80::1%e", "host1.example")},
			[]caller{from("10.0.0.1"), from("10.0.0.1", "host2.example"), from("10.0.0.1", "*.example"),
				from("10.0.0.1", "xhost1.example"), from("10.0.0.1", ""), psk("host1.example")}},
		{"cert:*.example", []caller{from("10.0.0.1", "*.example")}, []caller{from("10.0.0.1", "a.example")}},
		{"psk:alice", []caller{psk("alice")}, []caller{psk("Alice"), psk(""), psk("bob"), from("10.0.0.1", "alice")}},
		{"10.0.0.0/8 unix psk:alice cert:a", []caller{from("10.0.0.1"), from("unix"), psk("alice"), from("::1", "a")},
			[]caller{from("11.0.0.1"), from("::1", "b"), psk("a"), from("")}},
	} {
		words := strings.Fields(c.list)
		a, kept, err := parseAccess(words)
		if err != nil {
			t.Errorf("%q: %v", c.list, err)
			continue
		}
		again, keptAgain, err := parseAccess(kept)
		if err != nil || !slices.Equal(kept, keptAgain) {
			t.Errorf("%q is kept as %q and read back as %q, %v", c.list, kept, keptAgain, err)
		}
		for i, who := range slices.Concat(c.in, c.out) {
			if want := i < len(c.in); a.admits(who) != want || again.admits(who) != want {
				t.Errorf("%q admits %+v: %v, read back %v; want %v", c.list, who, a.admits(who), again.admits(who), want)
			}
		}
	}
	if (access{}).admits(from("unix")) {
		t.Error("an access that was never read admits somebody")
	}
}

func TestAccessRefuses(t *testing.T) {
	many := make([]string, accessRulesMax+1)
	for i := range many {
		many[i] = fmt.Sprintf("10.0.%d.%d", i/256, i%256)
	}
	for _, c := range []struct{ list, says string }{
		{"10.0.0.1/8", "10.0.0.0/8 is that network, 10.0.0.1 that one client"},
		{"10.0.0.0/33", "no network"},
		{"10.0.0/8", "no network"},
		{"fe80::%eth0/10", "no network"},
		{"::ffff:1.2.3.4%eth0", "no zone"},
		{"host1.example", "nobody an access list can name"},
		{"ALL", "nobody an access list can name"},
		{"Unix", "nobody an access list can name"},
		{"10.0.0.0/8 all", "stands alone"},
		{"all all", "stands alone"},
		{"cert:", "names nobody"},
		{"psk:", "names nobody"},
		{"psk:" + strings.Repeat("a", 256), "names nobody"},
		{"psk:a\x00b", "names nobody"},
		{"cert:\xff", "names nobody"},
		{"cert:.", "names nobody"},
		{strings.Join(many, " "), "at most 256"},
	} {
		if _, _, err := parseAccess(strings.Split(c.list, " ")); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%.40q: %v; want %q", c.list, err, c.says)
		}
	}
	if _, _, err := parseAccess([]string{""}); err == nil {
		t.Error("an empty word is taken for something")
	}
}

// Whatever is taken is kept as words that mean the same.
func FuzzAccess(f *testing.F) {
	for _, s := range []string{"10.0.0.0/8", "::ffff:1.2.3.4/120", "fe80::1%eth0", "cert:A.", "psk: x", "unix", "all",
		"::/0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, w string) {
		a, kept, err := parseAccess([]string{w})
		if err != nil || a.all {
			return
		}
		b, again, err := parseAccess(kept)
		if err != nil || !slices.Equal(kept, again) || len(a.rules) != 1 || a.rules[0] != b.rules[0] {
			t.Fatalf("%q is kept as %q, which is read as %q: %+v %+v %v", w, kept, again, a, b, err)
		}
	})
}
