package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"vstor/asd/server"
	"vstor/dataplane/errs"
	"vstor/dataplane/layout"
	"vstor/dataplane/tlsconn/tlstest"
)

// states collects what OnState is told.
type states struct {
	mu   sync.Mutex
	list []string
}

func (s *states) on(up bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if up {
		s.list = append(s.list, "up")
	} else {
		s.list = append(s.list, err.Error())
	}
}

func (s *states) last() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.list) == 0 {
		return ""
	}
	return s.list[len(s.list)-1]
}

// says waits until the ASD is down for a reason that has text in it.
func says(t *testing.T, a *ASD, text string) {
	t.Helper()
	until(t, "the ASD to say "+text,
		func() bool { e := a.Err(); return e != nil && strings.Contains(e.Error(), text) })
}

// A process that is killed: calls under way fail at once, later ones without asking; after a restart all is well.
func TestKilledAndRestarted(t *testing.T) {
	var st states
	w := newWorld(t, settings{client: func(o *Options) { o.OnState = st.on }})
	a := w.up()
	if a.Err() != nil {
		t.Error(a.Err())
	}
	must(t, a.Put(timed(t), fput(t, 1, 1<<20)))
	w.relay.mu.Lock()
	w.relay.cutAfter = 300 << 10 // in the middle of the next put
	w.relay.mu.Unlock()
	wantKind(t, a.Put(timed(t), fput(t, 2, 1<<20)), errs.Unreachable)
	until(t, "down", func() bool { return !a.Up() })
	wantKind(t, a.Put(timed(t), fput(t, 2, 1<<20)), errs.Unreachable)
	wantKind(t, a.Get(timed(t), key(1), 0, make([]byte, 10)), errs.Unreachable)
	says(t, a, "connect")
	begun := time.Now()
	w.relay.listen()
	w.up()
	t.Logf("up again %v after the restart", time.Since(begun).Round(time.Millisecond))
	got(t, a, 1, 1<<20, 0, 1<<20)
	must(t, a.Put(timed(t), fput(t, 2, 1<<20)))
	got(t, a, 2, 1<<20, 0, 1<<20)
	if st.last() != "up" {
		t.Error(st.list)
	}
}

// A process that is stopped holds no call until some long timeout, and is up again when it goes on.
func TestStopped(t *testing.T) {
	w := newWorld(t, settings{client: hasty})
	a := w.up()
	insist(t, func() error { return a.Put(timed(t), fput(t, 1, 1<<20)) })
	w.relay.stop()
	begun := time.Now()
	var wg sync.WaitGroup
	for i := range 12 { // more than there are connections
		wg.Add(1)
		go func() {
			defer wg.Done()
			var err error
			if i%2 == 0 {
				err = a.Put(timed(t), fput(t, 10+i, 64<<10))
			} else {
				err = a.Get(timed(t), key(1), 0, make([]byte, 1<<20))
			}
			if errs.Of(err) != errs.Unreachable {
				t.Errorf("%d: %v", i, err)
			}
		}()
	}
	wg.Wait()
	t.Logf("all failed after %v", time.Since(begun).Round(time.Millisecond))
	says(t, a, "no answer")
	n := w.relay.count()
	w.relay.goOn()
	begun = time.Now()
	w.up()
	t.Logf("up again %v after it went on", time.Since(begun).Round(time.Millisecond))
	if w.relay.count() > n+13 {
		t.Error("the stopped ASD was connected to again and again")
	}
	whole(t, a)
}

// whole insists that fragment 1, of 1 MiB, is what was put.
func whole(t *testing.T, a *ASD) {
	t.Helper()
	b := make([]byte, 1<<20)
	insist(t, func() error { return a.Get(timed(t), key(1), 0, b) })
	if string(b) != string(payload(1, 1<<20)) {
		t.Error("wrong bytes")
	}
}

// Idle connections that died in the meantime are not held against the ASD.
func TestDeadIdleConnections(t *testing.T) {
	w := newWorld(t, settings{client: func(o *Options) { o.StatEvery = time.Hour }})
	a := w.up()
	must(t, a.Put(timed(t), fput(t, 1, 4096)))
	for range 3 {
		a.mu.Lock()
		for c := range a.conns {
			c.raw.(*net.UnixConn).CloseRead()
		}
		a.mu.Unlock()
		got(t, a, 1, 4096, 0, 4096)
	}
	if a.retries.Load() != 3 {
		t.Errorf("%d retries", a.retries.Load())
	}
	a.opts.IdleTimeout = 1
	a.trim(time.Now())
	if len(a.idle) != 0 || len(a.conns) != 0 {
		t.Error("connections are left")
	}
	got(t, a, 1, 4096, 0, 4096)
}

// The wrong ASD, secret or deployment: never up, and a sentence says why.
func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name, why string
		edit      func(*Options)
	}{
		{"swapped", "swapped", func(o *Options) { o.UUID[0]++ }},
		{"number", "number 3; wanted was 4", func(o *Options) { o.ID = 4 }},
		{"deployment", "belongs to deployment", func(o *Options) { o.Deployment[0]++ }},
		{"secret", "secret", func(o *Options) { o.Secret = make([]byte, 32) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, settings{client: c.edit})
			says(t, w.a, c.why)
			err := w.a.Put(timed(t), fput(t, 1, 4096))
			wantKind(t, err, errs.Unreachable)
			if !strings.Contains(err.Error(), c.why) || w.a.Up() {
				t.Error(err)
			}
		})
	}
}

// A drive that is swapped while nobody looks is noticed before a fragment moves.
func TestSwappedLater(t *testing.T) {
	w := newWorld(t, settings{})
	other := newWorld(t, settings{uuid: [16]byte{7}, client: func(o *Options) { o.UUID = [16]byte{} }})
	a := w.up()
	must(t, a.Put(timed(t), fput(t, 1, 4096)))
	w.relay.kill()
	other.up()
	w.relay.upAddr = other.relay.addr
	w.relay.listen()
	says(t, a, "swapped")
	wantKind(t, a.Put(timed(t), fput(t, 2, 4096)), errs.Unreachable)
	all, err := other.a.List(timed(t), layout.FragKey{}, 10)
	if err != nil || len(all) != 0 {
		t.Error(len(all), err)
	}
}

// Mutual TLS, both halves; and a client without a certificate.
func TestTLS(t *testing.T) {
	ca := tlstest.Issue(t, nil, nil)
	pool := ca.Pool()
	srv := tlstest.Issue(t, ca, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} })
	cli := tlstest.Issue(t, ca,
		func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
	s := settings{network: "tcp",
		server: func(o *server.Options) {
			o.TLS = &tls.Config{Certificates: []tls.Certificate{srv.TLS()}, ClientCAs: pool,
				ClientAuth: tls.RequireAndVerifyClientCert}
		},
		client: func(o *Options) {
			hasty(o)
			o.TLS = &tls.Config{Certificates: []tls.Certificate{cli.TLS()}, RootCAs: pool}
		}}
	w := newWorld(t, s)
	a := w.up()
	insist(t, func() error { return a.Put(timed(t), fput(t, 1, 1<<20)) })
	whole(t, a)
	l := newRig(t)
	r := l.reader(a, lenient)
	l.insist(r)
	w.relay.stop()
	until(t, "down", func() bool { return !a.Up() })
	w.relay.goOn()
	w.up()
	whole(t, a)

	s.client = func(o *Options) { o.TLS = &tls.Config{RootCAs: pool} }
	w = newWorld(t, s)
	says(t, w.a, "certificate")
}

// Close in any state ends calls and leaves nothing.
func TestClose(t *testing.T) {
	for _, state := range []string{"idle", "stopped", "dead"} {
		t.Run(state, func(t *testing.T) {
			w := newWorld(t, settings{})
			a := w.up()
			must(t, a.Put(timed(t), fput(t, 1, 4096)))
			switch state {
			case "stopped":
				w.relay.stop()
			case "dead":
				w.relay.kill()
			}
			ended := make(chan error, 1)
			go func() {
				for {
					if err := a.Get(bg, key(1), 0, make([]byte,
						100)); err != nil && errs.Of(err) != errs.Unreachable {
						ended <- err
						return
					}
				}
			}()
			time.Sleep(10 * time.Millisecond)
			must(t, a.Close())
			if err := <-ended; errs.Of(err) != errs.Closed {
				t.Error(err)
			}
			if a.Up() {
				t.Error("up after Close")
			}
		})
	}
}

// A server that goes away is left alone at the pace of the options.
func TestBackOff(t *testing.T) {
	w := newWorld(t, settings{})
	a := w.up()
	var d time.Duration
	slow := errs.New(errs.Unreachable, "timeout")
	for range 20 {
		d = a.backOff(d, slow)
	}
	if d != a.opts.RetryMax || a.backOff(0, slow) != a.opts.RetryMin {
		t.Errorf("%v", d)
	}
	for _, k := range []errs.Kind{errs.Refused, errs.Version, errs.Corrupt} {
		if a.backOff(0, k) != a.opts.RetryRefused {
			t.Errorf("%v", k)
		}
	}
	_, err := (&net.Dialer{}).DialContext(context.Background(), "unix", "/nonexistent/socket")
	if d = a.backOff(time.Hour, errs.Wrap(errs.Unreachable, err, "connecting")); d > 100*time.Millisecond {
		t.Errorf("%v before looking again where nobody listens", d)
	}
}
