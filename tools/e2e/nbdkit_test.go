//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// nbdkit puts an nbdkit with filters between clients and the vDisk, and returns the address that it serves. The
// words are those of its command line. The test's end stops it too.
func (d *deployment) nbdkit(t *testing.T, name string, words ...string) (uri string, stop func()) {
	t.Helper()
	dir := t.TempDir()
	socket, pid := filepath.Join(dir, "s"), filepath.Join(dir, "pid")
	args := []string{"-f", "-U", socket, "-P", pid, "--exit-with-parent"}
	var params []string
	for _, w := range words {
		if strings.HasPrefix(w, "--") {
			args = append(args, w)
		} else {
			params = append(params, w)
		}
	}
	args = append(args, "nbd", "socket="+d.socket(), "export="+name)
	cmd := exec.Command("nbdkit", append(args, params...)...)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan bool)
	go func() { cmd.Wait(); close(ended) }()
	stop = func() {
		cmd.Process.Kill()
		<-ended
		if t.Failed() && said.Len() > 0 {
			t.Logf("what nbdkit said last:\n%s", tail(said.String(), 10))
		}
	}
	t.Cleanup(stop)
	until(t, "nbdkit does not start", func() bool {
		select {
		case <-ended:
			t.Fatalf("nbdkit has ended: %s", said.String())
		default:
		}
		_, err := os.Stat(pid)
		return err == nil
	})
	return "nbd+unix:///?socket=" + socket, stop
}

// qemuIO runs commands of qemu-io and returns what it said, and whether all of them went well.
func qemuIO(t *testing.T, uri string, commands ...string) (string, bool) {
	t.Helper()
	args := []string{"-f", "raw"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	status, out := exitStatus(t, "qemu-io", append(args, uri)...)
	return out, status == 0
}

// same sees that vDisks begin with what a file holds, and hold zeros after it.
func same(t *testing.T, file string, uris ...string) {
	t.Helper()
	for _, uri := range uris {
		client(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", file, uri)
	}
}

// nbdkit stands between client and server and delays, cuts up, fails and retries what they say. Whatever it does,
// clients get all of it right or the error that was put in, and what they wrote is there.
func TestNBDKitBetween(t *testing.T) {
	t.Parallel()
	need(t, "nbdkit", "fio", "qemu-io", "qemu-img", "nbdcopy")
	d := newDeployment(t, small...)
	d.start()
	for _, name := range []string{"retry", "error", "delay", "blocksize"} {
		d.vstor("vdisk", "create", name, "--size", "64M")
	}
	t.Run("retry", func(t *testing.T) { betweenRetry(t, d) })
	t.Run("error", func(t *testing.T) { betweenError(t, d) })
	t.Run("delay", func(t *testing.T) { betweenDelay(t, d) })
	t.Run("blocksize", func(t *testing.T) { betweenBlocksize(t, d) })
	d.stop()
}

// The server is killed twice in the middle of a copy; nbdkit connects again and repeats what was under way.
func betweenRetry(t *testing.T, d *deployment) {
	uri, stop := d.nbdkit(t, "retry", "--filter=retry", "--filter=delay", "retries=60", "retry-delay=1",
		"retry-exponential=no", "wdelay=20ms")
	defer stop()
	file, _ := holedImage(t, 24<<20)
	done := make(chan error, 1)
	go func() {
		out, err := exec.Command("nbdcopy", "--connections=2", "--requests=2", "--request-size=65536", "--flush", file,
			uri).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		done <- err
	}()
	for range 2 {
		time.Sleep(700 * time.Millisecond)
		d.kill()
		d.start()
	}
	if err := <-done; err != nil {
		t.Errorf("nbdcopy: %v", err)
	}
	same(t, file, d.uri("retry"), uri)
}

// While a file exists, everything fails with the error that nbdkit was told; before and afterwards nothing does,
// on the same connection to the server.
func betweenError(t *testing.T, d *deployment) {
	trigger := filepath.Join(t.TempDir(), "trigger")
	uri, stop := d.nbdkit(t, "error", "--filter=error", "error=ENOSPC", "error-rate=100%", "error-file="+trigger)
	defer stop()
	if out, ok := qemuIO(t, uri, "write -P 7 0 1M", "read -P 7 0 1M"); !ok {
		t.Fatal(out)
	}
	if err := os.WriteFile(trigger, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{"read 0 4k", "write -P 8 0 1M", "write -z 0 1M", "discard 0 1M"} {
		if out, ok := qemuIO(t, uri, c); ok || !strings.Contains(out, "No space left") {
			t.Errorf("%s: %v %s; ENOSPC was put in", c, ok, out)
		}
	}
	os.Remove(trigger)
	if out, ok := qemuIO(t, uri, "read -P 7 0 1M", "write -P 9 1M 1M", "read -P 9 1M 1M"); !ok {
		t.Error(out)
	}
	// One request in fifty fails, and is asked again by a filter above.
	uri, stop2 := d.nbdkit(t, "error", "--filter=retry-request", "--filter=error", "error=EIO", "error-rate=2%",
		"retry-request-retries=20", "retry-request-delay=1")
	defer stop2()
	file, _ := holedImage(t, 24<<20)
	client(t, "nbdcopy", "--connections=4", "--request-size=65536", "--flush", file, uri)
	same(t, file, d.uri("error"), uri)
}

// Requests that dawdle overtake one another, and are verified.
func betweenDelay(t *testing.T, d *deployment) {
	uri, stop := d.nbdkit(t, "delay", "--filter=delay", "rdelay=5ms", "wdelay=10ms")
	defer stop()
	client(t, "fio", "--name=delay", "--ioengine=nbd", "--uri="+uri, "--rw=randwrite", "--bsrange=512-64k",
		"--iodepth=16", "--size=16M", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--thread",
		"--verify_state_save=0", "--serialize_overlap=1")
}

// nbdkit talks to the server in pieces of 4 to 64 KiB, whatever its client asks for; and passes crooked requests on
// as they are.
func betweenBlocksize(t *testing.T, d *deployment) {
	uri, stop := d.nbdkit(t, "blocksize", "--filter=blocksize", "minblock=4096", "maxdata=65536", "maxlen=1M")
	defer stop()
	client(t, "fio", "--name=blocksize", "--ioengine=nbd", "--uri="+uri, "--rw=randwrite", "--bsrange=512-1M",
		"--bs_unaligned=1", "--iodepth=1", "--size=32M", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--thread",
		"--verify_state_save=0")
	file, _ := holedImage(t, 64<<20)
	client(t, "nbdcopy", file, uri)
	if out, ok := qemuIO(t, uri, "write -z -u 1000 3M", "write -P 5 12345 54321", "read -P 5 12345 54321"); !ok {
		t.Error(out)
	}
	if out, ok := qemuIO(t, file, "write -z -u 1000 3M", "write -P 5 12345 54321"); !ok {
		t.Error(out)
	}
	same(t, file, d.uri("blocksize"), uri)
}
