//go:build e2e

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vstor/dataplane/api"
)

// README's steps for a drive that died: an empty one takes its place, and gets what it lacks.
func TestReplaceDrive(t *testing.T) {
	t.Parallel()
	need(t, "nbdcopy")
	d := newDeployment(t, small...)
	d.start()
	d.vstor("vdisk", "create", "demo", "--size", "64M")
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, []byte(strings.Repeat("on six drives\n", 64<<20/14)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 64<<20); err != nil {
		t.Fatal(err)
	}
	client(t, "nbdcopy", "--flush", image, d.uri("demo"))
	var asd api.ASD
	show := func() api.ASD {
		t.Helper()
		if err := json.Unmarshal([]byte(d.vstor("asd", "show", "3", "--json")), &asd); err != nil {
			t.Fatal(err)
		}
		return asd
	}
	d.stop()
	drive := filepath.Join(d.dir, "asd-3")
	if err := os.RemoveAll(drive); err != nil {
		t.Fatal(err)
	}
	d.start()
	if show(); asd.State != api.StateDown || asd.UUID == "" {
		t.Fatalf("without its drive: %+v", asd)
	}
	client(t, "nbdcopy", d.uri("demo"), image+"2")
	client(t, "cmp", image, image+"2")
	d.stop()

	var ident struct {
		UUID string `json:"uuid"`
	}
	if b, err := os.ReadFile(filepath.Join(d.dir, "deployment.json")); err != nil || json.Unmarshal(b, &ident) != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(drive, 0o700); err != nil {
		t.Fatal(err)
	}
	d.vstor("asd", "format", "--data", drive+"/data", "--index", drive+"/index", "--size", "512M", "--id", "3",
		"--uuid", asd.UUID, "--deployment", ident.UUID)
	d.vstor("fsck", "--manifests", "--repair")
	d.start()
	client(t, "nbdcopy", d.uri("demo"), image+"3")
	client(t, "cmp", image, image+"3")
	for end := time.Now().Add(5 * time.Minute); show().Fragments == 0 || d.status().State != api.StateUp; {
		time.Sleep(50 * time.Millisecond)
		if time.Now().After(end) {
			t.Fatalf("the new drive has %+v", asd)
		}
	}
	d.stop()
	// Stopped in the middle, it goes on at the next start: at the end nothing is missing.
	for end := time.Now().Add(5 * time.Minute); ; {
		code, stdout, stderr := d.try("fsck", "--manifests", "--data")
		if code == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%s%s", stdout, stderr)
		}
		d.start()
		time.Sleep(time.Second)
		d.stop()
	}
}
