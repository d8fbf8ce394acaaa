package config

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// passed puts copies of descriptors where a service manager would, from a number on that nothing else has.
func passed(t *testing.T, fds ...int) int {
	t.Helper()
	const first = 700
	for i, fd := range fds {
		if fd < 0 {
			continue
		}
		if err := syscall.Dup3(fd, first+i, 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Close(first + i) })
	}
	return first
}

func socket(t *testing.T, family, kind int, address syscall.Sockaddr, listen bool) int {
	t.Helper()
	fd, err := syscall.Socket(family, kind, 0)
	if err == nil && address != nil {
		err = syscall.Bind(fd, address)
	}
	if err == nil && listen {
		err = syscall.Listen(fd, 8)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	return fd
}

func TestInherit(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.sock")
	loopback := &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	unix := socket(t, syscall.AF_UNIX, syscall.SOCK_STREAM, &syscall.SockaddrUnix{Name: path}, true)
	abstract := socket(t, syscall.AF_UNIX, syscall.SOCK_STREAM,
		&syscall.SockaddrUnix{Name: "@vstor-test-" + strconv.Itoa(os.Getpid())}, true)
	tcp := socket(t, syscall.AF_INET, syscall.SOCK_STREAM, loopback, true)
	bound := socket(t, syscall.AF_INET, syscall.SOCK_STREAM, loopback, false)
	datagram := socket(t, syscall.AF_UNIX, syscall.SOCK_DGRAM, &syscall.SockaddrUnix{Name: path + "d"}, false)
	packet := socket(t, syscall.AF_UNIX, syscall.SOCK_SEQPACKET, &syscall.SockaddrUnix{Name: path + "p"}, true)
	file, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, c := range []struct {
		fds              []int
		count, names     string
		nbd, api, reason string // addresses, or what the error says
	}{
		{nil, "0", "", "", "", ""},
		{[]int{unix}, "1", "", path, "", ""},
		{[]int{unix, tcp}, "2", "nbd:api", path, "127.0.0.1", ""},
		{[]int{tcp, unix}, "2", "vstor-api.socket:vstor.socket", path, "127.0.0.1", ""},
		{[]int{unix, tcp}, "2", "unknown:unknown", path + " 127.0.0.1", "", ""},
		{[]int{abstract}, "1", "", "@vstor-test", "", ""},
		{[]int{unix}, "banana", "", "", "", `LISTEN_FDS is "banana"; it must be the number`},
		{[]int{unix}, "", "", "", "", "it must be the number of sockets passed, from 0 to 64"},
		{[]int{unix}, "-1", "", "", "", "from 0 to 64"},
		{[]int{unix}, "65", "", "", "", "from 0 to 64"},
		{[]int{unix}, "99999999999999999999", "", "", "", "from 0 to 64"},
		{[]int{unix}, "1", "nbd:api", "", "", "2 names"},
		{[]int{unix, tcp}, "2", "nbd", "", "", "1 names"},
		{[]int{unix, -1}, "2", "", "", "", "descriptor 701 is closed"},
		{[]int{unix, datagram}, "2", "nbd:x", "", "", "descriptor 701 (x) is a datagram socket; a stream"},
		{[]int{packet}, "1", "", "", "", "is no stream socket"},
		{[]int{int(file.Fd())}, "1", "", "", "", "descriptor 700 is no socket"},
		{[]int{bound}, "1", "", "", "", "does not listen"},
	} {
		t.Run(c.count+" "+c.names+c.reason, func(t *testing.T) {
			in, err := inherit(passed(t, c.fds...), c.count, c.names)
			if c.reason != "" {
				if err == nil || !strings.Contains(err.Error(), c.reason) || in.Any() {
					t.Fatalf("%+v, %v; want %q", in, err, c.reason)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			if in.Any() != (len(c.fds) > 0) {
				t.Error("Any says otherwise")
			}
			same := func(list []net.Listener, want string) {
				words := strings.Fields(want)
				if len(list) != len(words) {
					t.Fatalf("%d listeners, want %q", len(list), want)
				}
				for i, l := range list {
					if !strings.HasPrefix(l.Addr().String(), words[i]) {
						t.Errorf("listener %d has %s, want %s", i, l.Addr(), words[i])
					}
				}
			}
			same(in.NBD, c.nbd)
			same(in.API, c.api)
			for i := range c.fds { // ours is a copy that children do not inherit
				if _, err := syscall.Getsockname(700 + i); err != syscall.EBADF {
					t.Errorf("descriptor %d is still open: %v", 700+i, err)
				}
			}
		})
	}
}

func TestInheritIsForOneProcess(t *testing.T) {
	for _, pid := range []string{"1", "", "x"} {
		t.Setenv("LISTEN_PID", pid)
		t.Setenv("LISTEN_FDS", "banana")
		t.Setenv("LISTEN_FDNAMES", "a:b")
		if in, err := Inherit(); err != nil || in.Any() {
			t.Errorf("LISTEN_PID=%q: %v %v", pid, in, err)
		}
		for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
			if v, there := os.LookupEnv(name); there {
				t.Errorf("children would see %s=%s", name, v)
			}
		}
	}
	t.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	t.Setenv("LISTEN_FDS", "banana")
	if _, err := Inherit(); err == nil {
		t.Error("ours, and taken for nobody's")
	}
}

// A socket unit may have put DIR/nbd.sock there before the first start: it is served, and stays.
func TestDirWithInheritedSocket(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "nbd.sock")
	fd := socket(t, syscall.AF_UNIX, syscall.SOCK_STREAM, &syscall.SockaddrUnix{Name: path}, true)
	in, err := inherit(passed(t, fd), "1", "")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if !Listens(in.NBD, path) || !Listens(in.NBD, filepath.Join(dir, ".", "nbd.sock")) {
		t.Error("the inherited socket is not known again")
	}
	if Listens(in.NBD, filepath.Join(dir, "api.sock")) || Listens(nil, path) {
		t.Error("another socket is taken for the inherited one")
	}
	d := mustOpen(t, dir)
	if !d.Fresh() {
		t.Error("a folder with nothing but a socket is no fresh one")
	}
	d.Abandon()
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("the socket did not outlive a failed start: %v", err)
	} else {
		c.Close()
	}
	os.Remove(path)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDir(dir); err == nil || !strings.Contains(err.Error(), "holds nbd.sock") {
		t.Errorf("a file that only has the socket's name: %v", err)
	}
}

func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "n")
	for _, address := range []string{path, "@vstor-notify-" + strconv.Itoa(os.Getpid())} {
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		t.Setenv("NOTIFY_SOCKET", address)
		n := NewNotifier()
		if os.Getenv("NOTIFY_SOCKET") != "" {
			t.Error("children would speak for us")
		}
		if err := n.Tell("READY=1", "STATUS=fine"); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		if got, err := l.Read(b); err != nil || string(b[:got]) != "READY=1\nSTATUS=fine" {
			t.Errorf("%q %v", b[:got], err)
		}
	}
	if err := (Notifier{}).Tell("READY=1"); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"relative", path + "-nobody"} {
		if err := (Notifier{bad}).Tell("READY=1"); err == nil {
			t.Errorf("%s takes messages", bad)
		}
	}
}

// An error names the path that was asked for, and not the one that is renamed to it.
func TestSocketErrors(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{filepath.Join(dir, "none", "s"), filepath.Join(dir, "file", "s")} {
		os.WriteFile(filepath.Join(dir, "file"), nil, 0o600)
		if _, err := ListenUnix(path); err == nil || !strings.Contains(err.Error(), "cannot listen on "+path+":") ||
			strings.Contains(err.Error(), ".new") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestTLSSettings(t *testing.T) {
	for _, c := range []struct{ mode, dir, verify, says string }{
		{"optional", "/x", "true", ""},
		{"required", "/x", "false", ""},
		{"off", "/x", "false", ""},
		{"off", "", "false", ""},
		{"off", "/x", "true", "does nothing while nbd-tls is off"},
		{"optional", "", "false", "nbd-tls-dir is not set"},
		{"required", "", "true", "nbd-tls-dir is not set"},
		{"on", "/x", "false", "it must be off, optional, required"},
		{"", "/x", "false", "it must be off"},
	} {
		values := map[string][]string{"nbd-tls": {c.mode}, "nbd-tls-verify-peer": {c.verify}, "nbd-tls-dir": {c.dir}}
		_, err := complete(t, values)
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%v: %v; want %q", values, err, c.says)
		}
	}
}

// A path is kept as it was understood: the next start may stand in another folder.
func TestPathIsKeptAbsolute(t *testing.T) {
	d := mustOpen(t, filepath.Join(t.TempDir(), "d"))
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	c, keep, err := d.Resolve(Source{}, Source{}, flags("asd-size", "64M", "nbd-tls", "required", "nbd-tls-dir", "tls"),
		machine)
	want := filepath.Join(wd, "tls")
	if err != nil || c.NBDTLSDir != want || len(keep["nbd-tls-dir"]) != 1 || keep["nbd-tls-dir"][0] != want {
		t.Errorf("%q, kept %q, %v; want %q", c.NBDTLSDir, keep["nbd-tls-dir"], err, want)
	}
}
