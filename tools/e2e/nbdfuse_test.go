//go:build e2e

package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// mountFile shows a vDisk as a file, with nbdfuse, until the test ends or umount is called.
func mountFile(t *testing.T, uri string) (file string, umount func()) {
	t.Helper()
	dir := t.TempDir()
	mnt, pid := filepath.Join(dir, "m"), filepath.Join(dir, "pid")
	if err := os.Mkdir(mnt, 0o700); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(mnt, "disk")
	cmd := exec.Command("nbdfuse", "-C", "4", "-P", pid, file, uri)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan bool)
	go func() { cmd.Wait(); close(ended) }()
	mounted := true
	umount = func() {
		if !mounted {
			return
		}
		mounted = false
		if out, err := exec.Command("fusermount3", "-u", mnt).CombinedOutput(); err != nil {
			t.Errorf("fusermount3: %v: %s", err, out)
			cmd.Process.Kill()
		}
		<-ended
	}
	t.Cleanup(umount)
	until(t, "nbdfuse does not start", func() bool {
		select {
		case <-ended:
			mounted = false
			if strings.Contains(said.String(), "fuse") {
				t.Skipf("SKIPPED: this machine has no FUSE: %s", said.String())
			}
			t.Fatalf("nbdfuse has ended: %s", said.String())
		default:
		}
		_, err := os.Stat(pid)
		return err == nil
	})
	return file, umount
}

// A vDisk is a file, where the kernel has no NBD client: mke2fs makes a file system on it, debugfs puts files in, and
// where there are loop devices it is mounted as well.
func TestNBDFuse(t *testing.T) {
	t.Parallel()
	need(t, "nbdfuse", "fusermount3", "mke2fs", "debugfs", "e2fsck")
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("SKIPPED: this machine has no FUSE")
	}
	d := newDeployment(t, small...)
	d.start()
	d.vstor("vdisk", "create", "disk", "--size", "200M")
	file, umount := mountFile(t, d.uri("disk"))
	if n := stat(t, file).Size(); n != 200<<20 {
		t.Fatalf("the file has %d bytes", n)
	}
	client(t, "mke2fs", "-q", "-t", "ext4", file)
	image, _ := holedImage(t, 20<<20)
	client(t, "debugfs", "-w", "-R", "write "+image+" image", file)
	client(t, "e2fsck", "-fn", file)
	umount()
	d.kill()
	d.start()

	file, umount = mountFile(t, d.uri("disk"))
	client(t, "e2fsck", "-fn", file)
	back := image + ".back"
	client(t, "debugfs", "-R", "dump image "+back, file)
	client(t, "cmp", image, back)
	mnt := t.TempDir()
	if status, out := exitStatus(t, "mount", "-o", "loop", file, mnt); status != 0 {
		t.Logf("no loop device, so it is not mounted: %s", out)
	} else {
		client(t, "cmp", image, filepath.Join(mnt, "image"))
		client(t, "cp", image, filepath.Join(mnt, "second"))
		client(t, "umount", mnt)
		client(t, "e2fsck", "-fn", file)
		client(t, "debugfs", "-R", "dump second "+back, file)
		client(t, "cmp", image, back)
	}
	umount()
	d.stop()
}
