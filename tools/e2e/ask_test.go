//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"os/exec"
	"time"

	"vstor/dataplane/api"
)

// try runs a command on the deployment that may fail.
func (d *deployment) try(args ...string) (code int, stdout, stderr string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary(d.t), args...)
	cmd.Env = append(cmd.Environ(), "VSTOR_DIR="+d.dir)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		d.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errOut.String()
}

// status is what the deployment says of itself.
func (d *deployment) status() api.Status {
	d.t.Helper()
	c := api.NewClient(d.dir)
	defer c.Close()
	s, err := c.Status(context.Background())
	if err != nil {
		d.t.Fatal(err)
	}
	return s
}
