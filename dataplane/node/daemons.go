package node

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/asd/client"
	"vstor/asd/proto"
	"vstor/dataplane/config"
	"vstor/dataplane/dio"
	"vstor/dataplane/errs"
	"vstor/dataplane/ids"
	"vstor/dataplane/supervise"
	"vstor/dataplane/units"
)

// How long daemons may take. A start goes on without those that are not up by then.
const (
	asdStartWait = 10 * time.Second
	asdStopWait  = 15 * time.Second
)

// daemonConns is how many connections a daemon of this machine takes: those of one parent, with room.
const daemonConns = 64

// returnQueue bounds the ASDs that came back and were not looked after yet.
const returnQueue = 64

// secretFile holds what the processes of a deployment prove to each other that they know.
const secretFile = "secret"

// What to do about a secret that is no good: where it is made, and where it is a copy.
const (
	secretMadeHere = "remove it and start again to have a new one made"
	secretIsCopy   = "it must be a copy of the file \"" + secretFile + "\" in the folder of the deployment, with mode 0600"
)

// readSecret reads the deployment's secret, 64 hexadecimal digits in a file that nobody else may read.
func readSecret(path, remedy string) ([]byte, error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errs.Wrap(errs.Absent, err, "cannot read the deployment's secret")
	}
	if err != nil {
		return nil, errs.Wrap(errs.IO, err, "cannot read the deployment's secret")
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, errs.New(errs.Invalid, "the secret in %s can be read by others (mode %04o): chmod 600 it, or %s",
			path, st.Mode().Perm(), remedy)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, errs.Wrap(errs.IO, err, "cannot read the deployment's secret")
	}
	secret, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(secret) != proto.SecretSize {
		return nil, errs.New(errs.Corrupt, "%s does not hold a secret of %d hexadecimal digits: %s", path,
			2*proto.SecretSize, remedy)
	}
	return secret, nil
}

// haveSecret reads the secret, or makes one where there is none. One that cannot be read now is there: a new one
// in its place would shut out the daemons that still run with it.
func haveSecret(path string) ([]byte, error) {
	secret, err := readSecret(path, secretMadeHere)
	if errs.Of(err) != errs.Absent {
		return secret, err
	}
	secret = make([]byte, proto.SecretSize)
	rand.Read(secret)
	if err := writeSecret(path, secret); err != nil {
		return nil, errs.Wrap(errs.IO, err, "cannot keep the deployment's secret")
	}
	return secret, nil
}

// writeSecret is durable when it returns: a name that survives power loss without what it names is a secret
// that no start accepts.
func writeSecret(path string, secret []byte) error {
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // it may be another's to read
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(hex.EncodeToString(secret) + "\n")
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return err
	}
	return syncDir(vfs.Default, filepath.Dir(path))
}

// startASDs starts a daemon for each drive and waits until they answer, or until it is clear which do not.
func (n *Node) startASDs() error {
	run := filepath.Join(n.cfg.Dir, "run")
	if err := os.MkdirAll(run, 0o700); err != nil {
		return errs.Wrap(errs.IO, err, "cannot make the folder of pid files and sockets")
	}
	secret, err := haveSecret(filepath.Join(n.cfg.Dir, secretFile))
	if err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return errs.Wrap(errs.IO, err, "cannot find this program to start ASDs with")
	}
	for _, d := range n.drives {
		if err := n.startASD(d, exe, run, secret); err != nil {
			return err
		}
	}
	n.awaitASDs()
	return nil
}

func (n *Node) startASD(d *drive, exe, run string, secret []byte) error {
	name := "asd-" + strconv.Itoa(int(d.id))
	sock := filepath.Join(run, name+".sock")
	if !n.opts.Parted {
		n.superviseASD(d, exe, run)
	}
	return n.reachASD(d, sock, secret)
}

// superviseASD starts a daemon.
func (n *Node) superviseASD(d *drive, exe, run string) {
	name := "asd-" + strconv.Itoa(int(d.id))
	d.child = supervise.Start(supervise.Options{Name: name, Path: exe,
		Args: n.asdArgs(d, filepath.Join(run, name+".sock")), PIDFile: filepath.Join(run, name+".pid"),
		Restart: !n.cfg.NoRestart, Output: os.Stderr, Log: n.log})
}

// reachASD connects to a daemon.
func (n *Node) reachASD(d *drive, sock string, secret []byte) error {
	o := client.Options{ID: d.id, UUID: n.ident.asdUUID(int(d.id)), Deployment: n.ident.UUID, Secret: secret,
		Network: "unix", Addr: sock, Name: "router", ShortCircuit: n.shortCircuit(),
		Away:    dio.AwayTo(filepath.Join(d.path, "data")),
		OnState: func(up bool, err error) { n.asdState(d.id, up, err) }, Log: n.log}
	var err error
	if d.remote, err = client.New(o); err != nil || !n.cfg.AllowFaults {
		return err
	}
	o.Addr, o.Name, o.OnState, o.ShortCircuit = controlSock(sock), "faults", nil, false
	d.control, err = client.New(o)
	return err
}

// reachASDAt connects to a daemon somewhere.
func (n *Node) reachASDAt(d *drive, a ASDAddr, secret []byte, name string) (err error) {
	o := client.Options{ID: d.id, UUID: a.UUID, Deployment: n.ident.UUID, Secret: secret, Name: name,
		OnState: func(up bool, err error) { n.asdState(d.id, up, err) }, Log: n.log}
	o.Network, o.Addr = parts(a.Addr)
	o.ShortCircuit = o.Network == "unix" && n.shortCircuit() // on this machine
	d.remote, err = client.New(o)
	return err
}

// controlSock is the socket beside sock that faults are set by.
func controlSock(sock string) string { return strings.TrimSuffix(sock, ".sock") + ".ctl" }

// DebugSock is the socket beside an ASD's that has its profiles.
func DebugSock(sock string) string { return strings.TrimSuffix(sock, ".sock") + ".debug" }

// asdArgs is the command line of a drive's daemon.
func (n *Node) asdArgs(d *drive, sock string) []string {
	args := []string{"asd", "run", "--id", strconv.Itoa(int(d.id)),
		"--uuid", uuid(n.ident.asdUUID(int(d.id))).String(), "--deployment", n.ident.UUID.String(),
		"--data", filepath.Join(d.path, "data"),
		"--index", filepath.Join(d.path, "index"), "--secret", filepath.Join(n.cfg.Dir, secretFile),
		"--listen", "unix:" + sock, "--debug", DebugSock(sock),
		"--memory", units.FormatSize(n.cfg.ASDMemory),
		"--fragment-size", units.FormatSize(n.cfg.FragmentSize), "--max-connections", strconv.Itoa(daemonConns)}
	if n.cfg.PlainIO {
		args = append(args, "--plain-io")
	}
	if !n.shortCircuit() {
		args = append(args, "--short-circuit", config.Off)
	}
	if n.cfg.AllowFaults {
		args = append(args, "--allow-faults", "--control", "unix:"+controlSock(sock))
	}
	return args
}

// shortCircuit reports whether the daemons' drives are read here. Where faults are allowed they are not: those are
// made in the daemons.
func (n *Node) shortCircuit() bool { return shortCircuit(&n.cfg) }

func shortCircuit(c *config.Config) bool {
	return c.Processes && c.ShortCircuit != config.Off && !c.AllowFaults
}

// asdState is told by a drive's client that it came or went.
func (n *Node) asdState(id ids.ASDID, up bool, err error) {
	switch {
	case up && n.awaited.Load():
		n.log.Info("an ASD answers again", "asd", id)
		if px := n.deletes.Load(); px != nil {
			px.ASDReturned() // not by way of maintain, which may be busy for minutes
		}
		select {
		case n.returned <- id:
		default: // the next look at missing fragments comes anyway
		}
	case !up && n.awaited.Load() && n.ctx.Err() == nil:
		n.log.Warn("an ASD does not answer; its fragments are read from the others until it does",
			"asd", id, "error", err)
	}
}

// awaitASDs waits until all daemons answer, or some will not.
func (n *Node) awaitASDs() {
	for begin := time.Now(); time.Since(begin) < asdStartWait; time.Sleep(5 * time.Millisecond) {
		waiting := false
		for _, d := range n.drives {
			waiting = waiting || !d.remote.Up() && (d.child == nil || d.child.Restarts() < 2)
		}
		if !waiting {
			break
		}
	}
	n.awaited.Store(true)
	for _, d := range n.drives {
		if _, err := d.stat(); err != nil {
			n.log.Error("an ASD does not start; its fragments are read from the others until it does",
				"asd", d.id, "error", err)
		}
	}
}

// stopASDs ends the daemons, each of which makes durable what it was given.
func (n *Node) stopASDs() {
	var wait sync.WaitGroup
	for _, d := range n.drives {
		if d.remote != nil {
			if err := d.remote.Close(); err != nil {
				n.log.Warn("closing the connections to an ASD", "asd", d.id, "error", err)
			}
		}
		if d.control != nil {
			d.control.Close()
		}
		if d.child != nil {
			wait.Add(1)
			go func() {
				defer wait.Done()
				d.child.Stop(asdStopWait)
			}()
		}
	}
	wait.Wait()
}
