//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vstor/dataplane/api"
	"vstor/tools/guest"
)

// machine is a guest with file systems, the tools that make and check them, and both clients of the kernel.
type machine struct {
	t      *testing.T
	kernel guest.Kernel
	dir    string
	initrd string
	guest  *guest.Guest
}

// newMachine makes the guest's image, with programs of this tree in it.
func newMachine(t *testing.T, ours ...string) *machine {
	t.Helper()
	need(t, guest.Program, "mkfs.xfs", "nbd-client")
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	k, err := guest.Find(ctx)
	if err != nil {
		t.Fatal(err)
	}
	im, err := guest.NewImage()
	if err == nil {
		err = im.Modules(k, "virtio_pci", "virtio_blk", "virtio_net", "nbd", "ext4", "xfs", "crc32c_generic")
	}
	if err == nil {
		err = im.Programs("mke2fs", "e2fsck", "mkfs.xfs", "xfs_repair", "fstrim", "nbd-client")
	}
	for _, pkg := range ours {
		b, rerr := os.ReadFile(built(t, pkg))
		if err == nil && rerr == nil {
			im.File("usr/sbin/"+filepath.Base(pkg), b)
		}
		err = errors.Join(err, rerr)
	}
	m := &machine{t: t, kernel: k, dir: t.TempDir()}
	m.initrd = filepath.Join(m.dir, "initrd")
	if err == nil {
		err = im.WriteFile(m.initrd)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if m.guest == nil {
			return
		}
		if t.Failed() {
			t.Logf("what the guest's kernel said last:\n%s", tail(m.guest.Log(), 30))
		}
		m.cut()
	})
	return m
}

// boot starts the guest with more arguments for qemu.
func (m *machine) boot(args ...string) {
	m.t.Helper()
	began := time.Now()
	g, err := guest.Boot(context.Background(), guest.Options{Kernel: m.kernel, Initrd: m.initrd, Dir: m.dir, Args: args})
	if err != nil {
		m.t.Fatal(err)
	}
	m.guest = g
	m.t.Logf("the guest is up after %v", time.Since(began).Round(10*time.Millisecond))
}

// cut ends the guest as a power cut does: what it had not sent is lost.
func (m *machine) cut() {
	m.guest.Kill()
	m.guest = nil
}

// run runs a shell script in the guest.
func (m *machine) run(script string) string {
	m.t.Helper()
	out, err := m.try(script)
	if err != nil {
		m.t.Fatal(err)
	}
	return out
}

func (m *machine) try(script string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	return m.guest.Run(ctx, script)
}

// disk is a disk of the guest with two file systems on two partitions.
type disk struct {
	*machine
	ext4, xfs string // partitions
	where     string // folder; ext4 and xfs are mounted below it
}

func (m *machine) disk(dev, partition string) *disk {
	return &disk{m, dev + partition + "1", dev + partition + "2", "/mnt/" + filepath.Base(dev)}
}

// partition makes two partitions and a file system on each. Both tools discard the partition first.
func (k *disk) format(dev string) {
	k.t.Helper()
	k.run(fmt.Sprintf(`printf 'o\nn\np\n1\n\n+400M\nn\np\n2\n\n\nw\n' | fdisk %s
		blockdev --rereadpt %s
		for i in $(seq 100); do [ -b %s ] && break; sleep 1; done
		mke2fs -q -t ext4 %s
		mkfs.xfs -q -f %s`, dev, dev, k.xfs, k.ext4, k.xfs))
}

func (k *disk) mount() {
	k.t.Helper()
	k.run(fmt.Sprintf(`mkdir -p %[1]s/ext4 %[1]s/xfs; mount -t ext4 %[2]s %[1]s/ext4; mount -t xfs %[3]s %[1]s/xfs`,
		k.where, k.ext4, k.xfs))
}

// write writes n files of 256 KiB into a new folder of both file systems, syncs, and returns their checksums, in the
// form of md5sum. Every file differs from every other.
func (k *disk) write(folder string, n int) string {
	k.t.Helper()
	return k.run(fmt.Sprintf(`cd %s
		for fs in ext4 xfs; do
		  mkdir $fs/%[2]s
		  dd if=/dev/urandom of=/run/data bs=256k count=1 2>/dev/null
		  for i in $(seq %[3]d); do
		    (echo $fs %[2]s $i; cat /run/data) >$fs/%[2]s/$i
		  done
		done
		sync
		md5sum ext4/%[2]s/* xfs/%[2]s/*`, k.where, folder, n))
}

// goOn writes in the background and never syncs.
func (k *disk) goOn() {
	k.t.Helper()
	k.run(fmt.Sprintf(`cd %s
		dd if=/dev/urandom of=/run/more bs=64k count=16 2>/dev/null
		for fs in ext4 xfs; do
		  ( i=0; while :; do
		    i=$((i+1)); cat /run/more >$fs/more.$((i%%40)); rm -f $fs/more.$(((i+20)%%40)); mkdir -p $fs/d$((i%%100))
		  done ) >/run/more.$fs 2>&1 &
		  echo $! >>/run/writers
		done`, k.where))
}

// rest ends goOn.
func (k *disk) rest() {
	k.t.Helper()
	k.run("kill $(cat /run/writers); rm /run/writers")
}

// verify checks files against their checksums, as the device has them and not the guest's memory.
func (k *disk) verify(sums string) {
	k.t.Helper()
	k.run(fmt.Sprintf(`cd %s; echo 3 >/proc/sys/vm/drop_caches
cat >/run/sums <<'END'
%sEND
md5sum -c /run/sums >/run/checked || { grep -v OK /run/checked; false; }`, k.where, sums))
}

// check unmounts and checks both file systems; their journals were replayed when they were mounted.
func (k *disk) check() {
	k.t.Helper()
	k.run(fmt.Sprintf(`umount %s/ext4; umount %[1]s/xfs; e2fsck -fn %[2]s; xfs_repair -n %[3]s`, k.where, k.ext4, k.xfs))
}

// vdisk is what vstor says of a vDisk.
func (d *deployment) vdisk(name string) (v api.VDisk) {
	d.t.Helper()
	if err := json.Unmarshal([]byte(d.vstor("vdisk", "show", name, "--json")), &v); err != nil {
		d.t.Fatal(err)
	}
	return v
}

// trims writes garbage to both file systems, removes it, and sees that fstrim gives its space back: the mapped
// size of the vDisk falls by most of it.
func (k *disk) trims(d *deployment, name string) {
	k.t.Helper()
	const garbage = 2 * 32 << 20
	k.run(fmt.Sprintf(`cd %s
		dd if=/dev/urandom of=/run/data bs=1M count=8 2>/dev/null
		for i in $(seq 4); do cat /run/data >>ext4/garbage; cat /run/data >>xfs/garbage; done
		sync`, k.where))
	until(k.t, "the garbage is not on the drives", func() bool { return d.vdisk(name).MappedBytes >= garbage*9/10 })
	had := d.vdisk(name).MappedBytes
	said := k.run(fmt.Sprintf(`cd %s; rm ext4/garbage xfs/garbage; sync; fstrim -v ext4; fstrim -v xfs; sync`, k.where))
	// vstor's count becomes exact when it writes the map back, and further writes bring that about.
	until(k.t, "fstrim gave nothing back", func() bool {
		k.run(fmt.Sprintf("dd if=/run/data of=%s/ext4/again bs=1M conv=notrunc,fsync 2>/dev/null", k.where))
		return d.vdisk(name).MappedBytes <= had-garbage*7/10
	})
	k.t.Logf("mapped: %d MiB, %d MiB after fstrim (%s)", had>>20, d.vdisk(name).MappedBytes>>20,
		strings.ReplaceAll(strings.TrimSpace(said), "\n", "; "))
}

// until waits for what comes by itself, in good time.
func until(t *testing.T, otherwise string, ok func() bool) {
	t.Helper()
	for began := time.Now(); !ok(); time.Sleep(100 * time.Millisecond) {
		if time.Since(began) > 5*time.Minute {
			t.Fatalf("after five minutes: %s", otherwise)
		}
	}
}

// guestDeployment is one with a vDisk of 1 GiB.
func guestDeployment(t *testing.T, args ...string) *deployment {
	t.Helper()
	d := newDeployment(t, append([]string{"--asd-size", "1G", "--journal", "64M", "--sco-size", "4M"}, args...)...)
	d.start()
	d.vstor("vdisk", "create", "disk", "--size", "1G")
	return d
}

// What README shows for qemu, with a socket and a vDisk.
const (
	qemuBlockdev = "driver=nbd,node-name=d0,server.type=unix,server.path=%s,export=%s,discard=unmap,cache.direct=on," +
		"reconnect-delay=60"
	qemuDevice = "virtio-blk-pci,drive=d0"
	qemuDrive  = "file=nbd+unix:///%s?socket=%s,format=raw,if=virtio,cache=none,discard=unmap"
)

// A guest makes ext4 and xfs on a vDisk through virtio, writes, trims and syncs. The server is killed under it,
// and it goes on, as qemu was told to reconnect. Then the guest's power is cut in the middle of writes, twice, and
// it boots again, with the disk attached in other ways: what was synced is there, the file systems are clean.
func TestGuestOverVirtio(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	d := guestDeployment(t)
	m.boot("-blockdev", fmt.Sprintf(qemuBlockdev, d.socket(), "disk"), "-device", qemuDevice)
	k := m.disk("/dev/vda", "")
	k.format("/dev/vda")
	k.mount()
	k.trims(d, "disk")
	sums := k.write("a", 24)
	k.goOn()
	time.Sleep(500 * time.Millisecond)
	d.kill()
	d.start()
	sums += k.write("b", 24)
	k.verify(sums)
	time.Sleep(500 * time.Millisecond)
	m.cut()

	m.boot("-drive", fmt.Sprintf(qemuDrive, "disk", d.socket()))
	k.mount()
	k.verify(sums)
	k.goOn()
	time.Sleep(300 * time.Millisecond)
	m.cut()

	m.boot(libvirtArgs(t, recipe(t, "libvirt/domain.xml", "/run/vstor/nbd.sock", d.socket(), "name='db'",
		"name='disk'"))...)
	k.mount()
	k.verify(sums)
	k.check()
	m.cut()
	d.stop()
}
