//go:build e2e

package e2e

import (
	"bufio"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const recipes = "../recipes"

// recipe is a file that people copy, with what they have to change in it changed: "old", "new", ...
func recipe(t *testing.T, name string, changes ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(recipes, name))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(changes); i += 2 {
		if !strings.Contains(string(b), changes[i]) {
			t.Errorf("%s does not say %q", name, changes[i])
		}
	}
	return strings.NewReplacer(changes...).Replace(string(b))
}

// setting is the value of a key in a unit file.
func setting(t *testing.T, unit, key string) string {
	t.Helper()
	for s := bufio.NewScanner(strings.NewReader(unit)); s.Scan(); {
		if v, ok := strings.CutPrefix(s.Text(), key+"="); ok {
			return v
		}
	}
	t.Fatalf("the unit has no %s", key)
	return ""
}

// The unit files are right as far as systemd can tell.
func TestUnitFiles(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("SKIPPED: this machine has no systemd")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "true")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	var units []string
	for _, name := range []string{"vstor.socket", "vstor.service", "vstor-nbd@.service"} {
		text := recipe(t, "systemd/"+name)
		for _, missing := range []string{"/usr/local/bin/vstor", "/usr/local/bin/nbdkeep", "/sbin/modprobe"} {
			text = strings.ReplaceAll(text, missing, program)
		}
		file := filepath.Join(dir, strings.Replace(name, "@.", "@db.", 1))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		units = append(units, file)
	}
	status, out := exitStatus(t, "systemd-analyze", append([]string{"verify", "--man=no"}, units...)...)
	for _, line := range strings.Split(out, "\n") {
		if strings.Contains(line, dir) || strings.Contains(line, "vstor") {
			t.Error(line)
		}
	}
	if status != 0 && !t.Failed() {
		t.Skipf("SKIPPED: systemd-analyze does not work here: %s", out)
	}
}

// What the units say works: systemd opens the socket, the first client starts vstor, and the socket is still there when
// vstor was stopped and started again.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("systemd-socket-activate"); err != nil {
		t.Skip("SKIPPED: this machine has no systemd")
	}
	d := newDeployment(t, small...)
	base := filepath.Dir(d.dir)
	socket := setting(t, recipe(t, "systemd/vstor.socket", "/run/vstor", base), "ListenStream")
	start := strings.Fields(setting(t, recipe(t, "systemd/vstor.service", "/usr/local/bin/vstor", binary(t),
		"/srv/vstor", d.dir), "ExecStart"))
	uri := "nbd+unix:///disk?socket=" + socket
	d.start() // makes the vDisk
	d.vstor("vdisk", "create", "disk", "--size", "64M")
	d.stop()
	notes := filepath.Join(base, "notify")
	told, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notes, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer told.Close()
	hears := func(want string) { // Type=notify
		t.Helper()
		b := make([]byte, 4096)
		told.SetReadDeadline(time.Now().Add(time.Minute))
		if n, err := told.Read(b); err != nil || !strings.Contains(string(b[:n]), want) {
			t.Fatalf("the service manager hears %q, %v; not %s", b[:n], err, want)
		}
	}
	for round := range 2 {
		os.Remove(socket)
		cmd := exec.Command("systemd-socket-activate", append([]string{"-E", "NOTIFY_SOCKET=" + notes, "-l", socket},
			start...)...)
		cmd.Stderr = d
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		d.cmd = cmd
		until(t, "systemd does not listen", func() bool { _, err := os.Stat(socket); return err == nil })
		if status, out := exitStatus(t, binary(t), "status", "--dir", d.dir); status == 0 {
			t.Errorf("vstor runs before a client came: %s", out)
		}
		if out, ok := qemuIO(t, uri, "write -P 3 1M 64k", "read -P 3 1M 64k"); !ok {
			t.Fatalf("round %d: %s", round, out)
		}
		hears("READY=1")
		if out, ok := qemuIO(t, d.uri("disk"), "read -P 3 1M 64k"); !ok {
			t.Errorf("round %d, by the deployment's own socket: %s", round, out)
		}
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("vstor ended with %v", err)
		}
		hears("STOPPING=1")
		d.cmd = nil
		if _, err := os.Stat(socket); err != nil {
			t.Errorf("vstor removed a socket that is not its own: %v", err)
		}
	}
}

// libvirtDisk is the disk of a domain's XML.
type libvirtDisk struct {
	Driver struct {
		Type         string `xml:"type,attr"`
		Cache        string `xml:"cache,attr"`
		Discard      string `xml:"discard,attr"`
		DetectZeroes string `xml:"detect_zeroes,attr"`
	} `xml:"devices>disk>driver"`
	Source struct {
		Protocol string `xml:"protocol,attr"`
		Name     string `xml:"name,attr"`
		Host     struct {
			Transport string `xml:"transport,attr"`
			Socket    string `xml:"socket,attr"`
		} `xml:"host"`
	} `xml:"devices>disk>source"`
	Target struct {
		Bus string `xml:"bus,attr"`
	} `xml:"devices>disk>target"`
}

// libvirtArgs are the arguments for qemu that libvirt makes of a domain's disk.
func libvirtArgs(t *testing.T, domain string) []string {
	t.Helper()
	var k libvirtDisk
	if err := xml.Unmarshal([]byte(domain), &k); err != nil {
		t.Fatal(err)
	}
	if k.Driver.Type != "raw" || k.Driver.Cache != "none" || k.Source.Protocol != "nbd" ||
		k.Source.Host.Transport != "unix" || k.Target.Bus != "virtio" {
		t.Fatalf("the test cannot make this disk: %+v", k)
	}
	direct := map[string]bool{"direct": true, "no-flush": false} // cache none
	storage, err := json.Marshal(map[string]any{"driver": "nbd", "node-name": "storage",
		"server": map[string]string{"type": "unix", "path": k.Source.Host.Socket}, "export": k.Source.Name,
		"cache": direct, "auto-read-only": true, "discard": "unmap"})
	if err != nil {
		t.Fatal(err)
	}
	format, err := json.Marshal(map[string]any{"driver": "raw", "node-name": "format", "file": "storage",
		"cache": direct, "discard": k.Driver.Discard, "detect-zeroes": k.Driver.DetectZeroes})
	if err != nil {
		t.Fatal(err)
	}
	return []string{"-blockdev", string(storage), "-blockdev", string(format),
		"-device", "virtio-blk-pci,drive=format,write-cache=on"}
}

// The domains are valid for libvirt's own schema.
func TestLibvirtXML(t *testing.T) {
	t.Parallel()
	need(t, "virt-xml-validate")
	for _, name := range []string{"domain.xml", "domain-tcp.xml"} {
		client(t, "virt-xml-validate", filepath.Join(recipes, "libvirt", name), "domain")
	}
}

// The options of qemu that README shows are those that the tests use.
func TestReadmeSaysWhatIsTested(t *testing.T) {
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, words := range []string{fmt.Sprintf(qemuBlockdev, "$S", "db"), qemuDevice, fmt.Sprintf(qemuDrive, "db", "$S")} {
		if !strings.Contains(string(b), words) {
			t.Errorf("README does not say %q, which a guest boots with", words)
		}
	}
}
