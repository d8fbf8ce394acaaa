package config

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"vstor/dataplane/errs"
)

// FormatVersion is the version of a deployment's folder as a whole.
//
//	1  the first
const FormatVersion = 1

// A deployment's folder:
//
//	lock        flock'ed by the process that runs it; holds its pid
//	creating    there from before anything else is made until the first start went well
//	format      "vstor N\n", there from then on
//	vstor.toml  the settings it was told so far
//	edge.lock   the same for an edge that is a process of its own
//	nbd.sock api.sock run/ asd-N/ router/ meta/ cache/    the node's
//
// A folder with `creating` and no `format` never served anybody, so what lies in it may be removed and
// made again. A folder with neither, and something in it, is not ours and stays untouched.
const (
	lockFile     = "lock"
	creatingFile = "creating"
	formatFile   = "format"
	keptFile     = "vstor.toml"
)

// Dir is a deployment's folder, held by this process alone.
type Dir struct {
	Path  string // absolute
	fresh bool   // the first start has not finished
	made  bool   // the folder itself was made by this Dir
	lock  *os.File
}

// OpenDir takes the folder, making it if need be. It refuses a folder that another process runs,
// that has a newer format, or that holds something else.
func OpenDir(path string) (*Dir, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, errs.Wrap(errs.IO, err, "cannot find out what folder %s is", path)
	}
	d := &Dir{Path: abs}
	if err := CheckSocketPath(filepath.Join(abs, "run", "asd-1023.sock")); err != nil {
		return nil, err
	}
	if d.made, err = makeDir(abs); err != nil {
		return nil, err
	}
	if err := d.inspect(); err != nil {
		d.unmake()
		return nil, err
	}
	if err := d.takeLock(); err != nil {
		return nil, err
	}
	if err := d.begin(); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func makeDir(path string) (bool, error) {
	if st, err := os.Stat(path); err == nil {
		if !st.IsDir() {
			return false, errs.New(errs.Invalid, "%s is not a folder: give --dir a folder, or a path that does not exist yet",
				path)
		}
		return false, nil
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return false, errs.Wrap(errs.IO, err, "cannot make the folder (another one can be given with --dir)")
	}
	return true, nil
}

// inspect tells fresh, ours and foreign apart, changing nothing.
func (d *Dir) inspect() error {
	switch v, err := readFormat(d.Path); {
	case err != nil:
		return err
	case v > FormatVersion:
		return errs.New(errs.Version, "%s was written by a newer vstor (format %d; this one knows up to %d): use that vstor",
			d.Path, v, FormatVersion)
	case v > 0:
		return nil
	}
	d.fresh = true
	if _, err := os.Stat(filepath.Join(d.Path, creatingFile)); err == nil {
		return nil
	}
	entries, err := os.ReadDir(d.Path)
	if err != nil {
		return errs.Wrap(errs.IO, err, "cannot look into the folder")
	}
	for _, e := range entries {
		// creating.tmp: the very first file was being written when the process died.
		if n := e.Name(); !isOurSocket(e) && n != lockFile && n != creatingFile+".tmp" && n != "lost+found" {
			return errs.New(errs.Refused, "%s holds %s and no vstor deployment: give --dir an empty folder or a new one",
				d.Path, n)
		}
	}
	return nil
}

// isOurSocket: a socket unit may have made it before the first start, and listens on it: it is nobody's data,
// and must stay.
func isOurSocket(e os.DirEntry) bool {
	return e.Type()&os.ModeSocket != 0 && (e.Name() == "nbd.sock" || e.Name() == "api.sock")
}

// readFormat is 0 where there is no format file.
func readFormat(dir string) (int, error) {
	path := filepath.Join(dir, formatFile)
	b, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return 0, nil
	}
	if err != nil {
		return 0, errs.Wrap(errs.IO, err, "cannot read the folder's format")
	}
	num, ok := strings.CutPrefix(strings.TrimSpace(string(b)), "vstor ")
	v, err := strconv.Atoi(num)
	if !ok || err != nil || v < 1 {
		return 0, errs.New(errs.Corrupt, "%s should read \"vstor %d\" and reads %.40q: no vstor folder, or a damaged one",
			path, FormatVersion, b)
	}
	return v, nil
}

// IsDeployment reports whether path is the folder of a deployment, running or not.
func IsDeployment(path string) bool {
	v, err := readFormat(path)
	return err != nil || v > 0
}

// takeLock takes the folder for this process.
func (d *Dir) takeLock() (err error) {
	d.lock, err = LockFile(filepath.Join(d.Path, lockFile), d.Path)
	return err
}

// LockFile takes a file for this process, and with it what it stands for, which a refusal names. The lock is the
// kernel's, so it ends with the process however that ends, or with the file's Close; the pid in it is for people.
// Errors: Busy.
func LockFile(path, what string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, errs.Wrap(errs.IO, err, "cannot lock the folder")
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		pid, _ := io.ReadAll(io.LimitReader(f, 20))
		f.Close()
		if err != syscall.EWOULDBLOCK {
			return nil, errs.Wrap(errs.IO, err, "cannot lock %s", path)
		}
		return nil, errs.New(errs.Busy, "%s is run by process %s already: stop that one first, or give another --dir", what,
			strings.TrimSpace(string(pid)))
	}
	if now, err := os.Stat(path); err != nil || !sameFile(f, now) {
		f.Close() // a first start that failed removed it between our open and our lock
		return LockFile(path, what)
	}
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		f.Close()
		return nil, errs.Wrap(errs.IO, err, "cannot write %s", path)
	}
	return f, nil
}

func sameFile(f *os.File, st os.FileInfo) bool {
	own, err := f.Stat()
	return err == nil && os.SameFile(own, st)
}

// begin looks again, now under the lock, and readies a folder whose first start has not finished.
func (d *Dir) begin() error {
	d.fresh = false
	if err := d.inspect(); err != nil {
		return err
	}
	if !d.fresh {
		return os.RemoveAll(filepath.Join(d.Path, creatingFile))
	}
	if err := writeDurably(d.Path, creatingFile, []byte("the first start of this folder has not finished\n")); err != nil {
		return err
	}
	return d.clear()
}

// Fresh reports whether no start of this deployment has finished yet.
func (d *Dir) Fresh() bool { return d.fresh }

// Kept is what earlier starts were told; nothing if there was none that finished.
func (d *Dir) Kept() (Source, error) {
	if d.fresh {
		return Source{}, nil
	}
	path := filepath.Join(d.Path, keptFile)
	if err := checkSum(path); err != nil {
		return Source{}, err
	}
	return FromFile(path)
}

// Keep remembers settings for later starts.
func (d *Dir) Keep(values map[string][]string) error {
	b, err := FormatTOML("What `vstor up` was told. The next start reads it; flags given then win and are kept here.",
		values)
	if err != nil {
		return err
	}
	b = withSum(b)
	path := filepath.Join(d.Path, keptFile)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, b) {
		return nil
	}
	return writeDurably(d.Path, keptFile, b)
}

// FinishCreate ends the first start: from now on the folder holds a deployment. Call it once
// everything is made, and before anybody can store anything in it.
func (d *Dir) FinishCreate() error {
	if !d.fresh {
		return nil
	}
	if err := writeDurably(d.Path, formatFile, fmt.Appendf(nil, "vstor %d\n", FormatVersion)); err != nil {
		return err
	}
	d.fresh = false
	return os.Remove(filepath.Join(d.Path, creatingFile))
}

// Abandon undoes a first start that failed, as if it had never been, and closes d. On a folder whose
// first start finished it only closes.
func (d *Dir) Abandon() {
	if d.fresh && d.clear() == nil {
		os.Remove(filepath.Join(d.Path, creatingFile))
		os.Remove(filepath.Join(d.Path, lockFile))
		d.unmake()
	}
	d.Close()
}

// clear removes what an unfinished first start made.
func (d *Dir) clear() error {
	entries, err := os.ReadDir(d.Path)
	if err != nil {
		return errs.Wrap(errs.IO, err, "cannot look into the folder")
	}
	for _, e := range entries {
		switch n := e.Name(); {
		case n == lockFile, n == creatingFile, n == "lost+found", isOurSocket(e):
		default:
			if err := os.RemoveAll(filepath.Join(d.Path, e.Name())); err != nil {
				return errs.Wrap(errs.IO, err, "cannot remove what a first start left behind")
			}
		}
	}
	return nil
}

func (d *Dir) unmake() {
	if d.made {
		os.Remove(d.Path) // fails, as it should, if anything is in it
	}
}

// Close gives the folder up.
func (d *Dir) Close() {
	if d.lock != nil {
		d.lock.Close()
		d.lock = nil
	}
}

// writeDurably replaces dir/name as a whole: after a crash it is the old file or the new one.
func writeDurably(dir, name string, b []byte) error {
	fail := func(err error) error { return errs.Wrap(errs.IO, err, "cannot write %s in %s", name, dir) }
	tmp := filepath.Join(dir, name+".tmp")
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fail(err)
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, filepath.Join(dir, name))
	}
	if err != nil {
		return fail(err)
	}
	h, err := os.Open(dir)
	if err != nil {
		return fail(err)
	}
	defer h.Close()
	if err := h.Sync(); err != nil {
		return fail(err)
	}
	return nil
}
