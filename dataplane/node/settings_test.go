package node

import (
	"context"
	"encoding/json"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vstor/dataplane/api"
	"vstor/dataplane/errs"
	"vstor/dataplane/nbd"
	"vstor/dataplane/tlsconn"
)

// peer is a client at an address; with TLS if it has names.
func peer(network, addr string, names ...string) nbd.Peer {
	p := nbd.Peer{TLS: names != nil, ID: tlsconn.Identity{Names: names}}
	if network == "unix" {
		p.Addr = &net.UnixAddr{Name: addr, Net: network}
		return p
	}
	p.Addr, _ = net.ResolveTCPAddr(network, addr)
	return p
}

func exportNames(list []nbd.ExportInfo) string {
	var out []string
	for _, e := range list {
		out = append(out, e.Name)
	}
	return strings.Join(out, " ")
}

func set(t *testing.T, n *Node, name string, s api.VDiskSettings) api.VDiskChange {
	t.Helper()
	c, err := n.SetVDisk(context.Background(), name, s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// What a list does not admit is not listed, and refused in words that say no more than that. Settings outlive the
// machine, and the loss of either copy of the registry.
func TestSettings(t *testing.T) {
	v, w := twoDisks(t)
	yes, no := true, false
	c := set(t, v.n, "v", api.VDiskSettings{ReadOnly: &yes,
		Allow: []string{"10.0.0.0/8", "cert:Host1.example", "10.0.0.0/8"}})
	if !c.ReadOnly || !slices.Equal(c.Allow, []string{"10.0.0.0/8", "cert:host1.example"}) || c.Disconnected != 0 {
		t.Fatalf("set: %+v", c)
	}
	check := func(when string) {
		t.Helper()
		x := exports{v.n}
		for _, q := range []struct {
			p       nbd.Peer
			list    string
			only, v errs.Kind // what opening "" and "v" gives
		}{
			{peer("tcp", "10.1.2.3:5"), "v w", errs.Absent, errs.OK},
			{peer("tcp", "[::ffff:10.1.2.3]:5"), "v w", errs.Absent, errs.OK},
			{peer("tcp", "11.1.2.3:5"), "w", errs.OK, errs.Refused},
			{peer("unix", ""), "w", errs.OK, errs.Refused},
			{peer("unix", "", "host1.example"), "v w", errs.Absent, errs.OK},
			{peer("tcp", "[fe80::1%lo]:5", "host2.example"), "w", errs.OK, errs.Refused},
			{nbd.Peer{}, "w", errs.OK, errs.Refused},
			{nbd.Peer{ID: tlsconn.Identity{Names: []string{"host1.example"}}}, "w", errs.OK, errs.Refused}, // without TLS
		} {
			if got := exportNames(x.List(q.p)); got != q.list {
				t.Errorf("%s: %+v sees %q, want %q", when, q.p, got, q.list)
			}
			for name, want := range map[string]errs.Kind{"": q.only, "v": q.v, "w": errs.OK, "x": errs.Absent} {
				e, err := x.Open(name, q.p)
				if errs.Of(err) != want {
					t.Errorf("%s: %+v opens %q: %v, want %v", when, q.p, name, err, want)
				}
				if err != nil && (strings.Contains(err.Error(), "10.0") || strings.Contains(err.Error(), "host1")) {
					t.Errorf("%s: %q tells who may", when, err)
				}
				if err == nil {
					if i := e.Info(); i.ReadOnly != (i.Name == "v") {
						t.Errorf("%s: %+v", when, i)
					}
					e.Close()
				}
			}
		}
		s, err := v.n.ShowVDisk(context.Background(), "v")
		if err != nil || !s.ReadOnly || len(s.Allow) != 2 || s.Connections != 0 {
			t.Errorf("%s: %+v %v", when, s, err)
		}
		s, err = v.n.ShowVDisk(context.Background(), "w")
		if err != nil || s.ReadOnly || !slices.Equal(s.Allow, []string{"all"}) {
			t.Errorf("%s: %+v %v", when, s, err)
		}
	}
	check("at once")
	reborn(t, v, w, func(*memHost) {})
	check("after a crash")
	if _, err := v.n.SetVDisk(context.Background(), "x", api.VDiskSettings{ReadOnly: &yes}); errs.Of(err) != errs.Absent {
		t.Error(err)
	}
	_, err := v.n.SetVDisk(context.Background(), "v", api.VDiskSettings{Allow: []string{"unix", "nobody"}})
	if errs.Of(err) != errs.Invalid {
		t.Error(err)
	}
	check("after bad input")
	set(t, v.n, "v", api.VDiskSettings{ReadOnly: &no})
	c = set(t, v.n, "v", api.VDiskSettings{Allow: []string{"all"}})
	if c.ReadOnly || !slices.Equal(c.Allow, []string{"all"}) {
		t.Errorf("taken back: %+v", c)
	}
	v.down(true, false)
}

// A vDisk in use becomes neither read-only nor writable.
func TestReadOnlyWhileInUse(t *testing.T) {
	v, _ := twoDisks(t)
	yes, no := true, false
	e, err := exports{v.n}.Open("v", peer("unix", ""))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.n.SetVDisk(context.Background(), "v", api.VDiskSettings{ReadOnly: &yes}); errs.Of(err) != errs.Busy {
		t.Errorf("in use: %v", err)
	}
	set(t, v.n, "v", api.VDiskSettings{ReadOnly: &no, Allow: []string{"unix"}}) // no change of the mode
	if e.Info().ReadOnly {
		t.Error("it changed under its connection")
	}
	e.Close()
	set(t, v.n, "v", api.VDiskSettings{ReadOnly: &yes})
	v.down(true, false)
}

// The second copy: version 1 to the byte without settings, 2 with them; and a list that cannot be read, as one
// that a later version wrote, admits nobody.
func TestSettingsOnDisk(t *testing.T) {
	v, w := twoDisks(t)
	version := func() int {
		c, err := readRegistryCopy(v.host.fs, "/d")
		if err != nil {
			t.Fatal(err)
		}
		return c.Version
	}
	yes := true
	before := version()
	set(t, v.n, "w", api.VDiskSettings{ReadOnly: &yes})
	with := version()
	reborn(t, v, w, func(*memHost) {})
	again := version()
	no := false
	set(t, v.n, "w", api.VDiskSettings{ReadOnly: &no})
	if before != 1 || with != 2 || again != 2 || version() != 1 {
		t.Errorf("versions %d, %d, %d, %d", before, with, again, version())
	}
	b, err := json.Marshal(record{Name: "x", ID: 3})
	if err != nil || strings.Contains(string(b), "read_only") || strings.Contains(string(b), "allow") {
		t.Errorf("a record without settings is %s", b)
	}
	moon := func(r *record) { r.Allow = []string{"moon:4"} }
	if _, err := v.n.registry.change(context.Background(), "w", moon); err != nil {
		t.Fatal(err)
	}
	reborn(t, v, w, func(*memHost) {})
	if got := exportNames(exports{v.n}.List(peer("unix", ""))); got != "v" {
		t.Errorf("seen: %q", got)
	}
	if s, err := v.n.ShowVDisk(context.Background(), "w"); err != nil || !strings.Contains(s.Problem, "admits nobody") {
		t.Errorf("%+v %v", s, err)
	}
	set(t, v.n, "w", api.VDiskSettings{Allow: []string{"unix"}})
	if got := exportNames(exports{v.n}.List(peer("unix", ""))); got != "v w" {
		t.Errorf("seen: %q", got)
	}
	v.down(true, false)
}

// A registry that is made again from the second copy keeps who may do what.
func TestSettingsSurviveTheStore(t *testing.T) {
	v, _ := twoDisks(t)
	yes := true
	set(t, v.n, "v", api.VDiskSettings{ReadOnly: &yes, Allow: []string{"unix", "psk:alice"}})
	v.down(true, false)
	if err := v.host.fs.RemoveAll("/d/meta"); err != nil {
		t.Fatal(err)
	}
	if r := v.fsck(FsckOptions{Manifests: true, Repair: true}); r.Found != r.Repaired {
		t.Fatalf("%+v", r)
	}
	v.start(false)
	s, err := v.n.ShowVDisk(context.Background(), "v")
	if err != nil || !s.ReadOnly || !slices.Equal(s.Allow, []string{"unix", "psk:alice"}) {
		t.Errorf("%+v %v", s, err)
	}
	v.down(true, false)
}

// Whom a new list shuts out is disconnected before it is said to be in force; others stay.
func TestListShutsOut(t *testing.T) {
	v, _ := twoDisks(t)
	path := filepath.Join(t.TempDir(), "s")
	unix, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	v.n.opts.Listeners, v.n.opts.OnlyListeners = []net.Listener{unix, tcp}, true
	if err := v.n.ServeNBD(); err != nil {
		t.Fatal(err)
	}
	near, far := attach(t, "unix", path, "v"), attach(t, "tcp", tcp.Addr().String(), "v")
	other := attach(t, "tcp", tcp.Addr().String(), "w")
	if c := set(t, v.n, "v", api.VDiskSettings{Allow: []string{"unix"}}); c.Disconnected != 1 || c.Connections != 1 {
		t.Errorf("%+v", c)
	}
	far.SetDeadline(time.Now().Add(time.Minute))
	if n, err := far.Read(make([]byte, 1)); n != 0 || err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("who was shut out reads %d bytes, %v", n, err)
	}
	for _, c := range []net.Conn{near, other} {
		readsOn(t, c)
	}
	v.down(true, false)
}

// attach goes through an NBD handshake by hand.
func attach(t *testing.T, network, addr, name string) net.Conn {
	t.Helper()
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	out := append([]byte{0, 0, 0, 3}, "IHAVEOPT\x00\x00\x00\x01\x00\x00\x00"...) // EXPORT_NAME
	out = append(append(out, byte(len(name))), name...)
	if _, err := c.Write(out); err != nil {
		t.Fatal(err)
	}
	if n, err := readFull(c, 18+10); err != nil { // greeting, size, flags
		t.Fatalf("the handshake ended after %d bytes: %v", n, err)
	}
	c.SetDeadline(time.Time{})
	return c
}

func readFull(c net.Conn, want int) (int, error) {
	b, got := make([]byte, want), 0
	for got < want {
		n, err := c.Read(b[got:])
		if got += n; err != nil {
			return got, err
		}
	}
	return got, nil
}

// readsOn: a read of one block is answered.
func readsOn(t *testing.T, c net.Conn) {
	t.Helper()
	req := []byte{0x25, 0x60, 0x95, 0x13, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0}
	c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := c.Write(req); err != nil {
		t.Error(err)
	}
	if n, err := readFull(c, 16+4096); err != nil {
		t.Errorf("%d bytes of an answer, then %v", n, err)
	}
}

func TestCertificateWarning(t *testing.T) {
	now := time.Date(2030, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		end  time.Time
		says string
	}{
		{time.Time{}, ""},
		{now.Add(15 * 24 * time.Hour), ""},
		{now.Add(13*24*time.Hour + time.Hour), "ends on 2030-03-14, in 13 days"},
		{now.Add(time.Minute), "in 0 days"},
		{now.Add(-time.Minute), "ended on 2030-03-01, and clients turn away"},
	} {
		got := certificateWarning(c.end, now)
		if (c.says == "") != (got == "") || !strings.Contains(got, c.says) {
			t.Errorf("%v: %q, want %q", c.end, got, c.says)
		}
	}
}
