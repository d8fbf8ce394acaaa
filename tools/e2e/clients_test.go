//go:build e2e

package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// fio writes blocks of all sizes from four connections and verifies them, before and after a restart
// and after a crash.
func TestFioVerify(t *testing.T) { t.Parallel(); fioVerify(t) }

func fioVerify(t *testing.T, more ...string) {
	need(t, "fio")
	d := newDeployment(t, append(more, small...)...)
	d.start()
	d.vstor("vdisk", "create", "fio", "--size", "256M")
	args := []string{"--name=verify", "--ioengine=nbd", "--uri=" + d.uri("fio"), "--rw=randwrite", "--bsrange=512-1M",
		"--iodepth=32", "--numjobs=4", "--size=60M", "--offset_increment=64M", "--verify=crc32c",
		"--verify_fatal=1", "--thread",
		"--verify_state_save=0", "--randseed=11", "--serialize_overlap=1"}
	client(t, "fio", append(args, "--do_verify=1")...)
	d.stop()
	d.start()
	client(t, "fio", append(args, "--verify_only=1")...)
	d.kill()
	d.start()
	client(t, "fio", append(args, "--verify_only=1")...)
	d.stop()
}

// The tools of other projects find what they expect.
func TestOtherClients(t *testing.T) {
	t.Parallel()
	need(t, "qemu-img", "qemu-io", "nbdinfo", "nbdcopy")
	d := newDeployment(t, small...)
	d.start()
	d.vstor("vdisk", "create", "demo", "--size", "64M")
	uri := d.uri("demo")

	info := client(t, "nbdinfo", uri)
	for _, want := range []string{"export-size: 67108864", "can_flush: true", "can_fua: true", "can_trim: true",
		"can_zero: true",
		"can_multi_conn: true", "is_read_only: false"} {
		if !strings.Contains(info, want) {
			t.Errorf("nbdinfo lacks %q:\n%s", want, info)
		}
	}
	if list := client(t, "nbdinfo", "--list", d.uri("")); !strings.Contains(list, `export="demo"`) {
		t.Errorf("nbdinfo --list:\n%s", list)
	}
	image := filepath.Join(t.TempDir(), "image")
	b := make([]byte, 64<<20)
	for i := range b {
		if i>>16%3 != 0 { // every third 64 KiB is a hole
			b[i] = byte(i*7 + i>>12)
		}
	}
	if err := os.WriteFile(image, b, 0o600); err != nil {
		t.Fatal(err)
	}
	client(t, "nbdcopy", "--flush", image, uri)
	client(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", image, uri)
	client(t, "qemu-io", "-f", "raw", "-c", "write -P 0xab 1000 5000", "-c", "read -P 0xab 1000 5000", "-c",
		"discard 1M 1M",
		"-c", "read -P 0 1M 1M", "-c", "write -z 3M 100k", "-c", "read -P 0 3M 100k", "-c", "flush", uri)
	client(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, uri)
	d.stop()
	d.start()
	client(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", image, uri)
	client(t, "nbdcopy", uri, image+".back")
	client(t, "cmp", image, image+".back")
	d.stop()
}

// A peer that breaks the protocol, or falls silent in the middle, harms nobody else.
func TestBadPeers(t *testing.T) {
	t.Parallel()
	d := newDeployment(t, small...)
	d.start()
	d.vstor("vdisk", "create", "demo", "--size", "16M")
	good, err := d.dial("demo")()
	if err != nil {
		t.Fatal(err)
	}
	defer good.Close()
	if _, err := d.dial("nope")(); err == nil || !strings.Contains(err.Error(), "nope") {
		t.Errorf("an export that does not exist: %v", err)
	}
	var silent []net.Conn
	for i, send := range []string{"", "GET / HTTP/1.1\r\n\r\n", strings.Repeat("\xff", 1<<16), "\x00\x00\x00\x03IHAVEOPT",
		"\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x07\xff\xff\xff\xff"} {
		c, err := net.Dial("unix", d.socket())
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(time.Minute))
		c.Write([]byte(send))
		if i%2 == 0 {
			silent = append(silent, c)
		} else {
			c.Close()
		}
	}
	p := []byte(strings.Repeat("good", 1024))
	for off := int64(0); off < 16<<20; off += 1 << 20 {
		if err := good.Write(p, off, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := good.Read(make([]byte, 4096), 16<<20-2048); err == nil {
		t.Error("a read beyond the end succeeds")
	}
	got := make([]byte, len(p))
	if err := good.Read(got, 5<<20); err != nil || string(got) != string(p) {
		t.Errorf("the good client: %v", err)
	}
	for _, c := range silent {
		c.Close()
	}
	d.stop()
}

// What the command refuses, what it says, and that nothing changes.
func TestBadInput(t *testing.T) {
	t.Parallel()
	d := newDeployment(t, small...)
	d.start()
	pid := strconv.Itoa(d.cmd.Process.Pid)
	d.vstor("vdisk", "create", "demo", "--size", "1G")
	for _, c := range []struct {
		args, says string
		code       int
	}{
		{"up", "process " + pid, 1},
		{"vdisk create demo --size 1G", "demo", 1},
		{"vdisk create .x --size 1G", "begins with", 1},
		{"vdisk create x --size 1Q", "powers of 1024", 1},
		{"vdisk create x", "--size", 2},
		{"vdisk rm nope", "nope", 1},
		{"asd show 99", "99", 1},
		{"frob", "no command", 2},
	} {
		code, stdout, stderr := d.try(strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(stderr, c.says) || stdout != "" || strings.Contains(stderr, "goroutine ") {
			t.Errorf("vstor %s: %d %q %q; want %d and %q", c.args, code, stdout, stderr, c.code, c.says)
		}
	}
	conn, err := d.dial("demo")()
	if err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := d.try("vdisk", "rm", "demo"); code != 1 || !strings.Contains(stderr, "in use") {
		t.Errorf("removing a vDisk in use: %d %q", code, stderr)
	}
	conn.Close()
	d.stop()
	if code, _, stderr := d.try("up", "--asds", "7"); code != 1 || !strings.Contains(stderr,
		"asds is 6 and cannot become 7") {
		t.Errorf("another number of ASDs: %d %q", code, stderr)
	}
	if code, _, stderr := d.try("status"); code != 1 || !strings.Contains(stderr, "vstor up --dir") {
		t.Errorf("status of a stopped deployment: %d %q", code, stderr)
	}
	fresh := filepath.Join(t.TempDir(), "fresh")
	code, _, stderr := d.try("up", "--dir", fresh, "--policy", "8,3,9,1")
	if code != 1 || !strings.Contains(stderr, "have room for 6") {
		t.Errorf("a policy too large: %d %q", code, stderr)
	}
	if _, err := os.Stat(fresh); !os.IsNotExist(err) {
		t.Error("a refused start left its folder behind")
	}
}

// Under load the process stays within the sum of its pools and the allowance, and status says that sum.
func TestMemoryStaysBounded(t *testing.T) {
	need(t, "fio")
	d := newDeployment(t, append(small, "--memory", "384M")...)
	d.start()
	d.vstor("vdisk", "create", "demo", "--size", "256M")
	client(t, "fio", "--name=load", "--ioengine=nbd", "--uri="+d.uri("demo"), "--rw=randrw", "--bsrange=4k-256k",
		"--iodepth=64",
		"--numjobs=4", "--time_based", "--runtime=5", "--size=256M", "--thread", "--group_reporting")
	var pools, allowance, resident int64
	for _, l := range strings.Split(d.vstor("status", "--memory", "--json"), "\n") {
		fmt.Sscanf(strings.TrimSpace(l), `"pool_bytes": %d`, &pools)
		fmt.Sscanf(strings.TrimSpace(l), `"allowance_bytes": %d`, &allowance)
		fmt.Sscanf(strings.TrimSpace(l), `"resident_bytes": %d`, &resident)
	}
	t.Logf("pools %d MiB, allowance %d MiB, resident %d MiB", pools>>20, allowance>>20, resident>>20)
	if pools == 0 || resident == 0 || resident > pools+allowance {
		t.Errorf("%d bytes are resident; the pools hold at most %d and the rest %d", resident, pools, allowance)
	}
	d.stop()
}
