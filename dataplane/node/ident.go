package node

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"

	"vstor/dataplane/errs"
)

// ident is what makes a deployment this one and no other. It is written once, before anything else.
type ident struct {
	UUID    uuid   `json:"uuid"`
	Journal uuid   `json:"journal"`
	Check   string `json:"check"` // of the above, see check
}

// check is the checksum of both, as it stands in the file.
func (d ident) check() string {
	h := sha256.Sum256(append(append([]byte("ident"), d.UUID[:]...), d.Journal[:]...))
	return hex.EncodeToString(h[:8])
}

type uuid [16]byte

func (u uuid) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(u[:])), nil }

func (u *uuid) UnmarshalText(b []byte) error {
	if len(b) != 32 {
		return errs.New(errs.Corrupt, "%q is no uuid: 32 hexadecimal digits would be one", b)
	}
	_, err := hex.Decode(u[:], b)
	return err
}

func (u uuid) String() string { return hex.EncodeToString(u[:]) }

// asdUUID is the identity of ASD i: derived, so that a folder swapped with another's is noticed even if
// all else is lost.
func (d ident) asdUUID(i int) [16]byte {
	b := binary.LittleEndian.AppendUint32(append([]byte("asd"), d.UUID[:]...), uint32(i))
	h := sha256.Sum256(b)
	return [16]byte(h[:16])
}

const identFile = "deployment.json"

func makeIdent(fs vfs.FS, dir string) (ident, error) {
	var d ident
	rand.Read(d.UUID[:])
	rand.Read(d.Journal[:])
	return d, writeIdent(fs, dir, d)
}

// writeIdent replaces the file as a whole.
func writeIdent(fs vfs.FS, dir string, d ident) error {
	d.Check = d.check()
	b, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	fail := func(err error) error { return errs.Wrap(errs.IO, err, "cannot write the deployment's identity") }
	path := filepath.Join(dir, identFile)
	f, err := fs.Create(path+".tmp", vfs.WriteCategoryUnspecified)
	if err != nil {
		return fail(err)
	}
	_, err = f.Write(append(b, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = fs.Rename(path+".tmp", path)
	}
	if err != nil {
		return fail(err)
	}
	return syncDir(fs, dir)
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return errs.Wrap(errs.IO, err, "cannot open %s", dir)
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return errs.Wrap(errs.IO, err, "cannot sync %s", dir)
	}
	return nil
}

func readIdent(fs vfs.FS, dir string) (ident, error) {
	var d ident
	path := filepath.Join(dir, identFile)
	f, err := fs.Open(path)
	if err != nil {
		return d, errs.Wrap(errs.Absent, err, "this deployment has lost its identity; restore %s from a backup of it", path)
	}
	defer f.Close()
	b := make([]byte, 4096)
	n, _ := f.Read(b)
	if err := json.Unmarshal(b[:n], &d); err != nil {
		return d, errs.Wrap(errs.Corrupt, err, "%s is damaged", path)
	}
	if d.Check != d.check() {
		return d, errs.New(errs.Corrupt, "%s is damaged: its check is %.20q, %s would be right", path, d.Check, d.check())
	}
	return d, nil
}
