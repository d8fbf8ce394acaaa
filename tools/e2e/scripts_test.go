//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"vstor/bench/nbdc"
)

// scriptDisk is the size of the vDisk that scripts are run against: no multiple of anything but a block.
const scriptDisk = 8<<20 + 3*4096

// The states of a block, as base:allocation has them: bit 0 is a hole, bit 1 reads as zeros.
const (
	stateData = 0
	stateZero = 2
	stateHole = 3
)

// blockModel is what base:allocation should say of each 4 KiB block. A plain file cannot tell: its file system has
// a granularity of its own, counts preallocated blocks as holes or not as it likes, and SEEK_DATA finds data where
// dirty pages are. So contents are compared with a plain file, and holes with this.
type blockModel []uint8

// write makes all blocks that are touched data.
func (m blockModel) write(off, n int64) {
	for b := off / 4096; b*4096 < off+n; b++ {
		m[b] = stateData
	}
}

// discard makes holes of the whole blocks inside.
func (m blockModel) discard(off, n int64) {
	for b := (off + 4095) / 4096; (b+1)*4096 <= off+n; b++ {
		m[b] = stateHole
	}
}

// zero makes whole blocks holes, or zeros that stay allocated. A block that is covered in part follows if it read
// as zeros already; otherwise it keeps data.
func (m blockModel) zero(off, n int64, unmap bool) {
	state := uint8(stateZero)
	if unmap {
		state = stateHole
	}
	for b := off / 4096; b*4096 < off+n; b++ {
		if whole := b*4096 >= off && (b+1)*4096 <= off+n; whole || m[b] != stateData {
			m[b] = state
		}
	}
}

// extent is a run of bytes in one state.
type extent struct {
	off, n int64
	state  uint8
}

func (m blockModel) extents() (out []extent) {
	for b, s := range m {
		out = joined(out, extent{int64(b) * 4096, 4096, s})
	}
	return out
}

// joined appends e, to the last extent if it goes on there.
func joined(list []extent, e extent) []extent {
	if n := len(list); n > 0 && list[n-1].state == e.state && list[n-1].off+list[n-1].n == e.off {
		list[n-1].n += e.n
		return list
	}
	return append(list, e)
}

// mapByQEMU is what qemu-img finds: a hole is not data.
func mapByQEMU(t *testing.T, uri string) (out []extent) {
	t.Helper()
	var list []struct {
		Start, Length int64
		Zero, Data    bool
	}
	if err := json.Unmarshal([]byte(client(t, "qemu-img", "map", "-f", "raw", "--output=json", uri)), &list); err != nil {
		t.Fatal(err)
	}
	for _, l := range list {
		e := extent{l.Start, l.Length, 0}
		if l.Zero {
			e.state |= 2
		}
		if !l.Data {
			e.state |= 1
		}
		out = joined(out, e)
	}
	return out
}

// mapByLibnbd is what nbdinfo finds.
func mapByLibnbd(t *testing.T, uri string) (out []extent) {
	t.Helper()
	var list []struct {
		Offset, Length int64
		Type           uint8
	}
	if err := json.Unmarshal([]byte(client(t, "nbdinfo", "--map", "--json", uri)), &list); err != nil {
		t.Fatal(err)
	}
	for _, l := range list {
		out = joined(out, extent{l.Offset, l.Length, l.Type})
	}
	return out
}

// scripter makes qemu-io scripts, runs them against a vDisk and a plain file, and keeps the model.
type scripter struct {
	t     *testing.T
	rng   *rand.Rand
	d     *deployment
	file  string
	model blockModel
}

// span is a random range: mostly short, mostly crooked, sometimes at the end of the disk.
func (s *scripter) span(aligned bool) (off, n int64) {
	n = 1 + s.rng.Int64N([]int64{600, 9000, 70000, 1 << 20}[s.rng.IntN(4)])
	off = s.rng.Int64N(scriptDisk - n)
	if s.rng.IntN(20) == 0 {
		off = scriptDisk - n
	}
	if aligned || s.rng.IntN(3) == 0 {
		off &^= 4095
		n = min((n+4095)&^4095, scriptDisk-off)
	}
	return off, n
}

// command is a random command, as it is given for the vDisk and for the file. They differ in discards only: what
// becomes of a block that is discarded in part is left to the server, and vstor keeps it.
func (s *scripter) command() (ours, files []string) {
	both := func(format string, args ...any) ([]string, []string) {
		c := fmt.Sprintf(format, args...)
		return []string{c}, []string{c}
	}
	off, n := s.span(false)
	switch s.rng.IntN(12) {
	case 0, 1, 2, 3:
		s.model.write(off, n)
		flag := []string{"", "-f "}[s.rng.IntN(2)]
		return both("write %s-P %d %d %d", flag, s.rng.IntN(256), off, n)
	case 4:
		s.model.write(off, n)
		return both("aio_write -P %d %d %d", 1+s.rng.IntN(255), off, n)
	case 5, 6:
		s.model.zero(off, n, false)
		return both("write -z %d %d", off, n)
	case 7, 8:
		s.model.zero(off, n, true)
		return both("write -z -u %d %d", off, n)
	case 9:
		s.model.discard(off, n)
		ours = []string{fmt.Sprintf("discard %d %d", off, n)}
		if from, to := (off+4095)&^4095, (off+n)&^4095; from < to {
			files = []string{fmt.Sprintf("discard %d %d", from, to-from)}
		}
		return ours, files
	case 10:
		return both("flush")
	default:
		return both("read %d %d", off, n)
	}
}

// run runs a script of some commands. Commands after an aio_write wait for it: overlapping requests under way at
// the same time have no order.
func (s *scripter) run() {
	s.t.Helper()
	common := []string{"-f", "raw", "-d", "unmap"}
	ours, files := slices.Clone(common), slices.Clone(common)
	add := func(to *[]string, commands []string) {
		for _, c := range commands {
			*to = append(*to, "-c", c)
			if strings.HasPrefix(c, "aio_write") {
				*to = append(*to, "-c", "aio_flush")
			}
		}
	}
	for range 8 + s.rng.IntN(32) {
		o, f := s.command()
		add(&ours, o)
		add(&files, f)
	}
	client(s.t, "qemu-io", append(ours, s.d.uri("disk"))...)
	client(s.t, "qemu-io", append(files, s.file)...)
}

// content is what the vDisk reads as.
func (s *scripter) content() []byte {
	s.t.Helper()
	b := make([]byte, scriptDisk)
	c, err := nbdc.Dial("unix", s.d.socket(), "disk")
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	for off := 0; off < len(b); off += 1 << 20 {
		if err := c.Read(b[off:min(off+1<<20, len(b))], int64(off)); err != nil {
			s.t.Fatal(err)
		}
	}
	return b
}

// compare compares bytes with the file and holes with the model; thorough also by other clients' copies.
func (s *scripter) compare(thorough bool) {
	s.t.Helper()
	uri := s.d.uri("disk")
	want, err := os.ReadFile(s.file)
	if err != nil {
		s.t.Fatal(err)
	}
	if got := s.content(); !bytes.Equal(got, want) {
		for i := range got {
			if got[i] != want[i] {
				s.t.Fatalf("byte %d (block %d) is %#x, and %#x in the plain file", i, i/4096, got[i], want[i])
			}
		}
	}
	model := s.model.extents()
	for _, by := range []func(*testing.T, string) []extent{mapByQEMU, mapByLibnbd} {
		if got := by(s.t, uri); !slices.Equal(got, model) {
			i := 0
			for ; i < min(len(got), len(model)) && got[i] == model[i]; i++ {
			}
			s.t.Fatalf("extent %d differs: offset, length and state are %v, and should be %v", i,
				got[min(i, len(got)-1)], model[min(i, len(model)-1)])
		}
	}
	if thorough {
		client(s.t, "qemu-img", "compare", "-f", "raw", "-F", "raw", s.file, uri)
		copied := s.file + ".copied"
		os.Remove(copied)
		client(s.t, "nbdcopy", "--connections=8", uri, copied)
		client(s.t, "cmp", s.file, copied)
	}
}

// Random scripts of qemu-io do the same to a vDisk as to a plain file, byte for byte, and base:allocation tells what
// they did, block for block; also after an orderly restart and after kill -9. VSTOR_SCRIPTS is how many,
// VSTOR_SCRIPTS_SEED repeats a run.
func TestRandomScripts(t *testing.T) {
	t.Parallel()
	need(t, "qemu-io", "qemu-img", "nbdinfo", "nbdcopy")
	scripts, seed := 60, uint64(time.Now().UnixNano())
	if n, err := strconv.Atoi(os.Getenv("VSTOR_SCRIPTS")); err == nil {
		scripts = n
	}
	if n, err := strconv.ParseUint(os.Getenv("VSTOR_SCRIPTS_SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("%d scripts, seed %d", scripts, seed)
	d := newDeployment(t, "--asd-size", "256M", "--journal", "64M", "--sco-size", "1M")
	d.start()
	d.vstor("vdisk", "create", "disk", "--size", strconv.Itoa(scriptDisk))
	s := &scripter{t: t, rng: rand.New(rand.NewPCG(seed, 4)), d: d, file: filepath.Join(t.TempDir(), "plain"),
		model: make(blockModel, scriptDisk/4096)}
	if err := os.WriteFile(s.file, make([]byte, scriptDisk), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range s.model {
		s.model[i] = stateHole
	}
	s.compare(true)
	for i := range scripts {
		s.run()
		if t.Failed() {
			return
		}
		s.compare(i%10 == 9)
		switch {
		case i%20 == 9:
			d.kill()
			d.start()
			s.compare(false)
		case i%20 == 19:
			d.stop()
			d.start()
			s.compare(false)
		}
	}
	d.stop()
}

// exitStatus is a program's, 0 for success.
func exitStatus(t *testing.T, name string, args ...string) (int, string) {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if ee, ok := err.(*exec.ExitError); ok {
		return ee.ExitCode(), string(out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return 0, string(out)
}
