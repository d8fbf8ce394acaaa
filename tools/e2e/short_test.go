//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"vstor/dataplane/api"
)

// asds is what vstor shows of its ASDs, summed up.
func (d *deployment) asds() (sum api.ASD) {
	d.t.Helper()
	code, out, says := d.try("asd", "ls", "--json")
	var list []api.ASD
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 {
		d.t.Fatalf("asd ls: %d %v %s", code, err, says)
	}
	for _, a := range list {
		sum.SocketReads += a.SocketReads
		sum.ShortReads += a.ShortReads
		sum.ShortBytes += a.ShortBytes
		sum.Extents += a.Extents
		sum.LeasesDropped += a.LeasesDropped
		sum.Corrupt += a.Corrupt
	}
	return sum
}

// shorts is how many reads of drives an edge did itself.
func (d *deployment) shorts() (n float64) {
	d.t.Helper()
	for _, line := range strings.Split(d.get("/metrics"), "\n") {
		if strings.HasPrefix(line, "vstor_asd_short_circuit_reads_total{") && strings.Contains(line, `process="edge-0"`) {
			var v float64
			fmt.Sscan(line[strings.LastIndex(line, " ")+1:], &v)
			n += v
		}
	}
	return n
}

// Router and edge read the drives of the ASDs' processes themselves, while these work, when they die, and when they are
// stopped, and not when told not to.
func TestShortCircuit(t *testing.T) {
	d := newDeployment(t, append(small, "--processes")...)
	d.start()
	c := d.stamped("demo", 9)
	// Until blocks are on the drives, and where they lie is known, nothing is read there.
	for end := time.Now().Add(2 * time.Minute); d.asds().ShortReads == 0; {
		if time.Now().After(end) {
			t.Fatalf("no drive was read by the parent: %+v", d.asds())
		}
		d.loadAndVerify(c, 2*time.Second)
	}
	d.signal(2, syscall.SIGKILL)
	d.loadAndVerify(c, 2*time.Second)
	d.untilUp(6)
	if n := d.asds().LeasesDropped; n == 0 {
		t.Error("an ASD died, and no lease was dropped")
	}
	d.signal(1, syscall.SIGSTOP)
	d.signal(4, syscall.SIGSTOP)
	if err := c.Verify(); err != nil {
		t.Fatal(err)
	}
	d.signal(1, syscall.SIGCONT)
	d.signal(4, syscall.SIGCONT)
	d.untilUp(6)
	d.loadAndVerify(c, 2*time.Second)
	if d.shorts() == 0 {
		t.Error("the edge reads all through the ASDs")
	}
	a := d.asds()
	t.Logf("%d reads by short-circuit, %d over sockets, %d fragments known", a.ShortReads, a.SocketReads, a.Extents)
	if a.Extents == 0 || a.Corrupt != 0 {
		t.Errorf("%d fragments known, %d corrupt", a.Extents, a.Corrupt)
	}
	d.stop()
	d.args = append(d.args, "--short-circuit=off")
	d.start()
	d.untilUp(6)
	if err := c.Verify(); err != nil {
		t.Fatal(err)
	}
	if a := d.asds(); a.ShortReads != 0 || a.Extents != 0 || a.SocketReads == 0 {
		t.Errorf("switched off: %d reads by short-circuit, %d over sockets", a.ShortReads, a.SocketReads)
	}
	d.stop()
}
