//go:build e2e

package e2e

import (
	"net"
	"path/filepath"
	"testing"
	"time"
)

// What `up` is told reaches only those children whom it concerns: a client's TLS is the edge's alone, which stores
// nothing in turn and does not mind that three ASDs are too few for the default policies.
func TestProcessesOfFewASDs(t *testing.T) {
	t.Parallel()
	tcp, dir := freePort(t), t.TempDir()
	later := time.Now().AddDate(0, 0, 100)
	ours := newAuthority(t)
	server := ours.issue(filepath.Join(dir, "server"), "server", "localhost", later, ours)
	host := ours.issue(filepath.Join(dir, "host"), "client", "host1.example", later, ours)
	d := newDeployment(t, append(small, "--asds", "3", "--policy", "1,2,2,1", "--nbd-listen", tcp, "--nbd-tls", "required",
		"--nbd-tls-dir", server, "--nbd-tls-verify-peer", "--processes")...)
	d.start()
	c := d.stamped("demo", 9)
	_, port, _ := net.SplitHostPort(tcp)
	uri := "nbds://localhost:" + port + "/demo?tls-certificates="
	for _, processes := range []string{"", "--processes=false", "--processes"} {
		if processes != "" {
			d.stop()
			d.args = append(d.args, processes)
			d.start()
		}
		d.loadAndVerify(c, time.Second)
		client(t, "nbdinfo", "--size", uri+host)
		if out, ok := asked(t, "nbdinfo", "--size", uri+onlyCA(t, filepath.Join(dir, "none"), host)); ok {
			t.Errorf("%q: a client without a certificate got in: %s", processes, out)
		}
	}
	d.stop()
}
