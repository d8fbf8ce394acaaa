//go:build e2e

package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// userNet lets a guest reach this machine's loopback interface at 10.0.2.2.
var userNet = []string{"-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0"}

// built is the path of a program of this tree.
func built(t *testing.T, pkg string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-trimpath", "-o", file, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, out)
	}
	return file
}

// The guest's kernel attaches a vDisk over TCP with four connections. The server is killed under it in the middle
// of writes, and restarted after a while: the client waits and goes on, no request fails. Then the guest's power
// is cut: what was synced is there, the file systems are clean.
func TestGuestKernelClient(t *testing.T) {
	t.Parallel()
	m := newMachine(t, "vstor/tools/recipes/nbdkeep")
	addr := freePort(t)
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	d := guestDeployment(t, "--nbd-listen", addr)
	attach := fmt.Sprintf(`nbd-client -N disk -C 4 -timeout 3 10.0.2.2 %[1]s /dev/nbd0
		nbdkeep -connections 4 /dev/nbd0 10.0.2.2:%[1]s disk >/run/nbdkeep 2>&1 &
		echo $! >/run/nbdkeep.pid
		for i in $(seq 100); do grep -q 'requests wait' /run/nbdkeep && break; sleep 1; done
		grep -q 'requests wait' /run/nbdkeep || { cat /run/nbdkeep; false; }`, port)
	m.boot(userNet...)
	m.run(attach)
	k := m.disk("/dev/nbd0", "p")
	k.format("/dev/nbd0")
	k.mount()
	k.trims(d, "disk")
	if n := d.vdisk("disk").Connections; n != 4 {
		t.Errorf("the kernel has %d connections, not 4", n)
	}
	sums := k.write("a", 24)
	for round := range 2 {
		k.goOn()
		time.Sleep(500 * time.Millisecond)
		d.kill()
		time.Sleep(2 * time.Second)
		d.start()
		sums += k.write(fmt.Sprint("b", round), 12)
		until(t, "not all connections are back", func() bool { return d.vdisk("disk").Connections == 4 })
		k.rest()
	}
	k.verify(sums)
	if said := m.run("dmesg | grep -i 'I/O error' | head; true"); said != "" {
		t.Errorf("the kernel saw errors:\n%s\n%s", said, m.run("cat /run/nbdkeep"))
	}
	k.goOn()
	time.Sleep(500 * time.Millisecond)
	m.cut()

	m.boot(userNet...)
	m.run(attach + "\n: </dev/nbd0") // who opens it first has the kernel read its partitions; udev does elsewhere
	k.mount()
	k.verify(sums)
	k.check()
	m.run("kill $(cat /run/nbdkeep.pid); nbd-client -d /dev/nbd0")
	until(t, "connections are left", func() bool { return d.vdisk("disk").Connections == 0 })
	m.cut()
	d.stop()
}
