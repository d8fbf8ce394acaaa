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

	"vstor/dataplane/block"
	"vstor/dataplane/nbd"
)

// holey writes a disk with data, holes and allocated zeros, and gives its content and the state of each
// block.
func holey(t *testing.T, r *rig) (data []byte, states []block.ExtentState) {
	t.Helper()
	const blk = 4096
	size := r.ram.Info().Size
	c := r.dial()
	data = make([]byte, size)
	rnd := rand.New(rand.NewPCG(1, 9))
	for at := int64(0); at < size; {
		n := min(size-at, blk*(1+rnd.Int64N(1<<uint(rnd.IntN(8)))))
		state := block.Hole | block.ReadsZero
		switch rnd.IntN(4) {
		case 0:
			state = 0
			must(t, c.WriteAt(fill(data[at:at+n], uint64(at)), at, 0))
		case 1:
			state = block.ReadsZero
			must(t, c.Zero(at, n, nbd.FlagNoHole))
		case 2:
			must(t, c.WriteAt(fill(make([]byte, n), 5), at, 0))
			must(t, c.Trim(at, n, 0))
		}
		for ; n > 0; n -= blk {
			states = append(states, state)
			at += blk
		}
	}
	must(t, c.Close())
	return data, states
}

// TestNbdinfoMap: nbdinfo's maps are the device's, in both contexts.
func TestNbdinfoMap(t *testing.T) {
	nbdinfo := tool(t, "nbdinfo", "libnbd-bin")
	r := newRig(t, rigOptions{size: 8 << 20})
	_, states := holey(t, r)
	for _, grain := range []int{0, 3} {
		r.loop.Call(func() { r.ram.Grain = grain })
		for ctx, of := range map[string]func(block.ExtentState) int{
			ctxAllocation: func(s block.ExtentState) int { return int(s) },
			ctxDepth:      func(s block.ExtentState) int { return int(^s & block.Hole) },
		} {
			var got []struct{ Offset, Length, Type int }
			must(t, json.Unmarshal([]byte(run(t, nbdinfo, "--json", "--map="+ctx, r.uri())), &got))
			at := 0
			for i, e := range got {
				if e.Offset != at || (i > 0 && got[i-1].Type == e.Type && grain == 0) {
					t.Fatalf("%s: extent %d of %v", ctx, i, got)
				}
				for ; at < e.Offset+e.Length; at += 4096 {
					if of(states[at/4096]) != e.Type {
						t.Fatalf("%s: block at %d is said to be %d", ctx, at, e.Type)
					}
				}
			}
			if at != 8<<20 {
				t.Errorf("%s: the map ends at %d", ctx, at)
			}
		}
	}
	if out := run(t, nbdinfo, "--json", r.uri()); !strings.Contains(out, `"`+ctxAllocation+`"`) ||
		!strings.Contains(out, `"`+ctxDepth+`"`) || !strings.Contains(out, `"structured": true`) {
		t.Errorf("contexts or structured replies are missing: %s", out)
	}
}

// TestNbdinfoCan: every question of nbdinfo, for an export that is written and for one that is not.
func TestNbdinfoCan(t *testing.T) {
	nbdinfo := tool(t, "nbdinfo", "libnbd-bin")
	for _, ro := range []bool{false, true} {
		r := newRig(t, rigOptions{info: block.Info{ReadOnly: ro, Rotational: ro}})
		for what, want := range map[string]bool{"connect": true, "read": true, "write": !ro, "trim": !ro, "zero": !ro,
			"fast-zero": !ro, "flush": true, "fua": true, "df": true, "cache": true, "multi-conn": true,
			"structured-reply": true} {
			err := exec.Command(nbdinfo, "--can", what, r.uri()).Run()
			if (err == nil) != want {
				t.Errorf("read-only %v: can %s: %v, want %v", ro, what, err == nil, want)
			}
		}
		for what, want := range map[string]bool{"read-only": ro, "rotational": ro, "tls": false} {
			err := exec.Command(nbdinfo, "--is", what, r.uri()).Run()
			if (err == nil) != want {
				t.Errorf("read-only %v: is %s: %v, want %v", ro, what, err == nil, want)
			}
		}
	}
}

// TestQemuMap: qemu-img sees every hole where it is, and a copy by it has the same bytes.
func TestQemuMap(t *testing.T) {
	qemuImg := tool(t, "qemu-img", "qemu-utils")
	r := newRig(t, rigOptions{size: 8 << 20})
	data, states := holey(t, r)
	var got []struct {
		Start, Length int
		Zero, Data    bool
	}
	must(t, json.Unmarshal([]byte(run(t, qemuImg, "map", "--output=json", "-f", "raw", r.uri())), &got))
	at := 0
	for _, e := range got {
		for ; at < e.Start+e.Length; at += 4096 {
			if s := states[at/4096]; (s&block.ReadsZero != 0) != e.Zero || (s&block.Hole == 0) != e.Data {
				t.Fatalf("block at %d is %v, qemu-img says %+v", at, s, e)
			}
		}
	}
	if at != 8<<20 {
		t.Errorf("the map ends at %d", at)
	}
	file := filepath.Join(t.TempDir(), "copy")
	run(t, qemuImg, "convert", "-f", "raw", "-O", "raw", r.uri(), file)
	copied, err := os.ReadFile(file)
	must(t, err)
	if !bytes.Equal(copied, data) {
		t.Error("what came out is not what went in")
	}
	run(t, qemuImg, "compare", "-f", "raw", "-F", "raw", r.uri(), file)
	run(t, qemuImg, "bench", "-f", "raw", "-c", "500", "-d", "16", "-s", "4096", r.uri())
}

// TestCopyHoles: nbdcopy of a sparse disk onto another that is full of something else: the same bytes, and
// holes where holes were.
func TestCopyHoles(t *testing.T) {
	nbdcopy, nbdinfo := tool(t, "nbdcopy", "libnbd-bin"), tool(t, "nbdinfo", "libnbd-bin")
	from, to := newRig(t, rigOptions{size: 8 << 20}), newRig(t, rigOptions{size: 8 << 20})
	data, _ := holey(t, from)
	fillDisk(t, to)
	run(t, nbdcopy, "--connections=8", "--requests=16", "--flush", "--allocated", from.uri(), to.uri())
	c := to.dialMode(nbd.Structured)
	got := make([]byte, len(data))
	must(t, c.ReadAt(got, 0))
	if !bytes.Equal(got, data) {
		t.Error("what came out is not what went in")
	}
	must(t, c.Close())
	// Without --allocated nbdcopy trims.
	run(t, nbdcopy, "--connections=8", from.uri(), to.uri())
	c = to.dialMode(nbd.Extended)
	must(t, c.ReadAt(got, 0))
	if !bytes.Equal(got, data) {
		t.Error("what came out is not what went in")
	}
	must(t, c.Close())
	holes := func(r *rig) (n int) {
		var m []struct{ Length, Type int }
		must(t, json.Unmarshal([]byte(run(t, nbdinfo, "--json", "--map", r.uri())), &m))
		for _, e := range m {
			n += e.Length * (e.Type & int(block.ReadsZero)) / int(block.ReadsZero)
		}
		return n
	}
	if a, b := holes(from), holes(to); a != b {
		t.Errorf("%d bytes of zeros became %d", a, b)
	}
}

// TestNbdsh drives libnbd's calls one by one: structured reads with their chunks, errors with their
// sentences, wildcards, strict mode off.
func TestNbdsh(t *testing.T) {
	python := ""
	for _, p := range []string{"/usr/bin/python3", "python3"} { // the first is the one Debian's package is for
		if exec.Command(p, "-c", "import nbd").Run() == nil {
			python = p
			break
		}
	}
	if python == "" {
		t.Skip("SKIPPED: nbdsh is not installed (Debian: python3-libnbd)")
	}
	r := newRig(t, rigOptions{})
	script := fmt.Sprintf(`
import errno
h.set_strict_mode(0)
h.set_opt_mode(True)
h.add_meta_context("base:allocation")
h.connect_uri(%q)
names = []
assert h.opt_list_meta_context(lambda n: names.append(n)) == 1, names
h.clear_meta_contexts()
names = []
assert h.opt_list_meta_context(lambda n: names.append(n)) == 2, names
h.add_meta_context("base:")
names = []
assert h.opt_list_meta_context(lambda n: names.append(n)) == 1 and names == ["base:allocation"], names
h.clear_meta_contexts()
h.add_meta_context("base:allocation")
h.add_meta_context("x-nobody:knows")
h.opt_go()
assert h.get_structured_replies_negotiated() and h.can_df() and h.can_cache() and h.can_fast_zero()
assert h.can_meta_context("base:allocation") and not h.can_meta_context("x-nobody:knows")
h.pwrite(b"x" * 65536, 65536)
h.zero(65536, 131072, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_FUA)
seen = []
def chunk(buf, off, status, err):
    seen.append((off, len(buf), status))
b = h.pread_structured(262144, 0, chunk)
assert b == bytearray(65536) + b"x" * 65536 + bytearray(131072)
assert seen == [(0, 65536, nbd.READ_HOLE), (65536, 65536, nbd.READ_DATA), (131072, 131072, nbd.READ_HOLE)], seen
seen = []
h.pread_structured(262144, 0, chunk, nbd.CMD_FLAG_DF)
assert seen == [(0, 262144, nbd.READ_DATA)], seen
ext = []
h.block_status(262144, 0, lambda ctx, off, e, err: ext.extend([ctx, off, list(e)]))
assert ext == ["base:allocation", 0, [65536, 3, 65536, 0, 65536, 2, 65536, 3]], ext
ext = []
h.block_status(262144, 4096, lambda ctx, off, e, err: ext.extend(e), nbd.CMD_FLAG_REQ_ONE)
assert ext == [61440, 3], ext
h.cache(4096, 0)
for what, want in [(lambda: h.pread(512, h.get_size()), errno.EINVAL),
                   (lambda: h.pwrite(b"y" * 512, h.get_size()), errno.ENOSPC),
                   (lambda: h.trim(512, h.get_size()), errno.EINVAL),
                   (lambda: h.zero(512, h.get_size()), errno.ENOSPC),
                   (lambda: h.cache(512, h.get_size()), errno.EINVAL),
                   (lambda: h.cache(512, 0, nbd.CMD_FLAG_DF), errno.EINVAL),
                   (lambda: h.flush(nbd.CMD_FLAG_NO_HOLE), errno.EINVAL),
                   (lambda: h.block_status(512, h.get_size(), lambda *a: 0), errno.EINVAL)]:
    try:
        what()
        assert False
    except nbd.Error as e:
        assert e.errnum == want, (e, want)
assert h.pread(65536, 65536) == b"x" * 65536
h.shutdown()
`, "nbd+unix:///disk?socket="+r.sock)
	run(t, python, "-m", "nbd", "-c", script)
}
