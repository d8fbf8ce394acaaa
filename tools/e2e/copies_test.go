//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// holedImage is a file of size bytes with data and holes, and what base:allocation says of a vDisk that it was
// copied to by a client that keeps holes.
func holedImage(t *testing.T, size int64) (file string, model blockModel) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "image")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	model = make(blockModel, size/4096)
	for i := range model {
		model[i] = stateHole
	}
	p := make([]byte, 64<<10)
	for off := int64(0); off < size; off += 64 << 10 {
		if off>>16%3 == 0 { // every third 64 KiB is a hole
			continue
		}
		for i := range p {
			p[i] = byte(int64(i)*7 + off>>12 + off>>20 + 1)
		}
		if _, err := f.WriteAt(p, off); err != nil {
			t.Fatal(err)
		}
		model.write(off, int64(len(p)))
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	return file, model
}

// nbdcopy with eight connections, and qemu-img, copy in and out, byte for byte and hole for hole.
func TestCopies(t *testing.T) {
	t.Parallel()
	need(t, "qemu-img", "nbdcopy", "nbdinfo")
	const size = 96<<20 + 4096
	d := newDeployment(t, small...)
	d.start()
	file, model := holedImage(t, size)
	for _, in := range [][]string{ // in this order: the second is compared with the first
		{"nbdcopy", "--connections=8", "--requests=16", "--flush"},
		{"qemu-img", "convert", "-n", "-W", "-m", "8", "-f", "raw", "-O", "raw"},
	} {
		name := in[0]
		d.vstor("vdisk", "create", name, "--size", strconv.Itoa(size))
		uri := d.uri(name)
		if got := mapByLibnbd(t, uri); !slices.Equal(got, []extent{{0, size, stateHole}}) {
			t.Errorf("a new vDisk has extents %v", got)
		}
		for round := range 2 { // into an empty vDisk, and over what is there
			client(t, in[0], append(in[1:], file, uri)...)
			client(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", file, uri)
			for _, by := range []func(*testing.T, string) []extent{mapByQEMU, mapByLibnbd} {
				if got := zeros(by(t, uri)); !slices.Equal(got, zeros(model.extents())) {
					t.Errorf("%s, round %d: the zeros of the vDisk are not those of the image: %.300v", name, round, got)
				}
			}
		}
		back := file + "." + name
		client(t, "nbdcopy", "--connections=8", uri, back)
		client(t, "cmp", file, back)
		if had, has := blocks(stat(t, file)), blocks(stat(t, back)); has > had+1024 {
			t.Errorf("%s: the image takes %d sectors and its copy %d: the holes were lost", name, had, has)
		}
		os.Remove(back)
		client(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-m", "8", "-W", uri, back)
		client(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", file, back)
		client(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", d.uri("nbdcopy"), uri)
		os.Remove(back)
	}
	bench := []string{"bench", "-f", "raw", "-c", "500", "-d", "32"}
	for _, args := range [][]string{{"-w", "--flush-interval=64"}, {}, {"-w", "-s", "65536"}} {
		out := client(t, "qemu-img", append(append(slices.Clone(bench), args...), d.uri("nbdcopy"))...)
		if !strings.Contains(out, "Run completed") {
			t.Errorf("qemu-img bench %v: %s", args, out)
		}
	}
	d.stop()
}

// zeros are the extents that read as zeros, hole or not.
func zeros(list []extent) (out []extent) {
	for _, e := range list {
		if e.state &= 2; e.state != 0 {
			out = joined(out, e)
		}
	}
	return out
}

// What nbdinfo and qemu-img say of a vDisk is true.
func TestInfoTellsTheTruth(t *testing.T) {
	t.Parallel()
	need(t, "nbdinfo", "qemu-io")
	const size = 5<<40 + 4096 // 5 TiB: thin, and too long for one answer of 32 bits
	d := newDeployment(t, small...)
	d.start()
	d.vstor("vdisk", "create", "demo", "--size", strconv.Itoa(size))
	d.vstor("vdisk", "create", "other", "--size", "1G")
	uri := d.uri("demo")
	var info struct {
		Protocol   string
		Structured bool
		Exports    []struct {
			Name string   `json:"export-name"`
			Size int64    `json:"export-size"`
			Min  int64    `json:"block_size_minimum"`
			Pref int64    `json:"block_size_preferred"`
			Max  int64    `json:"block_size_maximum"`
			Ctx  []string `json:"contexts"`
		}
	}
	parse := func(args ...string) {
		t.Helper()
		info.Exports = nil
		if err := json.Unmarshal([]byte(client(t, "nbdinfo", args...)), &info); err != nil {
			t.Fatal(err)
		}
	}
	parse("--json", uri)
	if info.Protocol != "newstyle-fixed" || !info.Structured || len(info.Exports) != 1 {
		t.Fatalf("%+v", info)
	}
	e := info.Exports[0]
	if e.Name != "demo" || e.Size != size || e.Min != 1 || e.Pref != 4096 || e.Max != 32<<20 ||
		!slices.Contains(e.Ctx, "base:allocation") {
		t.Errorf("%+v", e)
	}
	parse("--list", "--json", d.uri(""))
	var names []string
	for _, e := range info.Exports {
		names = append(names, fmt.Sprint(e.Name, " ", e.Size))
	}
	if slices.Sort(names); !slices.Equal(names, []string{fmt.Sprint("demo ", int64(size)), "other 1073741824"}) {
		t.Errorf("the list is %q", names)
	}
	// 0 is yes, 2 is no.
	for _, c := range []struct {
		flag, what string
		status     int
	}{
		{"--can", "connect", 0}, {"--can", "structured-reply", 0}, {"--can", "df", 0}, {"--can", "cache", 0},
		{"--can", "fua", 0}, {"--can", "flush", 0}, {"--can", "trim", 0}, {"--can", "zero", 0},
		{"--can", "fast-zero", 0}, {"--can", "multi-conn", 0}, {"--can", "read", 0}, {"--can", "write", 0},
		{"--is", "read-only", 2}, {"--is", "tls", 2},
	} {
		if status, out := exitStatus(t, "nbdinfo", c.flag, c.what, uri); status != c.status {
			t.Errorf("nbdinfo %s %s: status %d, not %d: %s", c.flag, c.what, status, c.status, out)
		}
	}
	if out := strings.TrimSpace(client(t, "nbdinfo", "--size", uri)); out != strconv.Itoa(size) {
		t.Errorf("nbdinfo --size: %s", out)
	}
	if status, out := exitStatus(t, "nbdinfo", d.uri("nope")); status != 1 || !strings.Contains(out, "nope") {
		t.Errorf("an export that is not there: status %d: %s", status, out)
	}
	// Data in the middle and at both ends of 5 TiB; the map is asked for in pieces, and adds up.
	client(t, "qemu-io", "-f", "raw", "-c", "write -P 1 0 4k", "-c", "write -P 1 3T 64k", "-c", "write -z 4T 8k",
		"-c", fmt.Sprintf("write -P 1 %d 4k", int64(5<<40)), uri)
	want := []extent{{0, 4096, stateData}, {4096, 3<<40 - 4096, stateHole}, {3 << 40, 65536, stateData},
		{3<<40 + 65536, 1<<40 - 65536, stateHole}, {4 << 40, 8192, stateZero},
		{4<<40 + 8192, 1<<40 - 8192, stateHole}, {5 << 40, 4096, stateData}}
	if got := mapByLibnbd(t, uri); !slices.Equal(got, want) {
		t.Errorf("nbdinfo --map: %v", got)
	}
	if got := mapByQEMU(t, uri); !slices.Equal(got, want) {
		t.Errorf("qemu-img map: %v", got)
	}
	if out := client(t, "nbdinfo", "--map", "--totals", uri); !strings.Contains(out, "73728") {
		t.Errorf("nbdinfo --map --totals: %s", out)
	}
	d.stop()
}

// qemu-nbd passes a vDisk on, to clients that write, trim and ask what is allocated through it.
func TestQEMUNBDBetween(t *testing.T) {
	t.Parallel()
	need(t, "qemu-nbd", "nbdcopy", "qemu-img")
	d := newDeployment(t, small...)
	d.start()
	d.vstor("vdisk", "create", "disk", "--size", "32M")
	dir := t.TempDir()
	cmd := exec.Command("qemu-nbd", "-k", filepath.Join(dir, "s"), "-x", "again", "-f", "raw", "-t", "-e", "8",
		"--cache=none", "--discard=unmap", d.uri("disk"))
	cmd.Stderr = d
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	again := "nbd+unix:///again?socket=" + filepath.Join(dir, "s")
	until(t, "qemu-nbd does not serve", func() bool {
		status, _ := exitStatus(t, "nbdinfo", "--can", "connect", again)
		return status == 0
	})
	file, _ := holedImage(t, 32<<20)
	client(t, "nbdcopy", "--connections=4", "--flush", file, again)
	same(t, file, d.uri("disk"), again)
	for _, f := range []string{again, file} {
		if out, ok := qemuIO(t, f, "discard 1M 8M", "write -P 3 20M 1000", "flush"); !ok {
			t.Error(out)
		}
	}
	same(t, file, d.uri("disk"), again)
	if got, want := mapByQEMU(t, again), mapByQEMU(t, d.uri("disk")); !slices.Equal(got, want) {
		t.Errorf("extents through qemu-nbd are %.300v; without it %.300v", got, want)
	}
	cmd.Process.Kill()
	d.stop()
}
