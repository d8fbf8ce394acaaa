package nbd_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tool finds a real client, or skips the test in a way that is seen.
func tool(t *testing.T, name, debian string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("SKIPPED: %s is not installed (Debian: %s); `make test` installs it", name, debian)
	}
	return path
}

func (r *rig) uri() string { return "nbd+unix:///disk?socket=" + r.sock }

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	var errOut bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, errOut.Bytes())
	}
	return string(out)
}

func TestNbdinfo(t *testing.T) {
	nbdinfo := tool(t, "nbdinfo", "libnbd-bin")
	r := newRig(t, rigOptions{withTCP: true})
	for _, uri := range []string{r.uri(), "nbd://" + r.tcp + "/disk"} {
		var info struct {
			Protocol string
			Exports  []map[string]any
		}
		must(t, json.Unmarshal([]byte(run(t, nbdinfo, "--json", uri)), &info))
		if info.Protocol != "newstyle-fixed" || len(info.Exports) != 1 {
			t.Fatalf("%+v", info)
		}
		for k, want := range map[string]any{"export-name": "disk", "description": "a disk of RAM",
			"export-size": float64(16 << 20), "is_read_only": false, "is_rotational": false, "can_flush": true,
			"can_fua": true, "can_trim": true, "can_zero": true, "can_multi_conn": true, "can_df": true,
			"can_cache": true, "can_fast_zero": true, "block_size_minimum": 1., "block_size_preferred": 4096.,
			"block_size_maximum": float64(32 << 20)} {
			if got := info.Exports[0][k]; got != want {
				t.Errorf("%s: %v, want %v", k, got, want)
			}
		}
	}
	if out := run(t, nbdinfo, "--list", "--json", "nbd+unix:///?socket="+r.sock); !strings.Contains(out, `"disk"`) {
		t.Errorf("list: %s", out)
	}
	out, err := exec.Command(nbdinfo, "nbd+unix:///nonsense?socket="+r.sock).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "No such file or directory for export: nonsense") {
		t.Errorf("an export that is not there: %v\n%s", err, out)
	}
}

func TestNbdcopy(t *testing.T) {
	nbdcopy := tool(t, "nbdcopy", "libnbd-bin")
	r := newRig(t, rigOptions{size: 32 << 20})
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	p := fill(make([]byte, 32<<20), 9)
	clear(p[5<<20 : 9<<20])
	must(t, os.WriteFile(in, p, 0o600))
	run(t, nbdcopy, "--connections=8", "--flush", in, r.uri())
	run(t, nbdcopy, "--connections=8", r.uri(), out)
	got, err := os.ReadFile(out)
	must(t, err)
	if !bytes.Equal(got, p) {
		t.Error("what came out is not what went in")
	}
}

// TestQemuIO runs random scripts against the server and against a plain file; the two must end up the
// same, and so must every read on the way (qemu-io checks patterns).
func TestQemuIO(t *testing.T) {
	qemuIO, qemuImg := tool(t, "qemu-io", "qemu-utils"), tool(t, "qemu-img", "qemu-utils")
	const size = 4 << 20
	r := newRig(t, rigOptions{size: size})
	file := filepath.Join(t.TempDir(), "plain")
	must(t, os.WriteFile(file, make([]byte, size), 0o600))
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 4 {
		var script []string
		for range 60 {
			off := rnd.Int64N(size)
			n := 1 + rnd.Int64N(min(size-off, 1<<uint(1+rnd.IntN(20))))
			switch rnd.IntN(6) {
			case 0, 1, 2:
				script = append(script, fmt.Sprintf("aio_write -P %d %d %d", rnd.IntN(256), off, n), "aio_flush")
			case 3:
				script = append(script, fmt.Sprintf("write -f -P %d %d %d", rnd.IntN(256), off, n))
			case 4:
				script = append(script, fmt.Sprintf("write -z %d %d", off, n))
			case 5:
				script = append(script, fmt.Sprintf("write -P 7 %d %d", off, n), fmt.Sprintf("read -P 7 %d %d", off, n),
					"flush")
			}
		}
		for _, target := range []string{r.uri(), file} {
			cmd := exec.Command(qemuIO, "-f", "raw", target)
			cmd.Stdin = strings.NewReader(strings.Join(script, "\n") + "\nquit\n")
			out, err := cmd.CombinedOutput()
			if err != nil || bytes.Contains(out, []byte("verification failed")) || bytes.Contains(out, []byte("failed:")) {
				t.Fatalf("qemu-io on %s: %v\n%s", target, err, out)
			}
		}
		run(t, qemuImg, "compare", "-f", "raw", "-F", "raw", r.uri(), file)
	}
}

// TestFioVerify: mixed sizes from 512 B to 1 MiB, any 512 B alignment, four connections, out-of-order
// completion, every block verified by its crc32c.
func TestFioVerify(t *testing.T) {
	fio := tool(t, "fio", "fio")
	r := newRig(t, rigOptions{size: 64 << 20, pool: 256 << 20})
	r.shuffle(8, 300*time.Microsecond)
	out := run(t, fio, "--name=v", "--ioengine=nbd", "--uri="+r.uri(), "--rw=randwrite", "--bsrange=512-1m",
		"--bs_unaligned=0", "--blockalign=512", "--iodepth=32", "--numjobs=4", "--size=16m", "--offset_increment=16m",
		"--verify=crc32c", "--verify_state_save=0", "--do_verify=1", "--verify_fatal=1",
		"--randrepeat=0", "--group_reporting")
	if !strings.Contains(out, "err= 0") {
		t.Errorf("%s", out)
	}
}
