package guest

import (
	"context"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A guest boots, runs scripts, says what went wrong, and dies when it is told to.
func TestBoot(t *testing.T) {
	if _, err := exec.LookPath(Program); err != nil || testing.Short() {
		t.Skip("SKIPPED: qemu-system-x86 is not installed; `make e2e` needs it")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	k, err := Find(ctx)
	if err != nil {
		t.Skip("SKIPPED: ", err)
	}
	im, err := NewImage()
	if err != nil {
		t.Skip("SKIPPED: ", err)
	}
	if err := im.Modules(k, "virtio_blk", "xfs", "ext4"); err != nil {
		t.Fatal(err)
	}
	if err := im.Modules(k, "no_such_module"); err == nil {
		t.Error("a module that does not exist is found")
	}
	if err := im.Programs("mke2fs"); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := im.WriteFile(dir + "/initrd"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	g, err := Boot(ctx, Options{Kernel: k, Initrd: dir + "/initrd", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Kill()
	t.Logf("up after %v", time.Since(began).Round(time.Millisecond))
	out, err := g.Run(ctx, "grep -w xfs /proc/filesystems; mke2fs -V; echo 'a . b'; seq 20000 | md5sum")
	for _, want := range []string{"xfs", "mke2fs 1.", "a . b\n"} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("%v: %q has no %q", err, out, want)
		}
	}
	if out, err := g.Run(ctx, "echo before; false; echo after"); err == nil || out != "before\n" {
		t.Errorf("a script that fails: %q, %v", out, err)
	}
	if out, err := g.Run(ctx, "seq 5000"); err != nil || strings.Count(out, "\n") != 5000 {
		t.Errorf("5000 lines: %v, %d came", err, strings.Count(out, "\n"))
	}
	// Orphans of a script end while the next ones come in.
	if _, err := g.Run(ctx, "for i in $(seq 100 299); do (sleep 0.$i) >/dev/null 2>&1 & done"); err != nil {
		t.Error(err)
	}
	for i := range 60 {
		want := strings.Repeat(strconv.Itoa(i%10), 2000)
		if out, err := g.Run(ctx, "echo "+want); err != nil || out != want+"\n" {
			t.Fatalf("script %d beside orphans: %v, %q", i, err, out)
		}
	}
	g.Kill()
	if _, err := g.Run(ctx, "true"); err == nil {
		t.Error("a dead guest runs a script")
	}
}
