package psk13

import (
	"bufio"
	"bytes"
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"vstor/dataplane/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m, nil) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var testKey = []byte("0123456789abcdef0123456789abcdef")

func testKeys() *Keys {
	return NewKeys(map[string][]byte{"alice": testKey, "bob": []byte("another key of thirty-two bytes!")})
}

// offered is one identity of a test client, with what it thinks is the key.
type offered struct {
	identity string
	key      []byte
	age      uint32
	suite    *suite // whose hash the binder has
}

// client is the other side, small and willing to misbehave. Its wire is in the hands of the same half;
// known answers and real clients say whether that is right.
type client struct {
	nc net.Conn
	r  *bufio.Reader

	versions  []uint16
	random    []byte
	sessionID []byte
	suites    []uint16
	groups    []uint16
	shares    []uint16
	modes     []byte
	offers    []offered
	extra     []byte // extensions before pre_shared_key
	binders   func([]byte) []byte
	crumbs    int    // bytes of a record of the hello; 0: one
	early     []byte // sent behind the hello as a sealed record would be
	retried   bool   // the server asked for another share
	again     func(*client)

	private map[uint16]*ecdh.PrivateKey
	log     []byte // the transcript
	prefix  []byte
	suite   *suite
	in, out half
	chosen  int
	limit   int // of the server's records
	rest    []byte
}

func newClient(nc net.Conn) *client {
	c := &client{nc: nc, r: bufio.NewReaderSize(nc, maxSealed+headerLen), versions: []uint16{0x0304, 0x0303},
		sessionID: bytes.Repeat([]byte{7}, 32), suites: []uint16{0x1301, 0x1302}, groups: []uint16{0x1d, 0x17},
		shares: []uint16{0x1d}, modes: []byte{1}, private: map[uint16]*ecdh.PrivateKey{}, random: make([]byte, 32),
		offers: []offered{{"alice", testKey, 0, suites[0]}}}
	rand.Read(c.random)
	return c
}

func vector(size int, b []byte) []byte {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(b)))
	return append(n[8-size:], b...)
}

func numbers(l []uint16) (b []byte) {
	for _, v := range l {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	return b
}

func curveOf(id uint16) ecdh.Curve {
	switch id {
	case 0x1d:
		return ecdh.X25519()
	case 0x17:
		return ecdh.P256()
	}
	return ecdh.P384()
}

// hello makes a ClientHello with right binders.
func (c *client) hello() []byte {
	var shares []byte
	for _, g := range c.shares {
		k, err := curveOf(g).GenerateKey(rand.Reader)
		if err != nil {
			panic(err)
		}
		c.private[g] = k
		shares = append(binary.BigEndian.AppendUint16(shares, g), vector(2, k.PublicKey().Bytes())...)
	}
	var identities []byte
	room := 2
	for _, o := range c.offers {
		identities = append(identities, vector(2, []byte(o.identity))...)
		identities = binary.BigEndian.AppendUint32(identities, o.age)
		room += 1 + o.suite.hashes
	}
	m := append([]byte{msgClientHello, 0, 0, 0, 3, 3}, c.random...)
	m = append(m, vector(1, c.sessionID)...)
	m = append(m, vector(2, numbers(c.suites))...)
	m = append(m, 1, 0, 0, 0)
	at := len(m)
	if c.versions != nil {
		m = appendExtension(m, extSupportedVersion, vector(1, numbers(c.versions)))
	}
	if c.groups != nil {
		m = appendExtension(m, extSupportedGroups, vector(2, numbers(c.groups)))
	}
	if c.modes != nil {
		m = appendExtension(m, extPSKModes, vector(1, c.modes))
	}
	if c.shares != nil || c.groups != nil {
		m = appendExtension(m, extKeyShare, vector(2, shares))
	}
	m = append(m, c.extra...)
	if c.offers != nil {
		m = appendExtension(m, extPreSharedKey, append(vector(2, identities), make([]byte, room)...))
	}
	binary.BigEndian.PutUint16(m[at-2:], uint16(len(m)-at))
	setLength(m)
	if c.offers != nil {
		body := m[:len(m)-room]
		var binders []byte
		for _, o := range c.offers {
			h := o.suite.hash()
			h.Write(c.prefix)
			h.Write(body)
			binders = append(binders, vector(1, binder(o.suite.hash, earlySecret(o.suite.hash, o.key), h.Sum(nil)))...)
		}
		if c.binders != nil {
			binders = c.binders(binders)
		}
		m = append(body, vector(2, binders)...)
	}
	return m
}

func (c *client) sendHello() error {
	m := c.hello()
	c.log = append(append([]byte{}, c.prefix...), m...)
	var out []byte
	for crumb := max(c.crumbs, 0); len(m) > 0; {
		n := len(m)
		if crumb > 0 {
			n = min(n, crumb)
		}
		out = append(append(out, typeHandshake, 3, 1), vector(2, m[:n])...)
		m = m[n:]
	}
	_, err := c.nc.Write(append(out, c.early...))
	return err
}

// record reads one record of the server, opened.
func (c *client) record() (typ byte, content []byte, err error) {
	for {
		b, err := c.r.Peek(headerLen)
		if err != nil {
			return 0, nil, err
		}
		b, err = c.r.Peek(headerLen + int(binary.BigEndian.Uint16(b[3:])))
		if err != nil {
			return 0, nil, err
		}
		b = bytes.Clone(b)
		c.r.Discard(len(b))
		switch {
		case b[0] == typeChangeCipherSpec:
			continue
		case c.in.aead == nil:
			typ, content = b[0], b[headerLen:]
		default:
			var bad *Error
			if typ, content, bad = c.in.open(make([]byte, 0, len(b)), b); bad != nil {
				return 0, nil, bad
			}
			if c.limit > 0 && len(content)+1 > c.limit {
				return 0, nil, fmt.Errorf("a record of %d bytes, the limit is %d", len(content)+1, c.limit)
			}
		}
		if typ == typeAlert {
			if content[1] == byte(CloseNotify) {
				return 0, nil, io.EOF
			}
			return 0, nil, Alert(content[1])
		}
		return typ, content, nil
	}
}

func (c *client) message() ([]byte, error) {
	for len(c.rest) < 4 || len(c.rest) < 4+int(c.rest[2])<<8+int(c.rest[3]) {
		typ, b, err := c.record()
		if err != nil {
			return nil, err
		}
		if typ != typeHandshake {
			return nil, fmt.Errorf("type %d in the handshake", typ)
		}
		c.rest = append(c.rest, b...)
	}
	n := 4 + int(c.rest[2])<<8 + int(c.rest[3])
	m := c.rest[:n]
	c.rest = c.rest[n:]
	return m, nil
}

// serverHello reads what the server chose; retry says that it chose to ask again.
func (c *client) serverHello() (group uint16, share []byte, retry bool, err error) {
	m, err := c.message()
	if err != nil {
		return 0, nil, false, err
	}
	body := cursor{b: m[4:]}
	body.take(2)
	retry = bytes.Equal(body.take(32), retryRandom[:])
	if !bytes.Equal(body.vector(1, 0), c.sessionID) {
		return 0, nil, false, errors.New("another session id")
	}
	id := body.number(2)
	for _, s := range suites {
		if int(s.id) == id {
			c.suite = s
		}
	}
	body.take(1)
	c.chosen = -1
	for exts := body.list(2, 0); len(exts.b) > 0; {
		id, e := exts.number(2), exts.list(2, 0)
		switch id {
		case extKeyShare:
			if group = uint16(e.number(2)); !retry {
				share = e.vector(2, 1)
			}
		case extPreSharedKey:
			c.chosen = e.number(2)
		case extSupportedVersion:
			if e.number(2) != version13 {
				e.bad = true
			}
		}
		if !e.done() {
			return 0, nil, false, fmt.Errorf("extension %d is bad", id)
		}
	}
	if retry {
		h := c.suite.hash()
		h.Write(c.log)
		c.prefix = append([]byte{msgHash, 0, 0, byte(c.suite.hashes)}, h.Sum(nil)...)
		c.prefix = append(c.prefix, m...)
	} else {
		c.log = append(c.log, m...)
	}
	return group, share, retry, nil
}

func (c *client) sum() []byte {
	h := c.suite.hash()
	h.Write(c.log)
	return h.Sum(nil)
}

// shake is the whole handshake.
func (c *client) shake() error {
	if err := c.sendHello(); err != nil {
		return err
	}
	group, share, retry, err := c.serverHello()
	if retry {
		c.retried = true
		c.shares = []uint16{group}
		c.early = nil
		if c.again != nil {
			c.again(c)
		}
		c.nc.Write([]byte{typeChangeCipherSpec, 3, 3, 0, 1, 1})
		if err := c.sendHello(); err != nil {
			return err
		}
		group, share, _, err = c.serverHello()
	}
	if err != nil {
		return err
	}
	if c.chosen < 0 || c.chosen >= len(c.offers) {
		return fmt.Errorf("the server chose offer %d", c.chosen)
	}
	public, err := curveOf(group).NewPublicKey(share)
	if err != nil {
		return err
	}
	shared, err := c.private[group].ECDH(public)
	if err != nil {
		return err
	}
	return c.finish(shared)
}

func (c *client) finish(shared []byte) error {
	h := c.suite.hash
	hs := handshakeSecret(h, earlySecret(h, c.offers[c.chosen].key), shared)
	own, server := deriveSecret(h, hs, "c hs traffic", c.sum()), deriveSecret(h, hs, "s hs traffic", c.sum())
	c.in.use(c.suite, server)
	c.out.use(c.suite, own)
	ee, err := c.message()
	if err != nil {
		return err
	}
	c.log = append(c.log, ee...)
	fin, err := c.message()
	if err != nil {
		return err
	}
	if !hmac.Equal(fin, finished(h, server, c.sum())) {
		return errors.New("the server's Finished does not verify")
	}
	c.log = append(c.log, fin...)
	master := masterSecret(h, hs)
	c.in.use(c.suite, deriveSecret(h, master, "s ap traffic", c.sum()))
	mine := finished(h, own, c.sum())
	if !c.retried {
		c.nc.Write([]byte{typeChangeCipherSpec, 3, 3, 0, 1, 1})
	}
	if err := c.send(typeHandshake, mine); err != nil {
		return err
	}
	c.out.use(c.suite, deriveSecret(h, master, "c ap traffic", c.sum()))
	return nil
}

// send seals one record.
func (c *client) send(typ byte, b []byte) error {
	_, err := c.nc.Write(c.out.seal(make([]byte, 0, len(b)+64), typ, b))
	return err
}

// data reads the next data, and follows the server's KeyUpdates.
func (c *client) data() ([]byte, error) {
	for {
		typ, b, err := c.record()
		if err != nil {
			return nil, err
		}
		if typ == typeHandshake && len(b) == 5 && b[0] == msgKeyUpdate {
			c.in.update()
			continue
		}
		if typ != typeData {
			return nil, fmt.Errorf("type %d", typ)
		}
		return b, nil
	}
}

// sockets are two ends of a TCP connection.
func sockets(t testing.TB) (server, peer net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	peer, err = net.Dial("tcp", ln.Addr().String())
	must(t, err)
	server, err = ln.Accept()
	must(t, err)
	t.Cleanup(func() { peer.Close(); server.Close() })
	for _, c := range []net.Conn{server, peer} {
		c.SetDeadline(time.Now().Add(30 * time.Second))
	}
	return server, peer
}

type outcome struct {
	conn *Conn
	err  error
}

// serve answers one client.
func serve(nc net.Conn, keys *Keys) chan outcome {
	c := make(chan outcome, 1)
	go func() {
		conn, err := Server(nc, bufio.NewReaderSize(nc, maxSealed+headerLen), keys)
		if err != nil {
			nc.(interface{ CloseWrite() error }).CloseWrite()
		}
		c <- outcome{conn, err}
	}()
	return c
}

// TestClient is a well-behaved client as a net.Conn, for tests of what stands on this package.
type TestClient struct {
	net.Conn
	c    *client
	rest []byte
	sent []byte
}

// NewTestClient shakes hands over nc as alice.
func NewTestClient(nc net.Conn) (*TestClient, error) {
	c := newClient(nc)
	return &TestClient{Conn: nc, c: c, sent: make([]byte, 0, maxSealed+headerLen)}, c.shake()
}

// AliceKey is alice's.
func AliceKey() []byte { return testKey }

func (t *TestClient) Read(b []byte) (n int, err error) {
	if len(t.rest) == 0 {
		if t.rest, err = t.c.data(); err != nil {
			return 0, err
		}
	}
	n = copy(b, t.rest)
	t.rest = t.rest[n:]
	return n, nil
}

func (t *TestClient) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		n := min(len(rest), maxPlain)
		t.sent = t.c.out.seal(t.sent[:0], typeData, rest[:n])
		if _, err := t.Conn.Write(t.sent); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	return len(b), nil
}

func (t *TestClient) Close() error {
	t.c.send(typeAlert, []byte{1, byte(CloseNotify)})
	return t.Conn.Close()
}
